"""How every figure looks: colours, markers, points with intervals, SVG and PNG files. Equal input gives equal SVG bytes."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

Cell = dict[str, Any]
"""Of a table: estimate, low, high and what they are of."""

# Okabe and Ito's colours, told apart with any colour vision; the shapes tell them apart in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
INK, PALE = "#222222", "#B8B8B8"
RC: Any = {
    "svg.hashsalt": "prefdist",  # element ids of the SVG would be random otherwise
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.edgecolor": INK,
    "lines.markeredgecolor": "white",  # keeps markers apart that lie on each other
    "lines.markeredgewidth": 0.5,
    "legend.frameon": False,
}


def draw_point(axes: Axes, x: float, y: float, colour: str, marker: str, *, size: float = 7, **options: Any) -> None:
    axes.errorbar(x, y, color=colour, marker=marker, ms=size, elinewidth=1.1, **options)


def with_estimate(cells: Sequence[Cell]) -> list[Cell]:
    return [cell for cell in cells if not math.isnan(cell["estimate"])]


def error(cell: Cell) -> npt.NDArray[np.float64]:
    """[2, 1] distances from the estimate to the ends of its interval; NaN draws no bar.

    Of an interval that lies beside its estimate, as that of a calibration error may, the bar goes to the far end.
    """
    return np.maximum([[cell["estimate"] - cell["low"]], [cell["high"] - cell["estimate"]]], 0.0)


def new_figure(width: float, height: float) -> Figure:
    """A figure of so many inches, without pyplot's global state; Agg measures its texts."""
    figure = Figure(figsize=(width, height))
    FigureCanvasAgg(figure)
    return figure


def save(figure: Figure, out: Path) -> None:
    figure.savefig(out.with_name(out.name + ".svg"), metadata={"Date": None})
    figure.savefig(out.with_name(out.name + ".png"), dpi=150)
