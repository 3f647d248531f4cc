"""The figure of a suite of ADL at the paper's scale: what a policy gains in reward against how far it went from π₀."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from prefdist.results.labels import label_points
from prefdist.results.tables import Cell, MetricSpec
from prefdist.style import COLOURS, INK, MARKERS, RC, draw_point, error, new_figure, save, with_estimate

_BASE = "base"


def frontier(
    cells: Sequence[Cell],
    metrics: Sequence[MetricSpec],
    bases: Mapping[str, Sequence[str]],
    families: Mapping[str, str],
    out: Path,
) -> Figure:
    """A panel a base, a labelled point a policy: reward (above the reference's where there is one) against KL(π‖π₀).

    metrics: those of one set of prompts. Both at the common decoding; means and 95 % intervals.
    """
    by_name = {spec.key.rpartition("/")[2]: spec for spec in metrics}
    x, y = by_name["kl"], by_name.get("reward_gain", by_name["reward"])
    table = {(cell["run"], cell["metric"]): cell for cell in with_estimate(cells)}
    kinds = list(dict.fromkeys(families.values()))
    with matplotlib.rc_context(RC):
        figure = new_figure(4.6 * len(bases), 4.2)
        panels = figure.subplots(1, len(bases), squeeze=False)[0]
        figure.subplots_adjust(left=0.6 / figure.get_figwidth(), right=0.985, bottom=0.13, top=0.92, wspace=0.2)
        for axes, (base, policies) in zip(panels, bases.items(), strict=True):
            for policy in policies:
                if (policy, x.key) in table and (policy, y.key) in table:
                    name, kind = policy.removeprefix(f"{base}-"), kinds.index(families[policy])
                    across, up = table[policy, x.key], table[policy, y.key]
                    colour, marker = COLOURS[kind % len(COLOURS)], MARKERS[kind % len(MARKERS)]
                    if name == _BASE:
                        colour, marker = INK, "*"
                    bars: dict[str, Any] = {"xerr": error(across), "yerr": error(up)}
                    draw_point(axes, across["estimate"], up["estimate"], colour, marker, label=name, **bars)
            axes.set_title(base)
            axes.set_xlabel(x.heading)
            axes.set_ylabel(y.heading)
            label_points(axes)
        save(figure, out)
    return figure
