"""The stage `benchmarks`: academic benchmarks before and after an alignment, a row a document and metric.

Metrics are named <task>/<metric of the harness>. Left out: metrics that only a whole set of documents has (harness.py).
"""

import json
from pathlib import Path
from typing import Any

import torch

from prefdist.data import tables
from prefdist.evaluation.harness import run_tasks


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet, and tasks.json: versions, shots, and how many prompts were cut."""
    include = None if spec["folder"] is None else Path(spec["folder"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    metrics, tasks = [], []
    for seed in spec["seeds"]:
        for task, shots in spec["tasks"].items():
            options: dict[str, Any] = {"include": include, "limit": spec["limit"], "device": device}
            found = run_tasks(inputs[f"policy/{seed}"], [task], num_fewshot=shots, **options)
            metrics += [
                {
                    "run": spec["run"],
                    "seed": seed,
                    "prompt_id": f"{row['task']}/{row['doc_id']}",
                    "metric": f"{task}/{row['metric']}",
                    "value": row["value"],
                }
                for row in found.rows
            ]
            tasks.append({"seed": seed, "versions": found.versions, "shots": found.num_fewshot, "cut": found.cut})
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    (out / "tasks.json").write_text(json.dumps(tasks, indent=1) + "\n")
