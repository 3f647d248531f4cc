"""The stage `baselines`: what every evaluation is held against, sampled and scored once.

target.parquet and prior.parquet: samples of π* and π₀ on held-out prompts; prior_scores.parquet and
reference_scores.parquet: log π* of π₀'s samples and of the references; probe.parquet: samples of π* on validation prompts.
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.models import load_policy
from prefdist.sampling.rows import draw
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec


def grouped(rows: list[dict[str, Any]], column: str) -> dict[str, list[Any]]:
    """A column's values by prompt, in the order of the rows."""
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row[column])
    return groups


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Sample from π* and π₀, score under π*, and write the tables."""
    codec = TextCodec(inputs["text"] / "tokenizer")
    target, prior = load_policy(inputs["target"]), load_policy(inputs["prior"])
    prompts = held_out(inputs["text"], "test", spec["prompts"])
    probe = held_out(inputs["text"], "validation", spec["probe_prompts"])
    size = {"num_samples": spec["samples"], "max_new_tokens": spec["max_new_tokens"]}
    prior_rows = draw(prior, codec, prompts, "baseline/prior", **size)
    written = {
        "target": draw(target, codec, prompts, "baseline/target", **size),
        "prior": prior_rows,
        "probe": draw(target, codec, probe, "baseline/probe", **size),
    }
    for name, rows in written.items():
        tables.write_table(out / f"{name}.parquet", rows, tables.RESPONSES)
    references = {row["prompt_id"]: [codec.response(row["reference"])] for row in prompts}
    for name, responses in {"prior": grouped(prior_rows, "token_ids"), "reference": references}.items():
        scores = _scores(target, codec, prompts, responses)
        tables.write_table(out / f"{name}_scores.parquet", scores, tables.SCORES)


def _scores(
    target: Any, codec: TextCodec, prompts: list[dict[str, Any]], responses: dict[str, list[list[int]]]
) -> list[dict[str, Any]]:
    ids = [responses[row["prompt_id"]] for row in prompts]
    logps = response_logps(target, [codec.prompt(row["prompt"]) for row in prompts], ids, pad_id=codec.pad_id)
    return [
        {
            "prompt_id": row["prompt_id"],
            "sample": i,
            "scorer": "target",
            "logp": float(logp),
            "n_tokens": len(y),
            "reward": None,
        }
        for row, ys, values in zip(prompts, ids, logps, strict=True)
        for i, (y, logp) in enumerate(zip(ys, values, strict=True))
    ]
