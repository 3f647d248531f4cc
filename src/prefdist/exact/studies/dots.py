"""A figure of deviations that should be nothing: one line a label, on a logarithmic axis."""

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefdist.style import COLOURS, INK, new_figure

EQUAL, DIFFERENT = COLOURS[:2]
FLOOR = 1e-17
"""Where a deviation of exactly zero is drawn: below the rounding of float64."""


def dots(
    labels: Sequence[str], points: Mapping[str, tuple[str, Sequence[float]]], colours: Sequence[str], axis: str, *, limit: float
) -> Figure:
    """One line a label on a logarithmic axis. Blue values should lie left of the dashed line at `limit`, red right."""
    figure = new_figure(7.2, 0.6 + 0.19 * len(labels))
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    height = range(len(labels))
    legend = [Line2D([], [], color=INK, marker=points[name][0], linestyle="", label=name) for name in points]
    for marker, values in points.values():
        drawn = [max(value, FLOOR) for value in values]
        axes.scatter(drawn, height, c=list(colours), marker=marker, s=26)
    axes.set_xscale("log")
    axes.axvline(limit, color=INK, linestyle="--", linewidth=0.8)
    axes.set_yticks(height, labels)
    axes.invert_yaxis()
    axes.set_xlim(FLOOR / 2, 5)
    axes.set_xlabel(axis)
    axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
    axes.set_axisbelow(True)
    figure.legend(handles=legend, loc="outside upper right", ncols=len(legend))
    return figure
