"""Coverage of problems and the best of N by a reward model, from the outcomes of answers: cells, tables, sample efficiency.

A policy has a model a training seed. Curves are each seed's own, of its n answers a problem, and averaged over seeds problem by
problem; intervals are over problems, so they are of these models and do not cover new seeds. How difficult a problem is say
other answers of π₀, the same for all policies.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.evaluation.coverage import (
    DIFFICULTIES,
    FloatArray,
    Labels,
    best_of_each_n,
    difficulty,
    mean_curve,
    pass_at_each_k,
    sample_efficiency,
)
from prefdist.evaluation.resampling import Interval
from prefdist.results.comparisons import first_run
from prefdist.results.tables import COLUMNS, Cell, markdown_row

CRITERIA = {"pass": "pass@k", "best": "best of k by r̂"}
"""Is one of k answers right; is the one of highest reward."""
ALL = "all"
_CAPTION = (
    "Estimate in % [95 % interval]. pass@k: one of k answers is right; best of k: the one that the reward model puts first is. "
    "Both average over all subsets of a seed's answers and then over seeds; intervals: bootstrap over problems, with the "
    "trained models fixed. Difficulty: within how many of its other answers π₀ finds the result"
)


@dataclass(frozen=True)
class Curves:
    """Of a policy: criterion -> [problems, n], each problem's mean over seeds, in the order of `problems`."""

    problems: list[str]
    seeds: int
    of: dict[str, FloatArray]


def read_curves(file: Path) -> dict[str, Curves]:
    """By policy, in the order of the rows. UserError if policies or problems do not have the same answers."""
    grids: dict[str, dict[int, dict[str, list[dict[str, Any]]]]] = {}
    for row in tables.read_table(file, tables.OUTCOMES):
        grids.setdefault(row["run"], {}).setdefault(row["seed"], {}).setdefault(row["prompt_id"], []).append(row)
    found = {}
    for run, by_seed in grids.items():
        problems = list(next(iter(by_seed.values())))
        of_seeds = []
        for by_problem in by_seed.values():
            if set(by_problem) != set(problems) or len({len(rows) for rows in by_problem.values()}) != 1:
                raise UserError(f"{file}: policy {run} lacks answers to some problems; make the stage best_of_n again")
            rows = [by_problem[problem] for problem in problems]
            correct = np.array([[row["correct"] for row in of_problem] for of_problem in rows])
            rewards = np.array([[row["reward"] for row in of_problem] for of_problem in rows], dtype=np.float64)
            of_seeds.append({"pass": pass_at_each_k(correct), "best": best_of_each_n(rewards, correct)})
        means = {name: np.mean([curves[name] for curves in of_seeds], axis=0) for name in CRITERIA}
        found[run] = Curves(problems, len(of_seeds), means)
    if len({tuple(curves.problems) for curves in found.values()}) > 1:
        raise UserError(f"{file}: policies have answers to different problems")
    return found


def read_difficulties(file: Path, problems: Sequence[str], *, easy: int, medium: int) -> Labels:
    """Of each problem, by π₀'s other answers in the order drawn."""
    by_problem: dict[str, list[bool]] = {}
    for row in tables.read_table(file, tables.OUTCOMES):
        by_problem.setdefault(row["prompt_id"], []).append(row["correct"])
    return difficulty(np.array([by_problem[problem] for problem in problems]), easy=easy, medium=medium)


def coverage_cells(curves: dict[str, Curves], labels: Labels) -> list[Cell]:
    """A cell a policy, criterion, difficulty and k in powers of two up to n, and n; metric = criterion/difficulty/k."""
    cells = []
    for run, of_run in curves.items():
        for criterion, values in of_run.of.items():
            for split in (ALL, *DIFFICULTIES):
                chosen = values if split == ALL else values[labels == split]
                if len(chosen):
                    mean = mean_curve(chosen)
                    cells += [_cell(run, f"{criterion}/{split}/{k}", mean, k, of_run.seeds) for k in powers(values.shape[1])]
    return cells


def powers(n: int) -> list[int]:
    """1, 2, 4, … below n, and n."""
    return [*(2**i for i in range(n.bit_length()) if 2**i < n), n]


def write_coverage(cells: Sequence[Cell], labels: Labels, bounds: tuple[int, int], file: Path) -> None:
    """A table a criterion and difficulty: a row a policy, a column a k."""
    easy, medium = bounds
    lines = [f"{_CAPTION} (easy: {easy}, medium: {medium}, hard: more or none).", ""]
    found: dict[tuple[str, str], dict[str, dict[int, Cell]]] = {}
    for cell in cells:
        criterion, split, k = cell["metric"].split("/")
        found.setdefault((criterion, split), {}).setdefault(cell["run"], {})[int(k)] = cell
    for (criterion, split), by_run in sorted(found.items(), key=lambda item: list(CRITERIA).index(item[0][0])):
        count = len(labels) if split == ALL else int((labels == split).sum())
        ks = list(next(iter(by_run.values())))
        lines += [f"## {CRITERIA[criterion]}: {split} problems ({count})", ""]
        lines += [markdown_row(["policy", *(f"k = {k}" for k in ks)]), markdown_row(["---", *["---:"] * len(ks)])]
        lines += [markdown_row([run, *(_shown(of_run[k]) for k in ks)]) for run, of_run in by_run.items()]
        lines.append("")
    file.write_text("\n".join(lines), encoding="utf-8")


def write_efficiency(curves: dict[str, Curves], file: Path) -> None:
    """How many answers of each policy are worth all of the reference policy's."""
    reference = first_run(list(curves))
    other = curves[reference]
    n = other.of["pass"].shape[1]
    lines = [
        f"How many answers of a policy reach what `{reference}` reaches with {n}, over all problems; ∞ where its own answers "
        "do not. 95 % interval: bootstrap over problems, paired; curves are means over seeds, and intervals do not cover new "
        "seeds.",
        "",
        markdown_row(["policy", *CRITERIA.values(), "problems"]),
        markdown_row(["---", *["---:"] * len(CRITERIA), "---:"]),
    ]
    for run, of_run in curves.items():
        found = [sample_efficiency(of_run.of[name], other.of[name], n) for name in CRITERIA]
        lines.append(markdown_row([run, *map(_count, found), str(len(of_run.problems))]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _cell(run: str, metric: str, mean: Interval, k: int, seeds: int) -> Cell:
    numbers = (100 * float(ends[k - 1]) for ends in (mean.value, mean.low, mean.high))
    return dict(zip(COLUMNS, (run, metric, *numbers, mean.units, seeds, mean.units * seeds, 0), strict=True))


def _shown(cell: Cell) -> str:
    interval = "" if np.isnan(cell["low"]) else f" [{cell['low']:.1f}, {cell['high']:.1f}]"
    return f"{cell['estimate']:.1f}{interval}"


def _count(found: Interval) -> str:
    value, low, high = ("∞" if np.isinf(end) else f"{end:.1f}" for end in map(float, (found.value, found.low, found.high)))
    return value if np.isnan(found.low) else f"{value} [{low}, {high}]"
