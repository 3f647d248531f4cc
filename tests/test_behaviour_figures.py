"""The figures of behaviour: what they show is what the tables say, and everything is named."""

from pathlib import Path

import numpy as np
import pytest
from behaviour_results import MODELS, POLICIES, SPEC, answers, cell, write_inputs, write_results
from matplotlib.figure import Figure

from prefdist.config.spl import SplSuite
from prefdist.plan.behaviour import sweeps
from prefdist.results.behaviour_tables import read_rows
from prefdist.results.calibration import grouped_answers
from prefdist.results.figures_answers import coverage, reliabilities
from prefdist.results.figures_behaviour import Look, front, main_quality_diversity, quality_diversity
from prefdist.results.figures_shift import repeats, shift
from prefdist.results.metrics_behaviour import measure_of
from prefdist.results.tables import Cell, read_csv
from prefdist.suites import load_suite

LOOK = Look(SPEC["families"], SPEC["sweeps"])


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(write_inputs(tmp_path_factory.mktemp("artefacts")), tmp_path_factory.mktemp("checkout"))


def of_measure(results: Path, measure: str) -> list[Cell]:
    return [found for found in read_csv(results / "table.csv") if measure_of(found["metric"]) == measure]


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    axes = [text for one in figure.axes for text in (one.xaxis.label, one.yaxis.label, *one.texts)]
    ticks = [tick for one in figure.axes for tick in (*one.get_xticklabels(), *one.get_yticklabels())]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    titles = [one.get_title(loc="left") for one in figure.axes]
    return "\n".join([*titles, *(text.get_text() for text in [*axes, *ticks, *legends, *figure.texts])])


def test_quality_and_diversity_point_to_better(results: Path, tmp_path: Path) -> None:
    cells = of_measure(results, "diversity")
    figure = quality_diversity(cells, LOOK, tmp_path / "figure")
    assert len(figure.axes) == 3 * 5 + 1
    by_label = {(one.get_ylabel(), one.get_xlabel()): one for one in figure.axes}
    assert by_label["", "self-BLEU ↓"].xaxis_inverted() and not by_label["", "EAD ↑"].xaxis_inverted()
    shown = texts(figure)
    assert "dpo → dpo_hot" in shown and "SPL: spl" in shown and "6 prompts × 2 seeds" in shown
    first = figure.axes[0]
    places = {str(c.get_label()): c[0].get_xydata()[0] for c in first.containers}
    for run in POLICIES:
        ends = [cell(results, run, metric)["estimate"] for metric in ("embedding_distance", "win_rate_base")]
        assert places[run] == pytest.approx(ends)
    main = main_quality_diversity(cells, LOOK, tmp_path / "main")
    assert {text.get_text() for text in main.axes[0].texts} == set(POLICIES)
    # The stage drew it from unrounded cells, so bytes are compared with a second drawing.
    quality_diversity(cells, LOOK, tmp_path / "again")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "figure.svg").read_bytes()


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    best = {tuple(p) for p in points if not any((q >= p).all() and (q > p).any() for q in points)}
    assert {tuple(p) for p in front(points)} == best and len(best) > 1
    tied = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    assert front(tied).tolist() == [[1.0, 2.0]]


def test_shift_and_repeats_are_labelled(results: Path, tmp_path: Path) -> None:
    slopes, fits = (read_rows(results / f"{name}.csv") for name in ("slopes", "fits"))
    figure = shift(of_measure(results, "shift"), slopes, tmp_path / "shift")
    shown = texts(figure)
    assert len(figure.axes) == 5 and all(name in shown for name in MODELS)
    assert "TPM by r̂ (D3) (%)" in shown and "slope on judge's r̂" in shown and "6 prompts × 2 seeds" in shown
    slopes_drawn = [c for c in figure.axes[-1].containers]
    assert len(slopes_drawn) == len(slopes)
    without = shift(of_measure(results, "shift"), [], tmp_path / "without")
    assert len(without.axes) == 4
    figure = repeats(of_measure(results, "repeats"), fits, tmp_path / "repeats")
    shown = texts(figure)
    assert len(figure.axes) == 2 * 4 and "repeats of one token" in shown and "KL(π‖π₀), first token (nats)" in shown
    assert shown.count("π and π₀ do not differ") == 1  # λ of dpo_hot


def test_answers_are_drawn(results: Path, tmp_path: Path) -> None:
    found = grouped_answers([row for run in MODELS for row in answers(run)])
    figure = reliabilities(
        {run: of_seeds for (run, _), of_seeds in found.items()}, dict.fromkeys(MODELS, 0.125), 4, tmp_path / "r"
    )
    shown = texts(figure)
    assert "dpo\nECE 0.125" in shown and "12 questions × 2 seeds; 4 bins" in shown
    first = found["base", "made"]
    weights = [bar.get_height() for bar in figure.axes[1].patches]
    confidence = np.concatenate([one.confidence for one in first])
    assert weights == pytest.approx(np.histogram(confidence, bins=4, range=(0, 1))[0] / len(confidence))
    cells = read_csv(results / "coverage.csv")
    figure = coverage(cells, LOOK, tmp_path / "coverage")
    shown = texts(figure)
    assert all(name in shown for name in MODELS) and "all problems (n = 5)" in shown and "best of k by r̂ (%)" in shown
    line = next(line for line in figure.axes[0].lines if line.get_label() == "dpo")
    expected = [cell(results, "dpo", f"pass/all/{k}", "coverage")["estimate"] for k in (1, 2, 4)]
    assert np.asarray(line.get_xydata()).T.tolist() == [[1, 2, 4], expected]


def test_policies_that_differ_in_one_number_are_one_line() -> None:
    suite = load_suite("spl_smoke", Path(__file__).resolve().parents[1])
    assert isinstance(suite, SplSuite)
    assert sweeps(suite) == [["dpo", "dpo_warm"]]
    (run,) = (run for name, run in suite.runs.items() if name == "spl")
    others = {
        name: run.model_copy(update={"parameters": {"alpha": alpha, "beta": beta}})
        for name, alpha, beta in [("far", 1.1, 0.1), ("near", 0.11, 0.1), ("small", 0.11, 0.01)]
    }
    longer = {"longer": run.model_copy(update={"optimisation": run.optimisation.model_copy(update={"steps": 5})})}
    more = suite.model_copy(update={"runs": suite.runs | others | longer})
    assert sweeps(more) == [["dpo", "dpo_warm"], ["near", "spl", "far"]]
