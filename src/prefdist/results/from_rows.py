"""The tables of a folder of results, from the metric rows that lie beside them.

The stages write them with these functions, and `prefdist results verify` writes them again. Left out: what has no rows
(costs, samples, what questions were answered, exact worlds) and figures.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from prefdist.data import tables
from prefdist.evaluation.resampling import IndexArray, bootstrap
from prefdist.evaluation.statistics import ReliabilityBins, reliability_bins
from prefdist.results.alignment_tables import write_alignment
from prefdist.results.behaviour_tables import write_behaviour
from prefdist.results.calibration import calibration_cells, write_calibration
from prefdist.results.judged import write_judged
from prefdist.results.metrics import ANSWERS, POLICY, REWARD_MODEL, STUDENT, TEACHER
from prefdist.results.metrics_behaviour import specs
from prefdist.results.tables import Cell, main_table, present, write_csv, write_markdown

RESAMPLES = 500


def write_policies(spec: dict[str, Any], rows: Path, out: Path) -> list[Cell]:
    """Of a testbed suite: policies and reward models. Returns the policies' cells."""
    measured = tables.read_table(rows / "metrics.parquet", tables.METRICS)
    reward_cells = main_table(measured, ["reward_model"], REWARD_MODEL)
    write_csv(reward_cells, out / "reward_model.csv")
    write_markdown(reward_cells, REWARD_MODEL, out / "reward_model.md")
    cells = main_table(measured, spec["runs"], POLICY)
    write_csv(cells, out / "table.csv")
    write_markdown(cells, POLICY, out / "table.md")
    return cells


def write_ablation(spec: dict[str, Any], rows: Path, out: Path) -> list[Cell]:
    """A row of the table is a value of what differs. Two values may share a run: the one that other ablations vary."""
    measured = _renamed(tables.read_table(rows / "metrics.parquet", tables.METRICS), spec["runs"])
    measure = spec.get("measure", "student")
    if measure == "student":
        return _write_students(measured, list(spec["runs"]), out)
    metrics = specs((row["metric"] for row in measured), measure)
    cells = main_table(measured, list(spec["runs"]), metrics)
    if measure == "calibration":
        cells += calibration_cells(
            _renamed(tables.read_table(rows / "answers.parquet", tables.ANSWERS), spec["runs"]), spec["bins"]
        )
        write_calibration(cells, spec["bins"], out / "table.md")
    else:
        write_markdown(cells, metrics, out / "table.md")
    write_csv(cells, out / "table.csv")
    return cells


def write_distillation(spec: dict[str, Any], rows: Path, out: Path) -> list[Cell]:
    """Of a suite of preference distillation: students, what judges say of them, and each teacher whose rows are there.

    Returns the cells of table.csv.
    """
    for student, teacher in spec["pairs"]:
        if (rows / f"{teacher_name(student, teacher)}-metrics.parquet").is_file():
            write_teacher(teacher_name(student, teacher), rows, out)
    measured = tables.read_table(rows / "metrics.parquet", tables.METRICS)
    cells = _write_students(measured, spec["runs"], out)
    if "judged" in spec:
        cells = cells + write_judged(measured, spec["judged"], out)
        write_csv(cells, out / "table.csv")
    return cells


WRITERS: dict[str, Callable[[dict[str, Any], Path, Path], list[Cell]]] = {
    "results": write_policies,
    "ablation": write_ablation,
    "pad_results": write_distillation,
    "spl_results": write_behaviour,
    "adl_results": write_alignment,
}
"""Stage -> what writes its tables: (spec, folder of the rows, folder of the tables)."""


def teacher_name(student: str, teacher: str) -> str:
    """What the files of a pair begin with: the candidates are the student's."""
    return f"teacher-{teacher}-{student}"


def write_teacher(name: str, rows: Path, out: Path) -> list[Cell]:
    """What a teacher's preferences are worth, its answers, and its calibration."""
    measured = tables.read_table(rows / f"{name}-metrics.parquet", tables.METRICS)
    metrics = present(TEACHER, measured)
    cells = main_table(measured, _runs(measured), metrics)
    write_csv(cells, out / f"{name}.csv")
    write_markdown(cells, metrics, out / f"{name}.md")
    answers = tables.read_table(rows / f"{name}-answers.parquet", tables.METRICS)
    if answers:
        write_markdown(main_table(answers, _runs(answers), ANSWERS), ANSWERS, out / f"{name}-answers.md")
    pairs = tables.read_table(rows / f"{name}-pairs.parquet", tables.TEACHER_PAIRS)
    if pairs:
        _write_calibration(pairs, out / f"{name}-calibration.md")
    return cells


def reliability(pairs: list[dict[str, Any]]) -> ReliabilityBins:
    """Of rows of TEACHER_PAIRS: both orientations of every pair, so that the naming of the pair does not matter."""
    p = np.array([pair["p_model"] for pair in pairs])
    hit = np.array([float(pair["first_wins"]) for pair in pairs])
    return reliability_bins(np.concatenate([p, 1 - p]), np.concatenate([hit, 1 - hit]), bins=10)


def _write_students(rows: list[dict[str, Any]], runs: list[str], out: Path) -> list[Cell]:
    metrics = present(STUDENT, rows)
    cells = main_table(rows, runs, metrics)
    write_csv(cells, out / "table.csv")
    write_markdown(cells, metrics, out / "table.md")
    return cells


def _renamed(rows: list[dict[str, Any]], runs: dict[str, str]) -> list[dict[str, Any]]:
    """Rows of each value's run, under the value."""
    return [{**row, "run": value} for value, run in runs.items() for row in rows if row["run"] == run]


def _runs(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["run"] for row in rows))


def _write_calibration(pairs: list[dict[str, Any]], file: Path) -> None:
    """Expected calibration error of each reward, with a 95 % bootstrap interval over prompts."""
    lines = [
        "Expected calibration error of 10 bins, both orientations of each pair; 95 % interval: bootstrap over prompts.",
        "",
    ]
    lines += ["| reward | ECE ↓ | pairs | prompts |", "| --- | ---: | ---: | ---: |"]
    for reward in dict.fromkeys(pair["reward"] for pair in pairs):
        by_prompt: dict[str, list[dict[str, Any]]] = {}
        for pair in pairs:
            if pair["reward"] == reward:
                by_prompt.setdefault(pair["prompt_id"], []).append(pair)
        groups = list(by_prompt.values())
        found = bootstrap(_error_of(groups), len(groups), resamples=RESAMPLES)
        counts = f"{sum(map(len, groups))} | {len(groups)}"
        lines.append(f"| {reward} | {found.value:.3f} [{found.low:.3f}, {found.high:.3f}] | {counts} |")
    file.write_text("\n".join(lines) + "\n")


def _error_of(groups: list[list[dict[str, Any]]]) -> Callable[[IndexArray], float]:
    """Calibration error of the pairs of chosen prompts."""
    return lambda chosen: reliability([pair for i in chosen for pair in groups[i]]).ece
