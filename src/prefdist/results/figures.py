"""The figures of a suite, as SVG and PNG: KL frontier, learning curves, win rates, reliability diagram.

Every function draws from tables (`tables.read_csv`, or arrays), writes `<out>.svg` and `<out>.png` and returns the
Figure. Equal input gives equal SVG bytes. A family of methods has one colour and marker in all figures: families are
numbered in the order of the mapping run → family. Left out: interactive plots, choosing what to plot.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefdist.errors import UserError
from prefdist.evaluation.statistics import ReliabilityBins
from prefdist.results.labels import label_line_ends, label_points
from prefdist.results.tables import Cell
from prefdist.style import COLOURS, INK, MARKERS, PALE, RC, draw_point, error, new_figure, save, with_estimate

KL_TO_PRIOR = "kl_to_prior"
"""Metric of the table: KL(policy‖prior), nats per response."""
FORWARD_KL = "forward_kl"
"""Metric: forward KL(target‖policy), nats per response."""
REVERSE_KL = "reverse_kl"
"""Metric: reverse KL(policy‖target), nats per response."""
WIN_RATE = "win_rate_prior"
"""Metric: win rate against the prior in percent (scale 100 in its MetricSpec)."""


@dataclass(frozen=True)
class _Styles:
    """Colour and marker of each family, and of each run by its family."""

    families: Mapping[str, str]

    def _index(self, run: str) -> int:
        if run not in self.families:
            raise UserError(f"run {run} has no method family; the families are given for {', '.join(self.families)}")
        return list(dict.fromkeys(self.families.values())).index(self.families[run]) % len(COLOURS)

    def colour(self, run: str) -> str:
        return COLOURS[self._index(run)]

    def marker(self, run: str) -> str:
        return MARKERS[self._index(run)]

    def legend(self, runs: Sequence[str]) -> list[Line2D]:
        """One handle per family that occurs among the runs."""
        first = {self.families[run]: run for run in reversed(runs)}
        return [
            Line2D([], [], ls="", ms=7, marker=self.marker(first[f]), color=self.colour(first[f]), label=f)
            for f in dict.fromkeys(self.families.values())
            if f in first
        ]


def kl_frontier(cells: Sequence[Cell], families: Mapping[str, str], out: Path, *, prior: str) -> Figure:
    """How near a policy came to the target, against how far it went from the prior; means and 95 % intervals.

    Left panel: forward KL(target‖policy); right panel, where the table has it: reverse KL(policy‖target). Nats per
    response. Each run of the table with both coordinates is one labelled point; the run `prior` is a star at x = 0.
    """
    table = {(cell["run"], cell["metric"]): cell for cell in with_estimate(cells)}
    panels = [
        (metric, text)
        for metric, text in [
            (FORWARD_KL, "Forward KL(target‖policy) (nats)"),
            (REVERSE_KL, "Reverse KL(policy‖target) (nats)"),
        ]
        if any(key[1] == metric for key in table)
    ]
    if not panels:
        raise UserError(f"the KL frontier needs metric {FORWARD_KL} or {REVERSE_KL} in the table")
    styles = _Styles(families)
    with matplotlib.rc_context(RC):
        figure = new_figure(5.6 * len(panels), 4.9)
        figure.subplots_adjust(left=0.62 / figure.get_figwidth(), right=0.985, bottom=0.12, top=0.86, wspace=0.16)
        drawn: list[str] = []
        for number, (metric, text) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            axes.set_xlabel("KL(policy‖prior) (nats per response)")
            axes.set_title(text)
            runs = [r for r, m in table if m == metric and r != prior and (r, KL_TO_PRIOR) in table]
            _frontier_points(axes, [(r, table[r, KL_TO_PRIOR], table[r, metric]) for r in runs], styles)
            if (prior, metric) in table:
                _frontier_prior(axes, prior, table[prior, metric])
            label_points(axes)
            drawn += runs
        figure.legend(handles=styles.legend(drawn), loc="upper left", ncols=7, fontsize=8, handletextpad=0.2)
        save(figure, out)
    return figure


def learning_curves(curves: Sequence[Mapping[str, Any]], families: Mapping[str, str], out: Path) -> Figure:
    """Forward KL to the target on validation prompts against training step: one panel a family, one axis scale.

    Args:
        curves: mappings with run, seed, steps [T] and values [T] (nats per response), one for each run and seed.
        families: run → family.
        out: path without suffix.

    Thin lines are seeds, bold lines their mean at the steps that all seeds of the run have.
    """
    if not curves:
        raise UserError("learning curves: there are none to draw")
    styles = _Styles(families)
    runs = list(dict.fromkeys(curve["run"] for curve in curves))
    shown = [handle.get_label() for handle in styles.legend(runs)]
    columns = min(3, len(shown))
    lines = -(-len(shown) // columns)
    with matplotlib.rc_context(RC):
        width, height = 3.4 * columns + 0.4, 2.3 * lines + 0.5
        figure = new_figure(width, height)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        # The names of the lines stand right of each panel, in 1.2 inch.
        edges = {"left": 0.6 / width, "right": 1 - 1.2 / width, "bottom": 0.5 / height, "top": 1 - 0.35 / height}
        figure.subplots_adjust(**edges, wspace=0.6, hspace=0.25)
        for axes, family in zip(panels, shown, strict=False):
            axes.set_title(family)
            for number, run in enumerate([run for run in runs if families[run] == family]):
                _curve(axes, run, [curve for curve in curves if curve["run"] == run], styles.colour(run), number)
        for axes in panels[len(shown) :]:
            axes.remove()
        for axes in panels[: len(shown)]:
            label_line_ends(axes)
        figure.supxlabel("training step", fontsize=9)
        figure.supylabel("forward KL(target‖policy) (nats)", fontsize=9, x=0.08 / width)
        save(figure, out)
    return figure


def win_rates(cells: Sequence[Cell], families: Mapping[str, str], out: Path) -> Figure:
    """Win rate against the baseline in percent with 95 % intervals, best on top; the line at 50 % is "no better"."""
    chosen = sorted((c for c in with_estimate(cells) if c["metric"] == WIN_RATE), key=lambda c: (c["estimate"], c["run"]))
    if not chosen:
        raise UserError(f"the figure of win rates needs metric {WIN_RATE} in the table")
    styles = _Styles(families)
    runs = [cell["run"] for cell in chosen]
    with matplotlib.rc_context(RC):
        figure = new_figure(6.0, 1.0 + 0.26 * len(chosen))
        axes = figure.add_axes((0.24, 0.55 / figure.get_figheight(), 0.72, 1 - 1.0 / figure.get_figheight()))
        axes.axvline(50.0, color=PALE, lw=1, zorder=0)
        for row, cell in enumerate(chosen):
            colour, marker = styles.colour(cell["run"]), styles.marker(cell["run"])
            draw_point(axes, cell["estimate"], row, colour, marker, xerr=error(cell))
        axes.set_yticks(range(len(chosen)), runs)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.6, len(chosen) - 0.4)
        axes.set_xlabel("win rate (%)")
        figure.legend(handles=styles.legend(runs), loc="upper center", ncols=7, fontsize=8, handletextpad=0.1, columnspacing=1)
        save(figure, out)
    return figure


def reliability(bins_per_seed: Sequence[ReliabilityBins], out: Path) -> Figure:
    """Reliability diagram of a reward model: accuracy against confidence, with how many pairs each bin holds.

    One thin line per seed, the count-weighted mean in bold; below, mean pairs per seed. All seeds must share
    their edges (scheme "width").
    """
    if not bins_per_seed:
        raise UserError("reliability diagram: no seed was given")
    first = bins_per_seed[0]
    if any(not np.array_equal(bins.edges, first.edges) for bins in bins_per_seed):
        raise UserError("reliability diagram: the seeds have different bins; use scheme 'width' and one number of bins")
    counts = np.stack([bins.count for bins in bins_per_seed])
    total = counts.sum(axis=0)
    full = total > 0
    confidence, accuracy = (
        np.nansum([getattr(bins, name) * bins.count for bins in bins_per_seed], axis=0)[full] / total[full]
        for name in ("confidence", "accuracy")
    )
    # Confidence in the preferred response starts at 0.5 in a binary choice: do not draw the empty half.
    low = float(first.edges[:-1][full][0])
    with matplotlib.rc_context(RC):
        figure = new_figure(4.2, 4.9)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
        figure.subplots_adjust(left=0.14, right=0.96, bottom=0.1, top=0.94, hspace=0.08)
        above.plot([low, 1], [low, 1], color=PALE, lw=1, ls="--", zorder=0)
        for bins in bins_per_seed:
            held = bins.count > 0
            above.plot(bins.confidence[held], bins.accuracy[held], color=COLOURS[5], lw=0.8, alpha=0.8)
        above.plot(confidence, accuracy, color=COLOURS[0], marker="o", ms=4, lw=1.8)
        worst = min(float(np.nanmin(bins.accuracy)) for bins in bins_per_seed)
        above.set(xlim=(low, 1.0), ylim=(min(low, worst) - 0.03, 1.03), ylabel="accuracy")
        errors = [bins.ece for bins in bins_per_seed]
        above.set_title(f"ECE {np.mean(errors):.3f}, {len(errors)} seeds: {min(errors):.3f} to {max(errors):.3f}")
        widths = np.diff(first.edges)
        below.bar(first.edges[:-1], counts.mean(axis=0), widths, align="edge", color=COLOURS[5], ec="white")
        below.set(xlabel="confidence", ylabel="pairs")
        figure.align_ylabels()
        save(figure, out)
    return figure


def _frontier_points(axes: Axes, points: Sequence[tuple[str, Cell, Cell]], styles: _Styles) -> None:
    for run, x, y in points:
        colour, marker = styles.colour(run), styles.marker(run)
        draw_point(axes, x["estimate"], y["estimate"], colour, marker, label=run, xerr=error(x), yerr=error(y))


def _frontier_prior(axes: Axes, prior: str, y: Cell) -> None:
    draw_point(axes, 0.0, y["estimate"], INK, "*", size=13, label=f"{prior} = π₀", yerr=error(y))


def _curve(axes: Axes, run: str, curves: Sequence[Mapping[str, Any]], colour: str, number: int) -> None:
    for curve in curves:
        axes.plot(curve["steps"], curve["values"], color=colour, lw=0.6, alpha=0.35)
    by_seed = [dict(zip(curve["steps"], curve["values"], strict=True)) for curve in curves]
    steps = sorted(set.intersection(*(set(values) for values in by_seed)))
    mean = [float(np.mean([values[step] for values in by_seed])) for step in steps]
    styles = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 3)))
    axes.plot(steps, mean, color=colour, lw=1.8, ls=styles[number % len(styles)], label=run)
