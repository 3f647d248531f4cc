"""Figures of a suite of behaviour: quality against diversity. Families have one colour, sweeps one line.

Left out: output shift and repeats (`figures_shift.py`), answers to questions and problems (`figures_answers.py`).
"""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from prefdist.results.labels import label_points
from prefdist.results.metrics_behaviour import DIVERSITY
from prefdist.results.tables import Cell, MetricSpec
from prefdist.style import COLOURS, INK, MARKERS, PALE, RC, error, new_figure, save, with_estimate

QUALITY = ("win_rate_base", "reward_apart", "cross_entropy")
DIVERSE = ("embedding_distance", "ead", "self_bleu", "vendi", "entropy")
LENGTH = "length"
_BASE = "base"
_DASHES = ("-", "--", ":", "-.")
_MAIN_LABELS = 24
"""Policies that the labelled figure names at most; of more, a sweep names its ends only."""

FloatArray = npt.NDArray[np.float64]
Table = dict[tuple[str, str], Cell]


@dataclass(frozen=True)
class Look:
    """Colour and marker of each policy by its family, and the sweeps that are joined by lines.

    families: policy -> family; sweeps: policies in their order along a line.
    """

    families: Mapping[str, str]
    sweeps: Sequence[Sequence[str]]

    def colour(self, policy: str) -> str:
        return INK if policy == _BASE else COLOURS[self._index(policy) % len(COLOURS)]

    def marker(self, policy: str) -> str:
        number = self._index(policy)  # colours come again after a round of them, then with other markers
        return "*" if policy == _BASE else MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]

    def dashes(self, policy: str) -> str:
        """Tells policies of one family apart."""
        of_family = [name for name, family in self.families.items() if family == self.families[policy]]
        return _DASHES[of_family.index(policy) % len(_DASHES)]

    def line_style(self, sweep: Sequence[str]) -> str:
        """Tells sweeps of one family apart."""
        alike = [other for other in self.sweeps if self.colour(other[-1]) == self.colour(sweep[-1])]
        return _DASHES[alike.index(sweep) % len(_DASHES)]

    def legend(self, policies: Sequence[str]) -> list[Line2D]:
        """A handle a sweep and a family, of those among the policies."""
        handles = []
        for sweep in self.sweeps:
            there = [name for name in sweep if name in policies]
            if len(there) > 1:
                style: Any = {"color": self.colour(sweep[-1]), "ls": self.line_style(sweep), "marker": self.marker(sweep[-1])}
                handles.append(Line2D([], [], lw=1.2, ms=5, label=f"{there[0]} → {there[-1]}", **style))
        for family in dict.fromkeys(self.families.values()):
            members = [name for name in policies if self.families[name] == family]
            if members:
                shown: Any = {"color": self.colour(members[0]), "marker": self.marker(members[0])}
                label = f"{family} ({len(members)})" if len(members) > 1 else f"{family}: {members[0]}"
                handles.append(Line2D([], [], ls="", ms=9 if members[0] == _BASE else 5, label=label, **shown))
        return handles

    def _index(self, policy: str) -> int:
        others = [family for family in dict.fromkeys(self.families.values()) if family != self.families.get(_BASE)]
        return others.index(self.families[policy]) if self.families[policy] in others else 0


def quality_diversity(cells: Sequence[Cell], look: Look, out: Path) -> Figure:
    """A row a quality and a column a diversity, all pointing up and right to better; below, length and the legend."""
    table = _table(cells)
    rows, columns = (_present(names, table) for names in ((*QUALITY, LENGTH), DIVERSE))
    policies = list(dict.fromkeys(run for run, _ in table))
    width, height = 0.8 + 1.95 * len(columns), 0.75 + 1.6 * len(rows)
    with matplotlib.rc_context(RC):
        figure = new_figure(width, height)
        grid = figure.subplots(len(rows), len(columns), sharex="col", sharey="row", squeeze=False)
        edges = {"left": 0.62 / width, "right": 1 - 0.12 / width, "bottom": 0.62 / height, "top": 1 - 0.12 / height}
        figure.subplots_adjust(**edges, wspace=0.1, hspace=0.12)
        for i, y in enumerate(rows):
            for j, x in enumerate(columns):
                axes = grid[i, j]
                if y.key == LENGTH and j:
                    axes.remove()
                    continue
                _panel(axes, table, x, y, look, size=4.5)
                axes.tick_params(labelsize=7)
                if j == 0:
                    axes.set_ylabel(y.heading, fontsize=7.5)
                below = len(rows) - 1 if j == 0 else len(rows) - (2 if rows[-1].key == LENGTH else 1)
                if i == below:
                    axes.set_xlabel(x.heading, fontsize=7.5)
                    axes.tick_params(labelbottom=True)
        figure.align_ylabels()
        _legend(figure, grid, look.legend(policies), beside=rows[-1].key == LENGTH and len(columns) > 1)
        figure.text(0.08 / width, 0.08 / height, _note(cells, "grey: no policy is better in both"), fontsize=7, va="bottom")
        save(figure, out)
    return figure


def main_quality_diversity(cells: Sequence[Cell], look: Look, out: Path) -> Figure:
    """The first quality against the first diversity, with names."""
    table = _table(cells)
    (y, *_), (x, *_) = (_present(names, table) for names in (QUALITY, DIVERSE))
    policies = list(dict.fromkeys(run for run, _ in table))
    inner = {name for sweep in look.sweeps for name in sweep[1:-1]} if len(policies) > _MAIN_LABELS else set()
    with matplotlib.rc_context(RC):
        figure = new_figure(7.2, 5.6)
        axes = figure.add_axes((0.085, 0.125, 0.9, 0.86))
        _panel(axes, table, x, y, look, size=6.5)
        axes.set(xlabel=x.heading, ylabel=y.heading)
        label_points(axes, without=inner)
        for text in axes.texts:
            text.set_path_effects([withStroke(linewidth=2, foreground="white")])  # sweeps run below names
        figure.text(0.012, 0.012, _note(cells, "grey: no policy is better in both"), fontsize=7, va="bottom")
        save(figure, out)
    return figure


def _panel(axes: Axes, table: Table, x: MetricSpec, y: MetricSpec, look: Look, *, size: float) -> None:
    both = [run for run in look.families if (run, x.key) in table and (run, y.key) in table]
    points = {run: (table[run, x.key]["estimate"], table[run, y.key]["estimate"]) for run in both}
    for axis, spec in (("x", x), ("y", y)):
        if spec.direction == "lower" and not getattr(axes, f"{axis}axis_inverted")():
            getattr(axes, f"invert_{axis}axis")()
    if y.direction:
        _draw_front(axes, np.array(list(points.values())), [-1.0 if s.direction == "lower" else 1.0 for s in (x, y)])
    for sweep in look.sweeps:
        there = np.array([points[name] for name in sweep if name in points])
        if len(there) > 1:
            axes.plot(*there.T, color=look.colour(sweep[-1]), ls=look.line_style(sweep), lw=1.1, zorder=1.5)
    for run, (across, up) in points.items():
        ends: Any = {"xerr": error(table[run, x.key]), "yerr": error(table[run, y.key])}
        big, order = (1.9 * size, 3) if run == _BASE else (size, 2.5)
        container = axes.errorbar(
            across, up, color=look.colour(run), marker=look.marker(run), ms=big, elinewidth=0.6, label=run, zorder=order, **ends
        )
        for bars in container[2]:
            bars.set_alpha(0.45)


def _draw_front(axes: Axes, points: FloatArray, signs: Sequence[float]) -> None:
    """Steps through the points that no other one beats in both."""
    best = front(points * signs) * signs
    corners = [best[0]]
    for a, b in itertools.pairwise(best):
        corners += [np.array([a[0], b[1]]), b]
    axes.plot(*np.array(corners).T, color=PALE, lw=3.5, alpha=0.6, zorder=0.5, solid_joinstyle="round")


def front(points: FloatArray) -> FloatArray:
    """Of points [n, 2], where more is better, those that none beats in both; by falling first coordinate."""
    order = points[np.lexsort((-points[:, 1], -points[:, 0]))]
    highest = np.maximum.accumulate(np.concatenate([[-np.inf], order[:-1, 1]]))
    found: FloatArray = order[order[:, 1] > highest]
    return found


def _legend(figure: Figure, grid: npt.NDArray[np.object_], handles: list[Line2D], *, beside: bool) -> None:
    """Where the last row has room, or above all."""
    style: dict[str, Any] = {"fontsize": 7.5, "handletextpad": 0.5, "columnspacing": 1.5}
    if beside:
        last, above = grid[-1, 0].get_position(), grid[-2, -1].get_position()
        left, room = last.x1 + 0.03, above.x1 - last.x1 - 0.03
        columns = max(1, min(3, int(room * figure.get_figwidth() / 2.2)))
        anchor = (left, last.y0 - 0.02, room, last.height - 0.02)
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=anchor, ncols=columns, borderaxespad=0, **style)
    else:
        figure.legend(handles=handles, loc="upper center", ncols=5, **style)


def _table(cells: Sequence[Cell]) -> Table:
    return {(cell["run"], cell["metric"]): cell for cell in with_estimate(cells)}


def _present(names: Sequence[str], table: Table) -> list[MetricSpec]:
    occurring = {metric for _, metric in table}
    return [spec for name in names for spec in DIVERSITY if spec.key == name and name in occurring]


def _note(cells: Sequence[Cell], more: str) -> str:
    return f"{counted(cells)}; up and right is better; {more}."


def counted(cells: Sequence[Cell]) -> str:
    """How many prompts and seeds, for a figure's caption."""
    prompts, seeds = (sorted({cell[name] for cell in cells}) for name in ("n_prompts", "n_seeds"))
    shown = [str(found[0]) if len(found) == 1 else f"{found[0]}–{found[-1]}" for found in (prompts, seeds)]
    return f"{shown[0]} prompts × {shown[1]} seeds; 95 % intervals over both"
