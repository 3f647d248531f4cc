"""Direct labels in place of legends: names beside points and line ends, placed so that they do not overlap.

Works in pixels on axes whose limits and position are final. Left out: everything that moves points or axes.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.container import ErrorbarContainer
from matplotlib.lines import Line2D
from matplotlib.transforms import Bbox

FloatArray = npt.NDArray[np.float64]

_SIZE = 7.5
_GAP = 1.5  # pixels kept free around a label
_LEADER_FROM = 14.0  # points: a label further off gets a line to its point


def label_points(axes: Axes, *, without: Collection[str] = ()) -> None:
    """Write the label of every errorbar container of the axes beside its point, greedily, the most crowded first.

    without: labels that are not written; their points are not covered either.
    """
    _settle(axes)
    renderer = _renderer(axes)
    containers = [c for c in axes.containers if isinstance(c, ErrorbarContainer)]
    obstacles = [box for container in containers for box in _boxes(axes, container)]
    positions = np.array([axes.transData.transform(_vertices(_line(c))[0]) for c in containers])
    distances = np.hypot(*(positions[:, None] - positions[None]).transpose(2, 0, 1))
    crowding = np.sort(distances, axis=1)[:, 1:5].sum(axis=1)
    for index in np.argsort(crowding, kind="stable"):
        line, name = _line(containers[index]), str(containers[index].get_label())
        if name in without:
            continue
        x, y = _vertices(line)[0]
        style: Any = {"fontsize": _SIZE, "color": _dark(line.get_color()), "ha": "center", "va": "center"}
        text = axes.annotate(name, (x, y), xytext=(0, 0), textcoords="offset points", **style)
        size = text.get_window_extent(renderer)
        radius, offset, box = _best_place(axes, positions[index], (size.width, size.height), obstacles)
        text.set_position(offset)
        if radius > _LEADER_FROM:
            near = np.clip(positions[index], (box.x0 + _GAP, box.y0 + _GAP), (box.x1 - _GAP, box.y1 - _GAP))
            ends = axes.transData.inverted().transform([positions[index], near])
            axes.plot(*ends.T, color=line.get_color(), lw=0.6, zorder=1, scalex=False, scaley=False)
        obstacles.append(box)


def _best_place(
    axes: Axes, position: FloatArray, size: tuple[float, float], obstacles: Sequence[Bbox]
) -> tuple[float, tuple[float, float], Bbox]:
    """Distance and offset in points, and box in pixels, of the place that covers least and is nearest."""
    frame, scale = axes.bbox, axes.figure.dpi / 72.0
    half = np.array(size) / 2 + _GAP
    places = []
    for radius, dx, dy in _offsets(size[0] / scale, size[1] / scale):
        centre = position + scale * np.array([dx, dy])
        box = Bbox([centre - half, centre + half])
        outside = box.width * box.height - _overlap(box, frame)
        # The weight of distance is small: it decides between places that cover nothing.
        cost = sum(_overlap(box, other) for other in obstacles) + 5.0 * outside + 0.6 * radius
        places.append((cost, radius, (dx, dy), box))
    _, radius, offset, box = min(places, key=lambda place: place[0])
    return radius, offset, box


def label_line_ends(axes: Axes) -> None:
    """Write the label of every labelled line to the right of its last point, pushed apart where lines end together."""
    _settle(axes)
    lines = [line for line in axes.lines if not str(line.get_label()).startswith("_")]
    height = 1.15 * _SIZE * axes.figure.dpi / 72.0
    ends = np.array([axes.transData.transform(_vertices(line)[-1]) for line in lines])
    order = np.argsort(ends[:, 1], kind="stable")
    wanted = ends[order, 1]
    # Least squares with a minimal distance is isotonic regression of the positions less their stacking offset.
    stack = height * np.arange(len(lines))
    heights = _isotonic(wanted - stack) + stack
    heights += max(0.0, axes.bbox.y0 - heights[0])
    right = axes.bbox.x1
    for place, index in enumerate(order):
        line = lines[index]
        start = axes.transData.transform(_vertices(line)[-1])
        elbow = axes.transData.inverted().transform(np.array([start, (right + 8, heights[place])]))
        axes.plot(*elbow.T, color=line.get_color(), lw=0.6, clip_on=False, scalex=False, scaley=False)
        x, y = axes.transData.inverted().transform((right + 10, heights[place]))
        axes.text(x, y, str(line.get_label()), fontsize=_SIZE, color=_dark(line.get_color()), va="center", clip_on=False)


def _dark(colour: Any) -> tuple[float, float, float]:
    """A darker shade for small letters: the palette's light colours are hard to read on white."""
    red, green, blue = to_rgb(colour)
    return 0.7 * red, 0.7 * green, 0.7 * blue


def _offsets(width: float, height: float) -> Iterator[tuple[float, float, float]]:
    """Offsets (radius, dx, dy) in points of a label's centre, nearest first; radius is from the point to the label."""
    for radius in (6.0, 10.0, 16.0, 24.0, 34.0, 46.0, 60.0):
        for angle in np.deg2rad(np.arange(0, 360, 15)):
            across, up = np.cos(angle), np.sin(angle)
            yield radius, float(across * (radius + width / 2)), float(up * (radius + height / 2))


def _boxes(axes: Axes, container: ErrorbarContainer) -> list[Bbox]:
    """Pixels that a point and its error bars cover. Bars are thin, so they are drawn thicker: crossing one costs."""
    line = _line(container)
    centre = axes.transData.transform(_vertices(line)[0])
    half = 0.5 * line.get_markersize() * axes.figure.dpi / 72.0
    boxes = [Bbox([centre - half, centre + half])]
    for collection in container[2]:
        for segment in collection.get_segments():
            if len(segment):  # a bar without ends, from an estimate without interval, has no vertices
                ends = axes.transData.transform(segment)
                boxes.append(Bbox([ends.min(axis=0) - 1.5, ends.max(axis=0) + 1.5]))
    return boxes


def _overlap(a: Bbox, b: Bbox) -> float:
    width = min(a.x1, b.x1) - max(a.x0, b.x0)
    height = min(a.y1, b.y1) - max(a.y0, b.y0)
    return max(0.0, width) * max(0.0, height)


def _isotonic(values: FloatArray) -> FloatArray:
    """The non-decreasing sequence nearest to the values in least squares (pool adjacent violators)."""
    from scipy.optimize import isotonic_regression

    return np.asarray(isotonic_regression(values).x, dtype=np.float64)


def _settle(axes: Axes) -> None:
    """Make the limits final: matplotlib leaves them stale until somebody asks or draws, and transforms do not ask."""
    axes.set(xlim=axes.get_xlim(), ylim=axes.get_ylim())


def _line(container: ErrorbarContainer) -> Line2D:
    return cast(Line2D, container[0])


def _vertices(line: Line2D) -> FloatArray:
    """[points, 2] in data coordinates."""
    return np.asarray(line.get_xydata(), dtype=np.float64)


def _renderer(axes: Axes) -> Any:
    return cast(FigureCanvasAgg, axes.figure.canvas).get_renderer()
