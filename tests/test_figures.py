"""prefdist.results.figures: files, equal bytes for equal input, points where the table says, labels apart."""

import itertools
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from prefdist.errors import UserError
from prefdist.evaluation.statistics import reliability_bins
from prefdist.results.figures import kl_frontier, learning_curves, reliability, win_rates
from prefdist.results.tables import COLUMNS, Cell

FAMILIES = {
    "sft": "supervised",
    **dict.fromkeys(("dpo", "ipo", "simpo", "spl", "pmle", "dpo_lora"), "direct"),
    **dict.fromkeys(("distill_kl_loss", "distill_kl_reward"), "distillation"),
    "rebel": "regression",
    **dict.fromkeys(("rlhf_rloo", "rlhf_ppo"), "RLHF"),
    **dict.fromkeys(("rkl_rloo", "rkl_ppo"), "reverse KL"),
}
STEPS = [0, 100, 200, 300]


def cell(run: str, metric: str, value: float, half: float) -> Cell:
    return dict(zip(COLUMNS, (run, metric, value, value - half, value + half, 100, 3, 300, 0), strict=True))


def table() -> list[Cell]:
    rng = np.random.default_rng(0)
    cells = []
    for run in FAMILIES:
        far = 0.0 if run == "sft" else rng.uniform(2, 5)
        cells.append(cell(run, "kl_to_prior", far, 0.1))
        cells.append(cell(run, "forward_kl", 8 - 0.8 * far + rng.uniform(0, 1), 0.3))
        cells.append(cell(run, "reverse_kl", 6 - 0.6 * far + rng.uniform(0, 1), 0.3))
        cells.append(cell(run, "win_rate_prior", rng.uniform(45, 70), 3.0))
    return cells


def curves() -> list[dict[str, Any]]:
    rng = np.random.default_rng(1)
    return [
        {"run": run, "seed": seed, "steps": STEPS, "values": list(8 - 0.01 * np.array(STEPS) + rng.normal(0, 0.1, 4))}
        for run in FAMILIES
        for seed in range(2)
    ]


def bins(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    p = 0.5 + 0.45 * rng.random(500)
    return reliability_bins(p, rng.random(500) < p, bins=20)


FIGURES: dict[str, Callable[[Path], Figure]] = {
    "kl_frontier": lambda out: kl_frontier(table(), FAMILIES, out, prior="sft"),
    "learning_curves": lambda out: learning_curves(curves(), FAMILIES, out),
    "win_rates": lambda out: win_rates(table(), FAMILIES, out),
    "reliability": lambda out: reliability([bins(0), bins(1)], out),
}


def visible_text_boxes(figure: Figure) -> list[Any]:
    canvas = figure.canvas
    assert isinstance(canvas, FigureCanvasAgg)
    texts = [text for axes in figure.axes for text in axes.texts]
    return [text.get_window_extent(canvas.get_renderer()) for text in texts]


@pytest.mark.parametrize("name", FIGURES)
def test_svg_and_png_are_written_and_svg_bytes_repeat(name: str, tmp_path: Path) -> None:
    FIGURES[name](tmp_path / "first.v1")
    FIGURES[name](tmp_path / "second")
    assert (tmp_path / "first.v1.png").stat().st_size > 5_000
    assert (tmp_path / "first.v1.svg").read_bytes() == (tmp_path / "second.svg").read_bytes()


@pytest.mark.parametrize("name", ["kl_frontier", "learning_curves"])
def test_direct_labels_neither_overlap_nor_leave_the_figure(name: str, tmp_path: Path) -> None:
    figure = FIGURES[name](tmp_path / "figure")
    boxes = visible_text_boxes(figure)
    assert len(boxes) == len(FAMILIES) * (2 if name == "kl_frontier" else 1)
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    frame = figure.bbox
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1 for box in boxes)


def test_frontier_points_and_bars_are_the_estimates_and_intervals(tmp_path: Path) -> None:
    cells = {(c["run"], c["metric"]): c for c in table()}
    figure = FIGURES["kl_frontier"](tmp_path / "figure")
    for axes, metric in zip(figure.axes, ("forward_kl", "reverse_kl"), strict=True):
        points = {str(c.get_label()): c for c in axes.containers if isinstance(c, ErrorbarContainer)}
        assert set(points) == set(FAMILIES) - {"sft"} | {"sft = π₀"}
        x, y = cells["dpo", "kl_to_prior"], cells["dpo", metric]
        assert points["dpo"][0].get_xydata()[0] == pytest.approx([x["estimate"], y["estimate"]])
        across, up = (bar.get_segments()[0] for bar in points["dpo"][2])
        assert across[:, 0] == pytest.approx([x["low"], x["high"]])
        assert up[:, 1] == pytest.approx([y["low"], y["high"]])
        assert points["sft = π₀"][0].get_xydata()[0] == pytest.approx([0.0, cells["sft", metric]["estimate"]])
        # A label stands nearest to its own point, or has a line to it: at most 80 points away in any case.
        for text in axes.texts:
            assert math.hypot(*text.xyann) < 80


def test_frontier_without_reverse_kl_or_intervals(tmp_path: Path) -> None:
    cells = [c | {"low": math.nan, "high": math.nan} for c in table() if c["metric"] != "reverse_kl"]
    cells[-3]["estimate"] = math.nan  # a run without any value has no point
    (axes,) = kl_frontier(cells, FAMILIES, tmp_path / "figure", prior="sft").axes
    assert len(axes.containers) == len(FAMILIES) - 1


def test_learning_curves_have_a_panel_a_family_and_the_mean_over_seeds(tmp_path: Path) -> None:
    figure = FIGURES["learning_curves"](tmp_path / "figure")
    panels = {axes.get_title(loc="left"): axes for axes in figure.axes}
    assert set(panels) == set(FAMILIES.values())
    mean = next(line for line in panels["direct"].lines if line.get_label() == "ipo")
    values = [curve["values"] for curve in curves() if curve["run"] == "ipo"]
    assert np.asarray(mean.get_xydata()) == pytest.approx(np.stack([STEPS, np.mean(values, axis=0)], axis=1))


def test_learning_curves_take_the_steps_that_all_seeds_have(tmp_path: Path) -> None:
    short = {"run": "dpo", "seed": 1, "steps": [0, 200], "values": [1.0, 3.0]}
    long = {"run": "dpo", "seed": 0, "steps": [0, 100, 200], "values": [3.0, 3.0, 3.0]}
    figure = learning_curves([long, short], FAMILIES, tmp_path / "figure")
    mean = next(line for line in figure.axes[0].lines if line.get_label() == "dpo")
    assert np.asarray(mean.get_xydata()).tolist() == [[0.0, 2.0], [200.0, 3.0]]


def test_win_rates_are_sorted_with_the_best_on_top(tmp_path: Path) -> None:
    axes = FIGURES["win_rates"](tmp_path / "figure").axes[0]
    shown = [c[0].get_xydata()[0] for c in axes.containers if isinstance(c, ErrorbarContainer)]
    expected = sorted(c["estimate"] for c in table() if c["metric"] == "win_rate_prior")
    assert [point[0] for point in shown] == pytest.approx(expected)
    assert [point[1] for point in shown] == list(range(len(expected)))
    assert list(axes.lines[0].get_xdata()) == [50.0, 50.0]


def test_reliability_pools_seeds_by_count(tmp_path: Path) -> None:
    figure = FIGURES["reliability"](tmp_path / "figure")
    above, below = figure.axes
    pooled = np.asarray(above.lines[-1].get_xydata())
    first, second = bins(0), bins(1)
    full = first.count + second.count > 0
    right = np.nan_to_num(first.accuracy * first.count) + np.nan_to_num(second.accuracy * second.count)
    assert pooled[:, 1] == pytest.approx(right[full] / (first.count + second.count)[full])
    heights = [patch.get_height() for patch in below.patches]
    assert heights == pytest.approx((first.count + second.count) / 2)


def test_errors_say_what_is_missing(tmp_path: Path) -> None:
    out = tmp_path / "figure"
    with pytest.raises(UserError, match="forward_kl"):
        kl_frontier([], FAMILIES, out, prior="sft")
    with pytest.raises(UserError, match="win_rate_prior"):
        win_rates([], FAMILIES, out)
    with pytest.raises(UserError, match="run new has no method family"):
        win_rates([cell("new", "win_rate_prior", 50, 1)], FAMILIES, out)
    with pytest.raises(UserError, match="none to draw"):
        learning_curves([], FAMILIES, out)
    with pytest.raises(UserError, match="no seed"):
        reliability([], out)
    with pytest.raises(UserError, match="different bins"):
        reliability([bins(0), reliability_bins([0.7], [1], bins=5)], out)
