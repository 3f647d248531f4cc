"""The stage `pad_results`: tables, figures, costs and the manifest of a suite of preference distillation."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prefdist.artefacts import provenance
from prefdist.data import tables
from prefdist.evaluation.statistics import ReliabilityBins
from prefdist.paths import TIMINGS
from prefdist.results import figures_distillation
from prefdist.results.ablation import measured_rows
from prefdist.results.from_rows import reliability, teacher_name, write_distillation
from prefdist.results.judged import judged_rows
from prefdist.results.manifest import write_manifest
from prefdist.results.tables import Cell, read_csv

FLAT = 0.98
"""Entropy of a teacher's law of rankings over ln n!, above which it says next to nothing (PAD's sign of failure)."""


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Everything that results/<suite>/<version> holds."""
    rows = measured_rows({name: inputs[f"student/{name}"] for name in spec["runs"]}, "metrics", tables.METRICS)
    rows += judged_rows(inputs)
    tables.write_table(out / "metrics.parquet", rows, tables.METRICS)
    _add_teachers(spec, inputs, out)
    cells = write_distillation(spec, out, out)
    for student, teacher in spec["pairs"]:
        _warn_if_flat(teacher, read_csv(out / f"{teacher_name(student, teacher)}.csv"))
    _write_costs(spec, inputs, out / "cost.csv")
    shown = figures_distillation.shown(cells)
    figures_distillation.panels(cells, out / "overview", title="All runs: estimates with 95 % intervals", metrics=shown)
    write_manifest(spec, inputs, out / "manifest.json")


def _add_teachers(spec: dict[str, Any], inputs: dict[str, Path], out: Path) -> None:
    """Rows and reliability diagram of each pair of student and teacher, and how its questions were answered."""
    biases = {}
    for student, teacher in spec["pairs"]:
        folder, name = inputs[f"teacher/{teacher}/{student}"], teacher_name(student, teacher)
        for kind in ("metrics", "answers", "pairs"):
            shutil.copyfile(folder / f"{kind}.parquet", out / f"{name}-{kind}.parquet")
        biases[f"{teacher}/{student}"] = json.loads((folder / "questions.json").read_text())
        pairs = tables.read_table(folder / "pairs.parquet", tables.TEACHER_PAIRS)
        if pairs:
            figures_distillation.reliabilities(_bins(pairs), out / f"{name}-reliability")
    _write_questions(biases, out / "questions.md")


def _warn_if_flat(teacher: str, cells: list[Cell]) -> None:
    for cell in cells:
        if cell["metric"] == "entropy" and cell["estimate"] > FLAT:
            share = f"{100 * cell['estimate']:.1f} % of the most that is possible"
            print(f"warning: teacher {teacher}, reward {cell['run']}: its rankings have {share}: nearly flat", file=sys.stderr)


def _write_questions(biases: dict[str, dict[str, Any]], file: Path) -> None:
    """How the answers depend on the order of the options, and how much of them is None or no answer at all."""
    lines = [
        "Means over all questions about held-out candidates. Winner changes: share of pairs of responses of which the more",
        "probable one differs between two orders of the same options.",
        "",
        "| teacher / student | questions | probability by position | None | letters and None | winner changes |",
        "| --- | --- | --- | ---: | ---: | ---: |",
    ]
    for pair, kinds in biases.items():
        for kind, bias in kinds.items():
            positions = " ".join(f"{p:.3f}" for p in bias["mean_by_position"])
            shares = " | ".join("–" if bias[key] is None else f"{bias[key]:.3f}" for key in ("none", "mass", "changed"))
            lines.append(f"| {pair} | {kind} | {positions} | {shares} |")
    file.write_text("\n".join(lines) + "\n")


def _bins(pairs: list[dict[str, Any]]) -> dict[str, ReliabilityBins]:
    """Reliability of each reward."""
    rewards = dict.fromkeys(pair["reward"] for pair in pairs)
    return {reward: reliability([pair for pair in pairs if pair["reward"] == reward]) for reward in rewards}


def _write_costs(spec: dict[str, Any], inputs: dict[str, Path], file: Path) -> None:
    """What each run took for itself and for what it shares: samples, forward passes of the teacher, training.

    A response scored or a question put is one forward pass of the teacher's; a drawn response is one of the sampler's.
    """
    lines = ["run,seed,responses_drawn,teacher_scores,teacher_questions,teacher_responses_drawn,steps,tokens,seconds"]
    for run in spec["runs"]:
        for seed in spec["seeds"]:
            parts = range(sum(role.startswith(f"policy/{run}/{seed}/") for role in inputs))
            counts = [_count(inputs, f"{role}/{run}/{seed}", parts) for role in _DRAWN_OR_SCORED]
            folders = [inputs[f"policy/{run}/{seed}/{i}"] for i in parts]
            tokens = [json.loads(line)["tokens"] for folder in folders for line in _log(folder)]
            seconds = sum(sum(json.loads((folder / TIMINGS).read_text())) for folder in folders)
            lines.append(",".join(map(str, [run, seed, *counts, len(tokens), round(sum(tokens)), round(seconds, 1)])))
    file.write_text("\n".join(lines) + "\n")


_DRAWN_OR_SCORED = {
    "responses": "responses",
    "scores": "scores",
    "questions": "questions",
    "teacher_responses": "responses",
}


def _count(inputs: dict[str, Path], role: str, parts: range) -> int:
    """Rows of a table, or responses drawn for it, over the parts of a run."""
    total = 0
    for i in parts:
        folder = inputs.get(f"{role}/{i}")
        if folder is not None:
            name = _DRAWN_OR_SCORED[role.split("/")[0]]
            if name == "responses":  # of as many prompts as the split had, the dropped ones too
                prompts = json.loads((folder / "summary.json").read_text())["prompts"]
                total += provenance(folder)["spec"]["draws"] * prompts
            else:
                total += pq.read_metadata(folder / f"{name}.parquet").num_rows
    return total


def _log(folder: Path) -> list[str]:
    return (folder / "log.jsonl").read_text().splitlines()
