"""A study of exact worlds: tables, figures, and claims with verdicts; how they are written, and intervals over worlds.

Files of a study: a CSV and a Markdown page for each table, an SVG and a PNG for each figure, claims.csv.
"""

import csv
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from scipy import stats

from prefdist.errors import UserError
from prefdist.style import RC, save

CLAIMS = "claims"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Claim:
    """One statement of a work: what it says and where, what was measured, and "holds", "fails" or "holds under …"."""

    claim: str
    source: str
    measured: str
    verdict: str


@dataclass(frozen=True)
class Study:
    """What a study found. Tables and figures by the name of their files; rows of a table have the same keys."""

    tables: Mapping[str, Sequence[Row]]
    claims: Sequence[Claim] = ()
    figures: Mapping[str, Figure] = field(default_factory=dict)


def stage(study: Callable[..., Study]) -> Callable[[dict[str, Any], dict[str, Path], Path, Path], None]:
    """The `run` of a study's stage: its specification holds the keyword arguments, and it has no inputs.

    UserError, with the section of the suite that the study is, where keys do not go together: one alone the suite checks.
    """

    def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
        with matplotlib.rc_context(RC):
            try:
                found = study(**spec)
            except ValueError as error:
                raise UserError(f"suite exact: {study.__name__}: {error}") from error
            write(found, out)

    return run


def write(study: Study, out: Path) -> None:
    """All files of a study into the folder `out`."""
    for name, rows in study.tables.items():
        write_csv(rows, out / f"{name}.csv")
        write_markdown(rows, out / f"{name}.md")
    for name, figure in study.figures.items():
        save(figure, out / name)
    if study.claims:
        write_csv([asdict(claim) for claim in study.claims], out / f"{CLAIMS}.csv")


def write_csv(rows: Sequence[Row], file: Path) -> None:
    """One line a row, floats with six digits, NaN empty."""
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value, 6) for key, value in row.items()} for row in rows)


def write_markdown(rows: Sequence[Row], file: Path) -> None:
    """A table for readers: floats with three digits."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(_cells(row) for row in rows)]
    file.write_text("".join("| " + " | ".join(line) + " |\n" for line in lines))


def _cells(row: Row) -> list[str]:
    return [_text(value, 3).replace("|", "\\|") for value in row.values()]


def _text(value: Any, digits: int) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.{digits}g}"
    return str(value)


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """Mean over independent worlds or seeds: estimate, low, high (Student's t, 95 %) and n. NaN bounds where n < 2."""
    n = len(values)
    estimate = math.fsum(values) / n
    if n < 2 or len(set(values)) == 1:
        return {"estimate": estimate, "low": math.nan if n < 2 else estimate, "high": math.nan if n < 2 else estimate, "n": n}
    low, high = stats.t.interval(0.95, n - 1, loc=estimate, scale=stats.sem(values))
    return {"estimate": estimate, "low": float(low), "high": float(high), "n": n}


def share_interval(count: int, n: int) -> dict[str, float]:
    """Share of n worlds: estimate, low, high (Wilson, 95 %) and n."""
    interval = stats.binomtest(count, n).proportion_ci(method="wilson")
    return {"estimate": count / n, "low": float(interval.low), "high": float(interval.high), "n": n}
