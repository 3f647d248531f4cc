"""The exact suite's stage: two tables and two figures that say whether objectives and estimators are what they claim.

Writes optima and estimators, each as .csv, .md, .svg and .png. Left out: what is computed (optima.py, estimators.py).
"""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefdist.exact.estimators import estimators_table
from prefdist.exact.optima import optima_table

FLOOR = 1e-17
"""Where a deviation of exactly zero is drawn: below the rounding of float64, on a logarithmic axis."""
_INK, _EQUAL, _DIFFERENT = "#222222", "#0072B2", "#D55E00"
_RC: Any = {
    "svg.hashsalt": "prefdist",  # element ids of the SVG would be random otherwise
    "font.size": 8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """All files of the stage into the folder `out`. `spec` holds keyword arguments of `optima_table`.

    The estimators share its worlds, vocabulary, length and spread. There are no inputs. RuntimeError names every row
    whose verdict is not the expected one.
    """
    optima = optima_table(**spec)
    shared = {key: spec[key] for key in ("worlds", "vocabulary", "length", "spread") if key in spec}
    estimators = estimators_table(**shared)
    for name, rows in (("optima", optima), ("estimators", estimators)):
        _write_csv(rows, out / f"{name}.csv")
        _write_markdown(rows, out / f"{name}.md")
    _optima_figure(optima, out / "optima")
    _estimators_figure(estimators, out / "estimators")
    wrong = [row for row in optima + estimators if row["verdict"] != row["expected"]]
    if wrong:
        listed = "\n".join(", ".join(f"{key}={_text(value)}" for key, value in row.items()) for row in wrong)
        raise RuntimeError(f"{len(wrong)} verdicts are not the expected ones:\n{listed}")


def _write_csv(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    with file.open("w", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _text(value) for key, value in row.items()} for row in rows)


def _write_markdown(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(_cells(row) for row in rows)]
    file.write_text("".join("| " + " | ".join(line) + " |\n" for line in lines))


def _cells(row: Mapping[str, Any]) -> list[str]:
    return [_text(value).replace("|", "\\|") for value in row.values()]


def _text(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _optima_figure(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    labels = [" ".join(filter(None, (row["objective"], row["changed"], f"[{row['world']}]"))) for row in rows]
    labels = [
        label + (" vs KL in the reward" if row["expected"] == "different" else "")
        for label, row in zip(labels, rows, strict=True)
    ]
    points = {
        "largest over worlds": ("o", [row["tv_max"] for row in rows]),
        "mean": ("|", [row["tv_mean"] for row in rows]),
    }
    colours = [_DIFFERENT if row["expected"] == "different" else _EQUAL for row in rows]
    axis = f"total variation between trained and expected optimum, n = {rows[0]['n']} worlds"
    _dots(labels, points, colours, axis, out, limit=1e-4)


def _estimators_figure(rows: Sequence[Mapping[str, Any]], out: Path) -> None:
    labels = [f"{row['estimator']} [{row['quantity']}]" for row in rows]
    points = {
        "largest over worlds": ("o", [row["error_max"] for row in rows]),
        "mean": ("|", [row["error_mean"] for row in rows]),
    }
    colours = [_EQUAL if row["expected"] == "exact" else _DIFFERENT for row in rows]
    axis = f"relative error of the expected gradient, n = {rows[0]['n']} worlds"
    _dots(labels, points, colours, axis, out, limit=1e-9)


def _dots(
    labels: Sequence[str],
    points: Mapping[str, tuple[str, Sequence[float]]],
    colours: Sequence[str],
    axis: str,
    out: Path,
    *,
    limit: float,
) -> None:
    """One line a label on a logarithmic axis. Blue values should lie left of the dashed line at `limit`, red right."""
    with matplotlib.rc_context(_RC):
        figure = Figure(figsize=(7.2, 0.6 + 0.19 * len(labels)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.add_subplot()
        height = range(len(labels))
        legend = [Line2D([], [], color=_INK, marker=points[name][0], linestyle="", label=name) for name in points]
        for marker, values in points.values():
            drawn = [max(value, FLOOR) for value in values]
            axes.scatter(drawn, height, c=list(colours), marker=marker, s=26)
        axes.set_xscale("log")
        axes.axvline(limit, color=_INK, linestyle="--", linewidth=0.8)
        axes.set_yticks(height, labels)
        axes.invert_yaxis()
        axes.set_xlim(FLOOR / 2, 5)
        axes.set_xlabel(axis)
        axes.grid(axis="y", color="#DDDDDD", linewidth=0.5)
        axes.set_axisbelow(True)
        figure.legend(handles=legend, loc="outside upper right", ncols=len(legend))
        for suffix in (".svg", ".png"):
            # A date in the file would make equal results different files.
            metadata: Any = {"Date": None} if suffix == ".svg" else None
            figure.savefig(out.with_suffix(suffix), dpi=150, metadata=metadata)
