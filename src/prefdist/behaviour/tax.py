"""The stage `tax`: what an alignment costs elsewhere, a row a document and metric.

text_nll = −log π of a held-out reference a token, in nats, its end included: exp of the mean is the perplexity. Tasks of
lm-evaluation-harness add a metric each, under the harness' own name for it. Left out: questions and problems, which are stages
of their own.
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.models import load_frozen
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet."""
    metrics = []
    for seed in spec["seeds"]:
        key = {"run": spec["run"], "seed": seed}
        policy = inputs[f"policy/{seed}"]
        metrics += [{**key, **row} for row in _texts(policy, held_out(inputs["text"], "test", spec["texts"]))]
        metrics += [{**key, **row} for row in _tasks(policy, spec)]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


def _texts(policy: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    codec = TextCodec(policy)
    with_reference = [row for row in rows if row["reference"]]
    prompts = [codec.prompt(row["prompt"]) for row in with_reference]
    references = [codec.response(row["reference"]) for row in with_reference]
    logps = response_logps(load_frozen(policy), prompts, [[ids] for ids in references], pad_id=codec.pad_id)
    return [
        {"prompt_id": row["prompt_id"], "metric": "text_nll", "value": -float(logp) / len(ids)}
        for row, ids, logp in zip(with_reference, references, logps, strict=True)
    ]
