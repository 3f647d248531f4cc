"""Figures of answers: reliability of multiple-choice answers, coverage of problems and the best of k by a reward model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator

from prefdist.evaluation.calibration import reliability_bins
from prefdist.evaluation.coverage import DIFFICULTIES
from prefdist.evaluation.multiple_choice import Answers
from prefdist.results.coverage import ALL, CRITERIA
from prefdist.results.figures_behaviour import Look
from prefdist.results.tables import Cell
from prefdist.style import COLOURS, INK, PALE, RC, new_figure, save

_COLUMNS = 5


def reliabilities(answers: Mapping[str, Sequence[Answers]], errors: Mapping[str, float], bins: int, out: Path) -> Figure:
    """A panel a run: accuracy against the probability of the answer, all seeds together, and below how many answers a bin has.

    errors: the calibration error that the table has of each run, the mean over seeds.
    """
    columns = min(_COLUMNS, len(answers))
    lines = -(-len(answers) // columns)
    width, height = 0.65 + 1.75 * columns, 0.9 + 2.2 * lines
    with matplotlib.rc_context(RC):
        figure = new_figure(width, height)
        outer = figure.add_gridspec(
            lines,
            columns,
            left=0.6 / width,
            right=1 - 0.15 / width,
            bottom=0.65 / height,
            top=1 - 0.4 / height,
            wspace=0.14,
            hspace=0.36,
        )
        for number, (run, of_seeds) in enumerate(answers.items()):
            inner = outer[number // columns, number % columns].subgridspec(2, 1, height_ratios=(4, 1), hspace=0.08)
            above, below = (figure.add_subplot(inner[i]) for i in (0, 1))
            _draw_reliability(above, below, of_seeds, bins)
            above.set_title(f"{run}\nECE {errors[run]:.3f}", fontsize=8)
            above.tick_params(labelbottom=False, labelleft=number % columns == 0)
            below.tick_params(labelbottom=number + columns >= len(answers))
        figure.supxlabel("probability of the answer", fontsize=8.5, y=0.3 / height)
        figure.supylabel("accuracy; below, share of the answers", fontsize=8.5, x=0.12 / width)
        first = next(iter(answers.values()))
        counts = f"{len(first[0].question_ids)} questions × {len(first)} seeds; {bins} bins of equal width"
        note = f"{counts}; all seeds together, ECE: mean over seeds; bars: gap to the diagonal."
        figure.text(0.08 / width, 0.06 / height, note, fontsize=7, va="bottom")
        save(figure, out)
    return figure


def _draw_reliability(above: Axes, below: Axes, of_seeds: Sequence[Answers], bins: int) -> None:
    confidence, correct = (np.concatenate([getattr(one, name) for one in of_seeds]) for name in ("confidence", "correct"))
    found = reliability_bins(confidence, correct, bins=bins)
    full = found.count > 0
    x, y = found.confidence[full], found.accuracy[full]
    above.plot([0, 1], [0, 1], color=PALE, lw=1, ls="--", zorder=0)
    above.vlines(x, np.minimum(x, y), np.maximum(x, y), color=COLOURS[1], lw=3, alpha=0.3)
    above.plot(x, y, color=COLOURS[0], marker="o", ms=4, lw=1.2)
    below.bar(
        found.edges[:-1], found.count / found.count.sum(), np.diff(found.edges), align="edge", color=COLOURS[5], ec="white"
    )
    above.set(xlim=(0, 1), ylim=(-0.03, 1.03), xticks=(0, 0.5, 1), yticks=(0, 0.5, 1))
    below.set(xlim=(0, 1), xticks=(0, 0.5, 1), yticks=())
    below.set_xticklabels(("0", "0.5", "1"))
    for axes in (above, below):
        axes.tick_params(labelsize=7)


def coverage(cells: Sequence[Cell], look: Look, out: Path) -> Figure:
    """Rows: pass@k, and best of k by the reward model; columns: problems by difficulty; a line a policy with its band."""
    curves: dict[tuple[str, str], dict[str, list[tuple[int, Cell]]]] = {}
    for cell in cells:
        criterion, split, k = cell["metric"].split("/")
        curves.setdefault((criterion, split), {}).setdefault(cell["run"], []).append((int(k), cell))
    splits = [split for split in (ALL, *DIFFICULTIES) if ("pass", split) in curves]
    policies = list(dict.fromkeys(cell["run"] for cell in cells))
    columns = 5
    below = 0.75 + 0.17 * -(-len(policies) // columns)
    width, height = 0.65 + 2.3 * len(splits), below + 0.3 + 2.0 * len(CRITERIA)
    with matplotlib.rc_context(RC):
        figure = new_figure(width, height)
        grid = figure.subplots(len(CRITERIA), len(splits), sharex=True, sharey="col", squeeze=False)
        edges = {"left": 0.6 / width, "right": 1 - 0.12 / width, "bottom": below / height, "top": 1 - 0.3 / height}
        figure.subplots_adjust(**edges, wspace=0.16, hspace=0.1)
        for row, criterion in zip(grid, CRITERIA, strict=True):
            for axes, split in zip(row, splits, strict=True):
                for policy, points in curves[criterion, split].items():
                    _draw_curve(axes, points, look.colour(policy), look.dashes(policy), policy)
                axes.tick_params(labelsize=7)
            row[0].set_ylabel(f"{CRITERIA[criterion]} (%)", fontsize=8.5)
        for axes, split in zip(grid[0], splits, strict=True):
            (_, first), *_ = next(iter(curves["pass", split].values()))
            axes.set_title(f"{split} problems (n = {first['n_prompts']})", fontsize=8.5)
        figure.align_ylabels(grid[:, 0])
        figure.supxlabel("k, answers a problem", fontsize=8.5, y=(below - 0.42) / height)
        styles = [(name, look.colour(name), look.dashes(name)) for name in policies]
        lines = [Line2D([], [], color=colour, ls=ls, lw=1.6, label=name) for name, colour, ls in styles]
        legend: Any = {"fontsize": 7.5, "ncols": min(columns, len(policies)), "columnspacing": 1.5}
        figure.legend(handles=lines, loc="lower center", bbox_to_anchor=(0.5, 0.2 / height), borderaxespad=0, **legend)
        seeds = cells[0]["n_seeds"]
        note = f"Means over {seeds} seed{'s' * (seeds > 1)}; bands: 95 % over problems, trained models fixed."
        figure.text(0.08 / width, 0.05 / height, note, fontsize=7, va="bottom")
        save(figure, out)
    return figure


def _draw_curve(axes: Axes, points: Sequence[tuple[int, Cell]], colour: str, dashes: str, label: str) -> None:
    ks = [k for k, _ in points]
    values, low, high = ([cell[name] for _, cell in points] for name in ("estimate", "low", "high"))
    axes.fill_between(ks, low, high, color=colour, alpha=0.10 if colour != INK else 0.07, lw=0)
    axes.plot(ks, values, color=colour, ls=dashes, lw=1.4, label=label)
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda k, _: f"{k:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
