"""A published number and ours: difference, and whether it lies inside the combined interval.

Inside: |ours − published| ≤ √(h₁² + h₂²), with half widths of 95 % intervals. h₂ is that of ours, over prompts × seeds. h₁ is
had only where the published ± is a standard deviation s over S seeds on the same n prompts and the value p a proportion of
them: h₁² = (t₀.₉₇₅(S−1)·s/√S)² + (1.96·√(p(1−p)/n))². The seeds share their prompts, so the second part does not fall with S.
A single run, or a mean whose error over prompts was not published, has no h₁, and then nothing is said.
"""

import math
from dataclasses import dataclass
from typing import Literal

from scipy.stats import norm, t

from prefdist.published.ours import Releases
from prefdist.published.records import Metric, Row, Table, Work
from prefdist.results.tables import Cell

RULE = (
    "Inside: |difference| ≤ √(h₁² + h₂²), half widths of 95 % intervals. Ours is over prompts × seeds. The published one is "
    "known where ± is a standard deviation s over S seeds on the same n prompts and the value a share p of them: "
    "h₁² = (t₀.₉₇₅(S−1)·s/√S)² + (1.96·√(p(1−p)/n))², seeds and, added by us, the binomial error over prompts. A single run, "
    "or a mean whose error over prompts was not published, has no interval. One in twenty is outside by chance alone."
)
Verdict = Literal["inside", "outside", "no interval", ""]


@dataclass(frozen=True)
class Comparison:
    """One published number; `ours` is a cell, or the reason why there is none."""

    table: Table
    row: Row
    name: str
    ours: Cell | str

    @property
    def metric(self) -> Metric:
        return self.table.metrics[self.name]

    @property
    def value(self) -> float:
        given = self.row.values[self.name]
        return given[0] if isinstance(given, tuple) else given

    @property
    def spread(self) -> float | None:
        given = self.row.values[self.name]
        return given[1] if isinstance(given, tuple) else None

    @property
    def half_width(self) -> float | None:
        """h₁, in the metric's unit; None where it is not known."""
        return half_width(self.metric, self.value, self.spread)

    @property
    def difference(self) -> float | None:
        """Ours − published."""
        return None if isinstance(self.ours, str) else float(self.ours["estimate"]) - self.value

    @property
    def verdict(self) -> Verdict:
        """Empty where ours is not there."""
        if isinstance(self.ours, str) or self.difference is None:
            return ""
        theirs, ours = self.half_width, (self.ours["high"] - self.ours["low"]) / 2
        if theirs is None or math.isnan(ours):
            return "no interval"
        return "inside" if abs(self.difference) <= math.hypot(theirs, ours) else "outside"


def half_width(metric: Metric, value: float, spread: float | None) -> float | None:
    """Half the width of the 95 % interval of a published mean over seeds, a percentage; None where it is not known."""
    if spread is None or metric.seeds is None or not metric.proportion or metric.prompts is None:
        return None
    over_seeds = t.ppf(0.975, metric.seeds - 1) * spread / math.sqrt(metric.seeds)
    share = value / 100
    over_prompts = 100 * norm.ppf(0.975) * math.sqrt(share * (1 - share) / metric.prompts)
    return math.hypot(over_seeds, over_prompts)


def compare(work: Work, releases: Releases, suite: str | None = None) -> list[Comparison]:
    """Every number of a work, in the order of its file; with a suite, those of rows that are its own.

    UserError if a row names a suite of other models.
    """
    found = []
    for table in work.tables:
        releases.check(work, table)
        for row in table.rows:
            if suite is None or (row.ours and row.ours.suite == suite):
                found += [Comparison(table, row, name, releases.find(row, table.metrics[name])) for name in row.values]
    return found
