"""The stage `diversity`: quality and diversity of a policy's samples on held-out prompts (SPL, section 4.1).

Quality: win_rate_base = known probability σ(γ·Δ log π*) that a sample beats one of π₀'s; reward_apart = r̂ above that of π₀'s
samples of the prompt, by a reward model that was trained on other pairs, and reward_own by that of the policy's pairs;
cross_entropy = −log π₀ of a sample, in nats.
Diversity: embedding_distance, vendi, ead, self_bleu and distinct_2 of the samples of a prompt; entropy of the law that was
drawn from, in nats. Beside them length in tokens, and unfinished = share that filled its budget: both move all the others.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.behaviour.draws import Row, read_draws
from prefdist.data import tables
from prefdist.evaluation.diversity import (
    distinct_ngrams,
    expectation_adjusted_distinct,
    mean_cosine_distance,
    self_bleu,
    vendi_score,
)
from prefdist.evaluation.embeddings import Embedder, LatentSemantic, SentenceTransformers
from prefdist.models import load_frozen, load_scorer
from prefdist.scoring.sequences import response_logps, response_rewards
from prefdist.tokens import TextCodec

Values = dict[str, float | None]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet: a row a seed, prompt and metric."""
    judges, embedder = Judges(inputs, spec["gamma"]), _embedder(spec, inputs)
    metrics = []
    for seed in spec["seeds"]:
        draws, of_base = read_draws(inputs[f"draws/{seed}"]), read_draws(inputs[f"base_draws/{seed}"])
        quality = judges.quality(draws, of_base, {role: inputs[f"{role}/{seed}"] for role in ("own", "judge")})
        for (prompt_id, rows), of_prompt in zip(draws.items(), quality, strict=True):
            values = of_prompt | _diversity(rows, judges.codec, embedder)
            metrics += [
                {"run": spec["run"], "seed": seed, "prompt_id": prompt_id, "metric": name, "value": value}
                for name, value in values.items()
            ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


@dataclass
class Judges:
    """π₀ and, where preferences are known, π*: what they make of responses."""

    inputs: dict[str, Path]
    gamma: float | None

    def __post_init__(self) -> None:
        self.codec = TextCodec(self.inputs["base"])
        self.base = load_frozen(self.inputs["base"])
        self.target = load_frozen(self.inputs["target"]) if "target" in self.inputs else None
        prompts = tables.read_table(self.inputs["text"] / "prompts.parquet", tables.PROMPTS)
        self._prompts = {row["prompt_id"]: row["prompt"] for row in prompts}

    def logps(self, model: Any, draws: dict[str, list[Row]]) -> list[Tensor]:
        """Log-probabilities [n] of each prompt's samples."""
        return response_logps(model, *self._ids(draws), pad_id=self.codec.pad_id)

    def rewards(self, scorer: Path, draws: dict[str, list[Row]]) -> list[Tensor]:
        """r̂ [n] of each prompt's samples."""
        device = next(self.base.parameters()).device
        return response_rewards(load_scorer(scorer, device), *self._ids(draws), pad_id=self.codec.pad_id)

    def quality(
        self, draws: dict[str, list[Row]], of_base: dict[str, list[Row]], scorers: dict[str, Path]
    ) -> list[dict[str, float]]:
        """Means over a prompt's samples; see above."""
        found = [{"cross_entropy": -float(logps.double().mean())} for logps in self.logps(self.base, draws)]
        if self.target is not None and self.gamma is not None:
            pairs = zip(self.logps(self.target, draws), self.logps(self.target, of_base), strict=True)
            for values, (own, other) in zip(found, pairs, strict=True):
                margins = own.double().unsqueeze(1) - other.double().unsqueeze(0)
                values["win_rate_base"] = float((self.gamma * margins).sigmoid().mean())
        for role, name in {"judge": "reward_apart", "own": "reward_own"}.items():
            pairs = zip(self.rewards(scorers[role], draws), self.rewards(scorers[role], of_base), strict=True)
            for values, (own, other) in zip(found, pairs, strict=True):
                values[name] = float(own.double().mean() - other.double().mean())
        return found

    def _ids(self, draws: dict[str, list[Row]]) -> tuple[list[list[int]], list[list[list[int]]]]:
        prompts = [self.codec.prompt(self._prompts[name]) for name in draws]
        return prompts, [[row["token_ids"] for row in rows] for rows in draws.values()]


def _embedder(spec: dict[str, Any], inputs: dict[str, Path]) -> Embedder:
    if "embedder" in inputs:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        return SentenceTransformers(inputs["embedder"], max_tokens=spec["max_tokens"], device=device)
    rows = tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS)
    return LatentSemantic([row["reference"] for row in rows if row["split"] == "train"], dimensions=spec["dimensions"])


def _diversity(rows: list[Row], codec: TextCodec, embedder: Embedder) -> Values:
    texts, ids = [row["text"] for row in rows], [row["token_ids"] for row in rows]
    vectors = embedder.embed(texts)
    return {
        "embedding_distance": mean_cosine_distance(vectors),
        "vendi": vendi_score(vectors),
        "ead": expectation_adjusted_distinct(ids, vocabulary=codec.vocabulary),
        "self_bleu": self_bleu(texts),
        "distinct_2": distinct_ngrams(ids, 2),
        "entropy": -sum(row["logq"] for row in rows) / len(rows),
        "length": sum(map(len, ids)) / len(ids),
        "unfinished": sum(row["finish_reason"] == "length" for row in rows) / len(rows),
    }
