"""The stage `tax`: what an alignment costs elsewhere, a row a reference and metric.

text_nll = −log π of a held-out reference a token, in nats, its end included: exp of the mean is the perplexity. Left out:
questions, problems and academic benchmarks, which are stages of their own.
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
    rows = [row for row in held_out(inputs["text"], "test", spec["texts"]) if row["reference"]]
    metrics = []
    for seed in spec["seeds"]:
        codec, model = TextCodec(inputs[f"policy/{seed}"]), load_frozen(inputs[f"policy/{seed}"])
        prompts = [codec.prompt(row["prompt"]) for row in rows]
        references = [codec.response(row["reference"]) for row in rows]
        logps = response_logps(model, prompts, [[ids] for ids in references], pad_id=codec.pad_id)
        key = {"run": spec["run"], "seed": seed, "metric": "text_nll"}
        metrics += [
            {**key, "prompt_id": row["prompt_id"], "value": -float(logp) / len(ids)}
            for row, ids, logp in zip(rows, references, logps, strict=True)
        ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
