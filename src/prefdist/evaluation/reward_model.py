"""The stage `calibrate`: a reward model on held-out pairs, against their labels and their known probabilities."""

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
    """Writes calibration.parquet (a row a pair) and metrics.parquet (means by prompt).

    accuracy: the labelled winner has the higher reward. accuracy_known: the more probable winner has. kl_known:
    KL(known ‖ model) of the pair's two outcomes in nats. brier: squared error of the probability given to the label.
    """
    codec = TextCodec(inputs["text"] / "tokenizer")
    rows = examples.preference_rows(inputs["preferences"], "test")
    batch = examples.pairs(inputs["preferences"], codec, "test")
    scorer = load_scorer(inputs["reward_model"])
    rewards = torch.stack(response_rewards(scorer, batch.prompts, batch.responses, pad_id=codec.pad_id)).double()
    margin = rewards[:, 0] - rewards[:, 1]
    known = torch.tensor([row["p_chosen"] for row in rows], dtype=torch.float64)
    model = margin.sigmoid()
    measured = {
        "accuracy": (margin > 0).double(),
        "accuracy_known": ((margin > 0) == (known > 0.5)).double(),
        "kl_known": bradley_terry.kl(known.logit(), margin),
        "brier": (1 - model).square(),
    }
    metrics = [
        {
            "run": "reward_model",
            "seed": spec["seed"],
            "prompt_id": row["prompt_id"],
            "metric": name,
            "value": float(value),
        }
        for name, values in measured.items()
        for row, value in zip(rows, values, strict=True)
    ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    pairs = [
        {"pair_id": row["pair_id"], "prompt_id": row["prompt_id"], "p_model": float(p), "p_known": row["p_chosen"]}
        for row, p in zip(rows, model, strict=True)
    ]
    tables.write_table(out / "calibration.parquet", pairs, tables.CALIBRATION)
