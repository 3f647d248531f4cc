"""The stage `calibrate`: reward models on held-out pairs, against their labels and their known probabilities."""

from pathlib import Path
from typing import Any

import torch

from prefdist.data import tables
from prefdist.models import load_scorer
from prefdist.objectives import bradley_terry
from prefdist.scoring.sequences import response_rewards
from prefdist.tokens import TextCodec
from prefdist.training import examples


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes calibration.parquet (a row a pair) and metrics.parquet (means over a prompt's pairs), all seeds.

    accuracy: the labelled winner has the higher reward. accuracy_known: the more probable winner has. kl_known:
    KL(known ‖ model) of the pair's two outcomes in nats. brier: squared error of the probability given to the label.
    """
    codec = TextCodec(inputs["text"] / "tokenizer")
    metrics, pairs = [], []
    for seed in spec["seeds"]:
        rows = examples.preference_rows(inputs[f"preferences/{seed}"], "test")
        batch = examples.pairs(inputs[f"preferences/{seed}"], codec, "test")
        scorer = load_scorer(inputs[f"reward_model/{seed}"])
        rewards = torch.stack(response_rewards(scorer, batch.prompts, batch.responses, pad_id=codec.pad_id)).double()
        margin = rewards[:, 0] - rewards[:, 1]
        known = torch.tensor([row["p_chosen"] for row in rows], dtype=torch.float64)
        measured = {
            "accuracy": (margin > 0).double(),
            "accuracy_known": ((margin > 0) == (known > 0.5)).double(),
            "kl_known": bradley_terry.kl(known.logit(), margin),
            "brier": (1 - margin.sigmoid()).square(),
        }
        of_prompt: dict[str, list[int]] = {}
        for i, row in enumerate(rows):
            of_prompt.setdefault(row["prompt_id"], []).append(i)
            probabilities = {"p_model": float(margin[i].sigmoid()), "p_known": row["p_chosen"]}
            pairs.append({"pair_id": row["pair_id"], "prompt_id": row["prompt_id"], **probabilities})
        metrics += [
            {"run": "reward_model", "seed": seed, "prompt_id": name, "metric": metric, "value": float(values[where].mean())}
            for name, where in of_prompt.items()
            for metric, values in measured.items()
        ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    tables.write_table(out / "calibration.parquet", pairs, tables.CALIBRATION)
