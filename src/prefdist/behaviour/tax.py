"""The stage `tax`: what an alignment costs elsewhere, a row a document and metric.

text_nll = −log π of a held-out reference a token, in nats, its end included: exp of the mean is the perplexity. Tasks of
lm-evaluation-harness add a metric each, under the harness' own name for it. Left out: questions and problems, which are stages
of their own.
"""

from pathlib import Path
from typing import Any

import torch

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
        for task, shots in spec["tasks"].items():
            metrics += [{**key, **row} for row in _task(policy, task, shots, spec)]
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


def _task(policy: Path, task: str, shots: int, spec: dict[str, Any]) -> list[dict[str, Any]]:
    from prefdist.evaluation.harness import run_tasks  # seconds to import, and many suites have no tasks

    include = None if spec["task_folder"] is None else Path(spec["task_folder"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    found = run_tasks(policy, [task], include=include, num_fewshot=shots, limit=spec["limit"], device=device)
    return [
        {"prompt_id": f"{row['task']}/{row['doc_id']}", "metric": f"{task}/{row['metric']}", "value": row["value"]}
        for row in found.rows
    ]
