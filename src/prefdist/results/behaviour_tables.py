"""The tables of a suite of behaviour, from the rows that lie beside them.

metrics.parquet, answers.parquet, outcomes.parquet and split.parquet are such rows, and so are slopes.csv and fits.csv: fits to
many rows of a seed, which have no rows a prompt. Left out: figures, costs.
"""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results.calibration import calibration_cells, write_calibration
from prefdist.results.comparisons import first_run, write_comparisons
from prefdist.results.coverage import coverage_cells, read_curves, read_difficulties, write_coverage, write_efficiency
from prefdist.results.metrics_behaviour import REPEATS, main_metrics, specs
from prefdist.results.tables import CAPTION, Cell, main_table, markdown_row, markdown_table, write_csv, write_markdown

_WIDE = ("diversity", "shift", "best_of_n", "tax", "benchmarks")
"""Measures whose table has a row a policy and a column a metric."""
_SLOPES = (
    "Slope of a·log π − b·log π₀ on a reward of the same held-out responses within prompts, 1 at the optimum of the policy's "
    "objective; 95 % interval over prompts. known: γ·log π*, whose labels the policy saw; own: r̂ of its pairs; judge: r̂ "
    "trained on other pairs. The noise of r̂ flattens slopes."
)
_FITS = (
    "λ of p ∝ π^(1−λ)·π₀^λ, token by token, that explains continuations behind a filling best (π without filling, π₀ behind "
    "it), with a 95 % interval; none where π and π₀ do not differ. Accuracy: of a classifier that tells continuations of π "
    "and π₀ behind the filling apart, ½ where it cannot."
)


def write_behaviour(spec: dict[str, Any], rows: Path, out: Path) -> list[Cell]:
    """Returns the cells of table.csv: every metric of every policy."""
    measured = tables.read_table(rows / "metrics.parquet", tables.METRICS)
    names = list(dict.fromkeys(row["metric"] for row in measured))
    there = {row["run"] for row in measured}
    policies = [name for name in spec["families"] if name in there]
    cells = main_table(measured, policies, specs(names))
    if (rows / "answers.parquet").is_file():
        cells += calibration_cells(tables.read_table(rows / "answers.parquet", tables.ANSWERS), spec["bins"])
        write_calibration(cells, spec["bins"], out / "calibration.md")
    cells.sort(key=lambda cell: policies.index(cell["run"]))
    write_csv(cells, out / "table.csv")
    for measure in _WIDE:
        shown = specs(names, measure)
        if shown:
            keys = {one.key for one in shown}
            write_markdown([cell for cell in cells if cell["metric"] in keys], shown, out / f"{measure}.md")
    if specs(names, "repeats"):
        _write_repeats(cells, out / "repeats.md")
    if (rows / "outcomes.parquet").is_file():
        _write_problems(spec, rows, out)
    for name, write in {"slopes": write_slopes, "fits": write_fits}.items():
        if (rows / f"{name}.csv").is_file():
            write(read_rows(rows / f"{name}.csv"), out / f"{name}.md")
    against = {measure: first_run(runs) for measure, runs in spec["measured"].items()}
    wanted = {measure: (run, main_metrics(names, measure)) for measure, run in against.items()}
    write_comparisons(measured, wanted, out / "comparisons.md")
    return cells


def _write_problems(spec: dict[str, Any], rows: Path, out: Path) -> None:
    curves = read_curves(rows / "outcomes.parquet")
    problems, bounds = next(iter(curves.values())).problems, (spec["easy"], spec["medium"])
    labels = read_difficulties(rows / "split.parquet", problems, easy=bounds[0], medium=bounds[1])
    cells = coverage_cells(curves, labels)
    write_csv(cells, out / "coverage.csv")
    write_coverage(cells, labels, bounds, out / "coverage.md")
    write_efficiency(curves, out / "efficiency.md")


def _write_repeats(cells: Sequence[Cell], file: Path) -> None:
    """A table a policy: a row a filling and number of tokens."""
    by_policy: dict[str, list[Cell]] = {}
    keys = {spec.key for spec in REPEATS}
    for cell in cells:
        metric, _, context = cell["metric"].partition("/")
        if metric in keys and context.count("/") == 1:
            filling, _, k = context.partition("/")
            shown = {**cell, "metric": metric, "run": f"{filling}, k = {k}"}
            by_policy.setdefault(cell["run"], []).append(shown)
    lines = [CAPTION, "A row is what stands in front of the prompt: k repeats of one token, random tokens, or text.", ""]
    for policy, of_policy in by_policy.items():
        lines += [f"## {policy}", "", *markdown_table(of_policy, REPEATS), ""]
    file.write_text("\n".join(lines), encoding="utf-8")


def write_slopes(rows: Sequence[dict[str, str]], file: Path) -> None:
    """A row a policy, seed and reward."""
    lines = [_SLOPES, "", markdown_row(["policy", "seed", "reward", "slope", "r²", "prompts"])]
    lines.append(markdown_row(["---", "---:", "---", "---:", "---:", "---:"]))
    for row in rows:
        shown = _interval(row["slope"], row["low"], row["high"])
        cells = [row["run"], row["seed"], row["reward"], shown, _decimals(row["r_squared"]), row["prompts"]]
        lines.append(markdown_row(cells))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def write_fits(rows: Sequence[dict[str, str]], file: Path) -> None:
    """A row a policy, seed, filling and number of tokens."""
    lines = [_FITS, "", markdown_row(["policy", "seed", "filling", "k", "λ", "accuracy"])]
    lines.append(markdown_row(["---", "---:", "---", "---:", "---:", "---:"]))
    for row in rows:
        fits = [_interval(row[name], row[f"{name}_low"], row[f"{name}_high"]) for name in ("lambda", "accuracy")]
        lines.append(markdown_row([row["run"], row["seed"], row["filling"], row["k"], *fits]))
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")


def read_rows(file: Path) -> list[dict[str, str]]:
    """Rows of slopes.csv or fits.csv, as they are written."""
    with file.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def _decimals(text: str) -> str:
    return f"{float(text):.2f}" if text else "–"


def _interval(value: str, low: str, high: str) -> str:
    ends = f" [{_decimals(low)}, {_decimals(high)}]" if low and high else ""
    return _decimals(value) + ends
