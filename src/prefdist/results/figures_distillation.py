"""The figures of preference distillation: runs side by side, and the reliability of a teacher's rewards."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from prefdist.evaluation.statistics import ReliabilityBins
from prefdist.results.metrics import STUDENT
from prefdist.results.tables import Cell, MetricSpec
from prefdist.style import COLOURS, MARKERS, PALE, RC, draw_point, error, new_figure, save, with_estimate

SHOWN = ("win_rate_start", "win_rate_teacher", "agrees_known", "kendall_tau", "jsd_teacher", "longer_than_start")
"""Metrics of students, a panel each, where the table has them."""
_NEUTRAL = {
    "win_rate_start": 50.0,
    "win_rate_teacher": 50.0,
    "agrees_known": 50.0,
    "kendall_tau": 0.0,
    "longer_than_start": 0.0,
    "win_rate_base": 50.0,
    "reward_apart": 0.0,
    "tpm_win": 50.0,
    "log_ratio_chosen": 0.0,
    "log_ratio_rejected": 0.0,
}
"""Where a line says "no better", or "no different"."""


def shown(cells: Sequence[Cell]) -> list[MetricSpec]:
    """The metrics of students that have a panel."""
    return [spec for key in SHOWN for spec in STUDENT if spec.key == key and any(c["metric"] == key for c in cells)]


def panels(cells: Sequence[Cell], out: Path, *, title: str, metrics: Sequence[MetricSpec]) -> Figure:
    """All runs of a table (a suite's runs, or the values that an ablation compares), a row each; a panel a metric."""
    runs = list(dict.fromkeys(cell["run"] for cell in cells))
    with matplotlib.rc_context(RC):
        height = 1.15 + 0.24 * len(runs)
        names = 0.3 + 0.075 * max(map(len, runs))
        width = names + 1.55 * len(metrics)
        figure = new_figure(width, height)
        drawn = figure.subplots(1, len(metrics), sharey=True, squeeze=False)[0]
        edges = {"left": names / width, "right": 1 - 0.1 / width, "bottom": 0.42 / height, "top": 1 - 0.62 / height}
        figure.subplots_adjust(**edges, wspace=0.12)
        for number, (axes, spec) in enumerate(zip(drawn, metrics, strict=True)):
            _panel(axes, spec, number, cells, runs)
        figure.suptitle(title, fontsize=10, x=0.1 / width, ha="left")
        save(figure, out)
    return figure


def _panel(axes: Axes, spec: MetricSpec, number: int, cells: Sequence[Cell], runs: Sequence[str]) -> None:
    if spec.key in _NEUTRAL:
        axes.axvline(_NEUTRAL[spec.key], color=PALE, lw=1, zorder=0)
    for cell in with_estimate(cells):
        if cell["metric"] == spec.key:
            place = len(runs) - 1 - runs.index(cell["run"])
            colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
            draw_point(axes, cell["estimate"], place, colour, marker, size=5, xerr=error(cell))
    axes.set_title(textwrap.fill(spec.heading, 24), fontsize=7.5)
    axes.set_yticks(range(len(runs)), runs[::-1])
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", labelsize=7.5)
    axes.set_ylim(-0.6, len(runs) - 0.4)


def reliabilities(bins: Mapping[str, ReliabilityBins], out: Path) -> Figure:
    """How often the first of a pair wins, against the teacher's probability of it: a panel a reward, with its ECE."""
    columns = min(3, len(bins))
    lines = -(-len(bins) // columns)
    with matplotlib.rc_context(RC):
        figure = new_figure(2.5 * columns, 2.5 * lines)
        panels = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False).ravel()
        figure.subplots_adjust(left=0.6 / (2.5 * columns), right=0.97, bottom=0.5 / (2.5 * lines), top=0.9, hspace=0.3)
        for axes, (name, found) in zip(panels, bins.items(), strict=False):
            axes.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--", zorder=0)
            full = found.count > 0
            sizes = 120 * found.count[full] / found.count.max()
            axes.plot(found.confidence[full], found.accuracy[full], color=COLOURS[0], lw=1.2)
            axes.scatter(found.confidence[full], found.accuracy[full], s=sizes, color=COLOURS[5], ec="white", zorder=3)
            axes.set_title(f"{name}\nECE {found.ece:.3f}", fontsize=8)
        for axes in panels[len(bins) :]:
            axes.remove()
        figure.supxlabel("teacher's probability", fontsize=9)
        figure.supylabel("share that wins", fontsize=9)
        save(figure, out)
    return figure
