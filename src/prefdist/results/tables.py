"""The main table of a suite: from metric rows to estimates with intervals, to CSV, Markdown and the terminal.

The CSV is the committed result: long, one line per (run, metric). Left out: what the metrics mean, figures (`figures.py`),
differences between runs (`statistics.paired_bootstrap`) and between tables (`differences.py`).
"""

import csv
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefdist.errors import UserError
from prefdist.evaluation.statistics import MetricRow, paired_bootstrap

COLUMNS = ("run", "metric", "estimate", "low", "high", "n_prompts", "n_seeds", "n", "n_missing")
"""Of the CSV and of every cell: estimate, low, high in the unit of its MetricSpec; NaN (empty in CSV) = no interval."""

Cell = dict[str, Any]

_NUMBERS, _COUNTS = COLUMNS[2:5], COLUMNS[5:]
_ARROWS = {"lower": " ↓", "higher": " ↑", None: ""}
_TERMINAL_WIDTH, _TERMINAL_METRICS = 120, 6
CAPTION = (
    "Estimate [95 % interval over prompts × seeds, pigeonhole bootstrap]; ↓ lower is better, ↑ higher is better. "
    "A run with one seed has an interval over prompts only. † some (seed, prompt) had no value; the CSV counts them."
)


@dataclass(frozen=True)
class MetricSpec:
    """How a metric is shown. `key` is the column `metric` of the rows; shown value = value · scale, in `unit`."""

    key: str
    title: str
    unit: str = ""
    direction: Literal["lower", "higher"] | None = None
    scale: float = 1.0
    decimals: int = 2

    @property
    def heading(self) -> str:
        """Title, arrow towards better, unit: `Forward KL ↓ (nats)`."""
        return self.title + _ARROWS[self.direction] + (f" ({self.unit})" if self.unit else "")


def main_table(rows: Iterable[Mapping[str, Any]], runs: Sequence[str], metrics: Sequence[MetricSpec]) -> list[Cell]:
    """One cell per run and metric, in the given order, from rows of `prefdist.data.tables.METRICS`.

    Each cell has COLUMNS; values are scaled as its MetricSpec says. A run may lack a metric (no reward model, say): it
    then has no cell. Rows of other runs and metrics are ignored.

    Raises:
        UserError: a run or a metric has no row at all, or a (seed, prompt) of a cell has no row or two.
    """
    groups: dict[tuple[str, str], list[MetricRow]] = {}
    for row in rows:
        groups.setdefault((row["run"], row["metric"]), []).append((row["seed"], row["prompt_id"], row["value"]))
    _require("run", runs, {run for run, _ in groups})
    _require("metric", [spec.key for spec in metrics], {metric for _, metric in groups})
    return [_cell(run, spec, groups[run, spec.key]) for run in runs for spec in metrics if (run, spec.key) in groups]


def present(metrics: Sequence[MetricSpec], rows: Iterable[Mapping[str, Any]]) -> list[MetricSpec]:
    """The metrics that the rows have; some need known preferences, which not every suite has."""
    found = {row["metric"] for row in rows}
    return [spec for spec in metrics if spec.key in found]


def write_csv(cells: Sequence[Cell], path: Path) -> None:
    """Write cells in their order, numbers with six significant digits: equal cells give equal bytes."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for cell in cells:
            writer.writerow({**cell, **{name: _csv_number(cell[name]) for name in _NUMBERS}})


def read_csv(path: Path) -> list[Cell]:
    """Cells of a file that `write_csv` wrote. UserError if it is absent, cut off or has other columns."""
    if not path.is_file():
        raise UserError(f"{path}: no such table")
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise UserError(f"{path}: its columns are {reader.fieldnames}, expected {list(COLUMNS)}")
        rows = list(reader)
    try:
        return [
            {
                **row,
                **{name: float(row[name]) if row[name] else math.nan for name in _NUMBERS},
                **{name: int(row[name]) for name in _COUNTS},
            }
            for row in rows
        ]
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: it was cut off or edited; a row has no number where one belongs") from error


def write_markdown(cells: Sequence[Cell], metrics: Sequence[MetricSpec], path: Path) -> None:
    """Write a wide table (`markdown_table`) below what its numbers are."""
    path.write_text("\n".join([CAPTION, "", *markdown_table(cells, metrics)]) + "\n", encoding="utf-8")


def markdown_table(cells: Sequence[Cell], metrics: Sequence[MetricSpec]) -> list[str]:
    """Lines: a row a run in order of appearance, a column a metric (`0.52 [0.48, 0.57]`), and n."""
    header = ["run", *(spec.heading for spec in metrics), "prompts", "seeds"]
    lines = [markdown_row(header), markdown_row(["---", *["---:"] * (len(header) - 1)])]
    for run, of_run in _by_run(cells).items():
        shown = [of_run[spec.key] for spec in metrics if spec.key in of_run]
        counts = [_span([cell[name] for cell in shown]) for name in ("n_prompts", "n_seeds")]
        texts = [_with_interval(of_run[spec.key], spec) if spec.key in of_run else "–" for spec in metrics]
        lines.append(markdown_row([run, *texts, *counts]))
    return lines


def print_table(path: Path, metrics: Sequence[MetricSpec]) -> None:
    """Print a table that `write_csv` wrote, at most 120 columns wide: estimate ± half the interval's width.

    Raises:
        UserError: more than six metrics, or one that the table lacks.
    """
    from rich.console import Console
    from rich.table import Table

    if len(metrics) > _TERMINAL_METRICS:
        raise UserError(f"{len(metrics)} metrics do not fit into {_TERMINAL_WIDTH} columns; choose {_TERMINAL_METRICS}")
    cells = read_csv(path)
    _require("metric", [spec.key for spec in metrics], {cell["metric"] for cell in cells})
    table = Table(box=None, header_style="bold", padding=(0, 1))
    table.add_column("run", no_wrap=True)
    for spec in metrics:
        table.add_column(spec.heading, justify="right")
    table.add_column("prompts × seeds", justify="right")
    for run, of_run in _by_run(cells).items():
        shown = [of_run[spec.key] for spec in metrics if spec.key in of_run]
        counts = " × ".join(_span([cell[name] for cell in shown]) for name in ("n_prompts", "n_seeds"))
        texts = [_with_half_width(of_run[spec.key], spec) if spec.key in of_run else "–" for spec in metrics]
        table.add_row(run, *texts, counts)
    # Without a terminal rich assumes 80 columns, which would break numbers in a log.
    Console(width=None if sys.stdout.isatty() else _TERMINAL_WIDTH, highlight=False).print(table)


def _cell(run: str, spec: MetricSpec, rows: list[MetricRow]) -> Cell:
    try:
        estimate = paired_bootstrap(rows)
    except UserError as error:
        raise UserError(f"run {run}, metric {spec.key}: {error}") from error
    # A negative scale swaps the ends.
    low, high = sorted((estimate.low * spec.scale, estimate.high * spec.scale))
    numbers = (estimate.value * spec.scale, low, high)
    counts = (estimate.n_prompts, estimate.n_seeds, estimate.n, estimate.n_missing)
    return dict(zip(COLUMNS, (run, spec.key, *numbers, *counts), strict=True))


def _require(what: str, wanted: Sequence[str], present: set[str]) -> None:
    absent = [name for name in wanted if name not in present]
    if absent:
        raise UserError(f"no {what} {', '.join(absent)} in the table; it has {', '.join(sorted(present)) or 'none'}")


def _by_run(cells: Sequence[Cell]) -> dict[str, dict[str, Cell]]:
    runs: dict[str, dict[str, Cell]] = {}
    for cell in cells:
        runs.setdefault(cell["run"], {})[cell["metric"]] = cell
    return runs


def _csv_number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"


def markdown_row(texts: Sequence[str]) -> str:
    return "| " + " | ".join(texts) + " |"


def _span(counts: Sequence[int]) -> str:
    """`120`, or `100–120` where the metrics of a run differ."""
    low, high = min(counts, default=0), max(counts, default=0)
    return str(low) if low == high else f"{low}–{high}"


def _number(value: float, spec: MetricSpec) -> str:
    text = f"{value:.{spec.decimals}f}"
    return text.removeprefix("-") if float(text) == 0 else text  # no "-0.00"


def _value(cell: Cell, spec: MetricSpec) -> str:
    mark = "†" if cell["n_missing"] else ""
    return ("–" if math.isnan(cell["estimate"]) else _number(cell["estimate"], spec)) + mark


def _with_interval(cell: Cell, spec: MetricSpec) -> str:
    if math.isnan(cell["low"]):
        return _value(cell, spec)
    return f"{_value(cell, spec)} [{_number(cell['low'], spec)}, {_number(cell['high'], spec)}]"


def _with_half_width(cell: Cell, spec: MetricSpec) -> str:
    if math.isnan(cell["low"]):
        return _value(cell, spec)
    return f"{_value(cell, spec)} ± {_number((cell['high'] - cell['low']) / 2, spec)}"
