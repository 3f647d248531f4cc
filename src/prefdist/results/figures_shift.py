"""Figures of output shift and of repeats in front of prompts (Huang's note)."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from prefdist.results.figures_behaviour import counted
from prefdist.results.metrics_behaviour import REPEATS
from prefdist.results.tables import Cell
from prefdist.style import COLOURS, MARKERS, PALE, RC, draw_point, error, new_figure, save, with_estimate

_MASSES = {
    "by known wins": (None, "tpm_win", None),
    "by r̂ (D3)": ("tpm_reward_0", "tpm_reward", "tpm_reward_tilted"),
    "by SFT (D1)": ("tpm_sft_0", "tpm_sft", None),
}
"""Definition -> metrics of π₀, of the policy and of π₀ tilted by the policy's optimum; the known win rate of π₀ is ½."""
_RATIOS = {"log_ratio_chosen": "chosen", "log_ratio_rejected": "rejected"}
_REWARDS = ("known", "own", "judge")
FILLINGS = ("repeats", "random", "text")
_FIRST_TOKEN = ("kl", "variance")
_FITS = {"lambda": "λ: share of π₀", "accuracy": "π told from π₀ (%)"}
Numbers = Mapping[str, str]
"""A row of slopes.csv or fits.csv."""


def shift(cells: Sequence[Cell], slopes: Sequence[Numbers], out: Path) -> Figure:
    """A row a policy: total probability mass before and after by definition, log-ratios of pairs, slopes on rewards."""
    table = {(cell["run"], cell["metric"]): cell for cell in with_estimate(cells)}
    policies = list(dict.fromkeys(cell["run"] for cell in cells))
    masses = {title: names for title, names in _MASSES.items() if any(metric == names[1] for _, metric in table)}
    rewards = [name for name in _REWARDS if any(row["reward"] == name for row in slopes)]
    titles = [f"TPM {title} (%)" for title in masses] + ["log π/π₀ of pairs (nats)"] + ["slope on reward"] * bool(rewards)
    with matplotlib.rc_context(RC):
        figure, panels = _rows_of_policies(policies, titles)
        for axes, names in zip(panels, masses.values(), strict=False):
            _draw_masses(axes, table, policies, names)
        _draw_ratios(panels[len(masses)], table, policies)
        if rewards:
            _draw_slopes(panels[-1], slopes, policies, rewards)
        marks = [
            _mark(PALE, "o", "π₀"),
            _mark(COLOURS[0], "o", "policy"),
            _mark(COLOURS[0], "|", "tilt of π₀ at the optimum"),
            _mark(COLOURS[2], "^", "chosen"),
            _mark(COLOURS[1], "v", "rejected"),
            *(_mark(COLOURS[3 + i], MARKERS[3 + i], f"slope on {_named(name)}") for i, name in enumerate(rewards)),
        ]
        _finish(figure, marks, f"{counted(cells)}; slopes: a bar a seed, 95 % over prompts; at its optimum a policy's is 1.")
        save(figure, out)
    return figure


def _named(reward: str) -> str:
    return {"known": "γ·log π*", "own": "own r̂", "judge": "judge's r̂"}[reward]


def _draw_masses(
    axes: Axes, table: Mapping[tuple[str, str], Cell], policies: Sequence[str], names: tuple[str | None, str, str | None]
) -> None:
    before, after, tilted = names
    if before is None:
        axes.axvline(50.0, color=PALE, lw=1, zorder=0)
    for place, policy in enumerate(policies):
        cell = table.get((policy, after))
        if cell is None:
            continue
        start = 50.0 if before is None else table[policy, before]["estimate"]
        axes.plot([start, cell["estimate"]], [place, place], color=PALE, lw=2.5, solid_capstyle="butt", zorder=1)
        draw_point(axes, start, place, PALE, "o", size=4.5)
        draw_point(axes, cell["estimate"], place, COLOURS[0], "o", size=4.5, xerr=error(cell), zorder=2.5)
        if tilted and (policy, tilted) in table:
            at_optimum = table[policy, tilted]["estimate"]
            axes.plot(at_optimum, place, color=COLOURS[0], marker="|", ms=9, mew=1.6, mec=COLOURS[0], zorder=2)


def _draw_ratios(axes: Axes, table: Mapping[tuple[str, str], Cell], policies: Sequence[str]) -> None:
    axes.axvline(0.0, color=PALE, lw=1, zorder=0)
    for place, policy in enumerate(policies):
        for metric, up, colour, marker in zip(_RATIOS, (0.14, -0.14), (COLOURS[2], COLOURS[1]), "^v", strict=True):
            cell = table.get((policy, metric))
            if cell is not None:
                draw_point(axes, cell["estimate"], place - up, colour, marker, size=4.5, xerr=error(cell))


def _draw_slopes(axes: Axes, slopes: Sequence[Numbers], policies: Sequence[str], rewards: Sequence[str]) -> None:
    axes.axvline(1.0, color=PALE, lw=1, zorder=0)
    axes.axvline(0.0, color=PALE, lw=1, ls=":", zorder=0)
    seeds = list(dict.fromkeys(row["seed"] for row in slopes))
    for row in slopes:
        if row["run"] in policies and row["slope"]:
            kind = rewards.index(row["reward"])
            slot = kind * len(seeds) + seeds.index(row["seed"])
            place = policies.index(row["run"]) + 0.56 * ((slot + 0.5) / (len(rewards) * len(seeds)) - 0.5)
            ends = [[float(row["slope"]) - float(row["low"])], [float(row["high"]) - float(row["slope"])]]
            draw_point(axes, float(row["slope"]), place, COLOURS[3 + kind], MARKERS[3 + kind], size=3.5, xerr=np.array(ends))


def repeats(cells: Sequence[Cell], fits: Sequence[Numbers], out: Path) -> Figure:
    """A row a policy; against the number of tokens in front of the prompt, a line a filling."""
    found = {(cell["run"], *cell["metric"].split("/")): cell for cell in with_estimate(cells)}
    policies = list(dict.fromkeys(run for run, *_ in found))
    counts = sorted({int(k) for *_, k in found})
    titles = [next(spec.heading for spec in REPEATS if spec.key == name) for name in _FIRST_TOKEN] + list(_FITS.values())
    width, height = 9.4, 0.95 + 1.35 * len(policies)
    with matplotlib.rc_context(RC):
        figure = new_figure(width, height)
        grid = figure.subplots(len(policies), len(titles), sharex=True, squeeze=False)
        edges = {"left": 0.75 / width, "right": 1 - 0.12 / width, "bottom": 0.72 / height, "top": 1 - 0.5 / height}
        figure.subplots_adjust(**edges, wspace=0.28, hspace=0.22)
        for row, policy in zip(grid, policies, strict=True):
            for axes, name in zip(row, _FIRST_TOKEN, strict=False):
                _draw_contexts(axes, {key[2:]: cell for key, cell in found.items() if key[:2] == (policy, name)}, counts)
            for axes, name in zip(row[len(_FIRST_TOKEN) :], _FITS, strict=True):
                _draw_fits(axes, [fit for fit in fits if fit["run"] == policy], name, counts)
            row[0].set_ylabel(policy, fontsize=8.5)
        for axes, title in zip(grid[0], titles, strict=True):
            axes.set_title(title, fontsize=8)
        for axes in grid.ravel():
            axes.tick_params(labelsize=7)
            axes.set_xticks(range(len(counts)), [str(k) for k in counts])
        figure.align_ylabels(grid[:, 0])
        figure.supxlabel("tokens in front of the prompt, k", fontsize=8.5, y=0.27 / height)
        lines = [
            Line2D([], [], color=COLOURS[i], marker=MARKERS[i], ms=5, lw=1.3, label=name)
            for i, name in enumerate(("repeats of one token", "random tokens", "text"))
        ]
        figure.legend(handles=lines, loc="upper right", ncols=3, fontsize=8, borderaxespad=0.2)
        note = f"{counted(cells)}; λ and accuracy: means over seeds, a dot a seed; grey: λ of π and π₀, guessing."
        figure.text(0.08 / width, 0.06 / height, note, fontsize=7, va="bottom")
        save(figure, out)
    return figure


def _draw_contexts(axes: Axes, by_context: Mapping[tuple[str, ...], Cell], counts: Sequence[int]) -> None:
    for i, filling in enumerate(FILLINGS):
        of_filling = [by_context[filling, str(k)] for k in counts]
        at = np.arange(len(counts)) + 0.06 * (i - 1)
        values = np.array([[cell[name] for name in ("estimate", "low", "high")] for cell in of_filling])
        bars = np.abs(values[:, 1:] - values[:, :1]).T
        style: Any = {"color": COLOURS[i], "marker": MARKERS[i], "ms": 4, "lw": 1.2, "elinewidth": 0.8}
        axes.errorbar(at, values[:, 0], yerr=bars, **style)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]))


def _draw_fits(axes: Axes, fits: Sequence[Numbers], name: str, counts: Sequence[int]) -> None:
    scale = 100.0 if name == "accuracy" else 1.0
    for level in (0.0, 1.0) if name == "lambda" else (50.0,):
        axes.axhline(level, color=PALE, lw=1, zorder=0)
    for i, filling in enumerate(FILLINGS):
        points = [(int(fit["k"]), scale * float(fit[name])) for fit in fits if fit["filling"] == filling and fit[name]]
        there = [k for k in counts if any(k == other for other, _ in points)]
        means = [np.mean([value for other, value in points if other == k]) for k in there]
        if there:
            at = [counts.index(k) + 0.06 * (i - 1) for k in there]
            axes.plot(at, means, color=COLOURS[i], marker=MARKERS[i], ms=4, lw=1.2)
            seeds = np.array([(counts.index(k) + 0.06 * (i - 1), value) for k, value in points])
            axes.scatter(seeds[:, 0], seeds[:, 1], s=5, color=COLOURS[i], alpha=0.45, linewidths=0)
    if not axes.lines[1 if name == "accuracy" else 2 :]:
        axes.text(0.5, 0.5, "π and π₀ do not differ", transform=axes.transAxes, ha="center", va="bottom", fontsize=7)


def _rows_of_policies(policies: Sequence[str], titles: Sequence[str]) -> tuple[Figure, list[Axes]]:
    names = 0.3 + 0.075 * max(map(len, policies))
    width, height = names + 1.9 * len(titles), 1.15 + 0.3 * len(policies)
    figure = new_figure(width, height)
    panels = list(figure.subplots(1, len(titles), sharey=True, squeeze=False)[0])
    edges = {"left": names / width, "right": 1 - 0.1 / width, "bottom": 0.68 / height, "top": 1 - 0.3 / height}
    figure.subplots_adjust(**edges, wspace=0.12)
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=8)
        axes.set_yticks(range(len(policies)), policies)
        axes.tick_params(axis="y", length=0)
        axes.tick_params(axis="x", labelsize=7.5)
        axes.set_ylim(len(policies) - 0.4, -0.6)
        for place in range(0, len(policies), 2):
            axes.axhspan(place - 0.5, place + 0.5, color="#F5F5F5", zorder=-1, lw=0)
    return figure, panels


def _mark(colour: str, marker: str, label: str) -> Line2D:
    edge: Any = {"mec": colour, "mew": 1.6} if marker == "|" else {}
    return Line2D([], [], ls="", color=colour, marker=marker, ms=6, label=label, **edge)


def _finish(figure: Figure, marks: Sequence[Line2D], note: str) -> None:
    width, height = figure.get_size_inches()
    figure.legend(
        handles=list(marks),
        loc="lower left",
        bbox_to_anchor=(0.0, 0.2 / height),
        ncols=len(marks),
        fontsize=7.5,
        handletextpad=0.1,
        columnspacing=1.2,
        borderaxespad=0.1,
    )
    figure.text(0.08 / width, 0.06 / height, note, fontsize=7, va="bottom")
