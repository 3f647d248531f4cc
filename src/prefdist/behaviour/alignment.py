"""The stage `alignment`: reward, KL and length of a policy's answers to sets of prompts, at a common and at its own decoding.

A row a seed, set, prompt and metric, means over the prompt's samples; a metric is named <set>/<metric>. Of the common law:
kl = KL(π_T‖π₀_T), both at its temperature T, and entropy = H(π_T), in nats; reward = r̂, whose zero is arbitrary, and
reward_gain = r̂ above that of the dataset's own answer to the prompt, where it has one; reward_wins = share of samples whose r̂
is higher than that; length in tokens; unfinished = share that filled its budget. Of the run's own law the same with _own
behind the name; kl_own and entropy_own only where it has no filter, which would give some samples of π₀ no probability at all.

Left out: what judges say (judges are asked about the draws).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.behaviour.draws import Row, read_draws
from prefdist.data import tables
from prefdist.models import load_frozen, load_scorer
from prefdist.scoring.sequences import response_logps, response_rewards
from prefdist.tokens import TextCodec

Values = dict[str, float]
SUFFIXES = {"common": "", "own": "_own"}


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet."""
    judge = Judge(inputs)
    metrics = []
    for seed in spec["seeds"]:
        scorer = load_scorer(inputs[f"reward_model/{seed}"], judge.device).requires_grad_(False)
        for name in spec["sets"]:
            prompts = tables.read_table(inputs[f"prompts/{name}"] / "prompts.parquet", tables.PROMPTS)
            rows = {row["prompt_id"]: row for row in prompts}
            for label, law in spec["laws"].items():
                draws = read_draws(inputs[f"draws/{name}/{label}/{seed}"])
                for prompt_id, values in judge.measured(draws, rows, scorer, law).items():
                    metrics += [
                        {
                            "run": spec["run"],
                            "seed": seed,
                            "prompt_id": prompt_id,
                            "metric": f"{name}/{metric}{SUFFIXES[label]}",
                            "value": value,
                        }
                        for metric, value in values.items()
                    ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


@dataclass
class Judge:
    """π₀: what it makes of a policy's samples, beside a reward model."""

    inputs: dict[str, Path]

    def __post_init__(self) -> None:
        self.codec = TextCodec(self.inputs["base"])
        self.base = load_frozen(self.inputs["base"])
        self.device = next(self.base.parameters()).device

    def measured(
        self, draws: dict[str, list[Row]], prompts: dict[str, Row], scorer: Any, law: dict[str, Any]
    ) -> dict[str, Values]:
        """Means over the samples of each prompt; see above."""
        questions = [self.codec.prompt(prompts[name]["prompt"]) for name in draws]
        ids = [[row["token_ids"] for row in rows] for rows in draws.values()]
        options: dict[str, Any] = {"pad_id": self.codec.pad_id}
        rewards = response_rewards(scorer, questions, ids, **options)
        references = self._reference_rewards(list(draws), questions, prompts, scorer)
        plain = law["top_k"] == 0 and law["top_p"] == 1
        of_base: list[Tensor | None] = [None] * len(draws)
        if plain:
            of_base = [*response_logps(self.base, questions, ids, temperature=law["temperature"], **options)]
        found = {}
        for (name, rows), reward, logps in zip(draws.items(), rewards, of_base, strict=True):
            found[name] = _values(rows, reward.double(), references.get(name))
            if logps is not None:
                of_law = torch.tensor([row["logq"] for row in rows], dtype=torch.float64)
                found[name] |= {"kl": float((of_law - logps.double()).mean()), "entropy": -float(of_law.mean())}
        return found

    def _reference_rewards(
        self, names: list[str], questions: list[list[int]], prompts: dict[str, Row], scorer: Any
    ) -> dict[str, float]:
        """r̂ of the dataset's own answers, of prompts that have one."""
        asked = [(name, ids) for name, ids in zip(names, questions, strict=True) if prompts[name]["reference"]]
        if not asked:
            return {}
        answers = [[self.codec.response(prompts[name]["reference"])] for name, _ in asked]
        rewards = response_rewards(scorer, [ids for _, ids in asked], answers, pad_id=self.codec.pad_id)
        return {name: float(reward) for (name, _), reward in zip(asked, rewards, strict=True)}


def _values(rows: list[Row], rewards: Tensor, reference: float | None) -> Values:
    values = {
        "reward": float(rewards.mean()),
        "length": sum(len(row["token_ids"]) for row in rows) / len(rows),
        "unfinished": sum(row["finish_reason"] == "length" for row in rows) / len(rows),
    }
    if reference is not None:
        values |= {
            "reward_gain": float(rewards.mean()) - reference,
            "reward_wins": float((rewards > reference).double().mean()),
        }
    return values
