"""How two published tables differ, cell by cell; and whether a table that was made again falls inside the intervals."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from prefdist.results.tables import COLUMNS, Cell, read_csv
from prefdist.results.values import value_tables

_RELATIVE, _ABSOLUTE = 1e-4, 1e-9  # a cell without interval is exact maths, up to rounding in CSV and other hardware
_KEYS = ("seed", "k")  # of rows, though they are numbers

Kind = Literal["equal", "within", "apart", "only in a", "only in b"]


@dataclass(frozen=True)
class Difference:
    """A cell of two tables a and b; one of them may lack it.

    within: the values differ, the intervals overlap. apart: they do not. Overlap of two 95 % intervals is a lenient test:
    it asks whether the result is the same, not whether a difference is significant.
    """

    table: str
    a: Cell | None
    b: Cell | None

    @property
    def kind(self) -> Kind:
        if self.a is None or self.b is None:
            return "only in b" if self.a is None else "only in a"
        if all(_same(self.a[name], self.b[name]) for name in COLUMNS):
            return "equal"
        return "within" if overlap(self.a, self.b) else "apart"

    @property
    def name(self) -> str:
        cell = self.a or self.b
        assert cell is not None  # a cell is in one of them
        return f"{self.table}: {cell['run']} / {cell['metric']}"

    @property
    def size(self) -> float:
        """How far the estimate moved, in halves of a's interval where it has one."""
        if self.a is None or self.b is None or math.isnan(self.a["estimate"]) or math.isnan(self.b["estimate"]):
            return math.inf
        moved = abs(self.b["estimate"] - self.a["estimate"])
        low, high = ends(self.a)
        return float(moved / ((high - low) / 2)) if high > low else (0.0 if overlap(self.a, self.b) else math.inf)

    @property
    def contained(self) -> bool:
        """Whether b's estimate lies inside a's interval."""
        if self.a is None or self.b is None:
            return False
        return overlap(self.a, {**self.b, "low": math.nan, "high": math.nan})

    def as_words(self, a: str, b: str) -> str:
        """A sentence, with names for the two."""
        texts = [f"{name} {plain(cell) if cell else 'no such cell'}" for name, cell in ((a, self.a), (b, self.b))]
        return f"{self.name}: {', '.join(texts)}"


def differences(a: Path, b: Path) -> list[Difference]:
    """Every cell of the tables of two folders, costs apart: those of a in their order, then what only b has."""
    return [
        Difference(name, *pair)
        for name in dict.fromkeys(file.name for folder in (a, b) for file in value_tables(folder))
        for pair in _pairs(read_cells(a / name), read_cells(b / name))
    ]


def read_cells(file: Path) -> list[Cell]:
    """Cells of any table; none if there is no such file.

    A table without estimates and intervals (exact worlds) has a cell a number: `run` is what text its row holds.
    """
    if not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        rows, names = list(reader), list(reader.fieldnames or ())
    if tuple(names) == COLUMNS:
        return read_csv(file)
    told = [name for name in names if name not in _KEYS and any(row[name] for row in rows)]
    numbers = [name for name in told if all(_is_number(row[name]) for row in rows)]
    absent = dict.fromkeys(COLUMNS[3:], math.nan)
    return [
        {"run": run, "metric": name, "estimate": float(row[name]) if row[name] else math.nan, **absent}
        for row in rows
        for run in [", ".join(row[text] for text in names if text not in numbers and row[text])]
        for name in numbers
    ]


def overlap(a: Cell, b: Cell) -> bool:
    """Whether the intervals of two cells overlap; a cell without one is a point."""
    if math.isnan(a["estimate"]) or math.isnan(b["estimate"]):
        return math.isnan(a["estimate"]) and math.isnan(b["estimate"])
    (a_low, a_high), (b_low, b_high) = ends(a), ends(b)
    slack = max(_ABSOLUTE, _RELATIVE * max(abs(a["estimate"]), abs(b["estimate"])))
    return bool(a_low <= b_high + slack and b_low <= a_high + slack)


def ends(cell: Cell) -> tuple[float, float]:
    point = math.isnan(cell["low"])
    return (cell["estimate"], cell["estimate"]) if point else (cell["low"], cell["high"])


def plain(cell: Cell) -> str:
    interval = "" if math.isnan(cell["low"]) else f" [{cell['low']:.6g}, {cell['high']:.6g}]"
    return f"{cell['estimate']:.6g}{interval}"


def _pairs(a: list[Cell], b: list[Cell]) -> Iterator[tuple[Cell | None, Cell | None]]:
    of_a, of_b = ({(cell["run"], cell["metric"]): cell for cell in cells} for cells in (a, b))
    for key in dict.fromkeys([*of_a, *of_b]):
        yield of_a.get(key), of_b.get(key)


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _same(a: object, b: object) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isnan(a) and math.isnan(b))
