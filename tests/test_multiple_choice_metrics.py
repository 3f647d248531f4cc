"""prefdist.evaluation.multiple_choice by hand, on simulated models with known calibration, and against brute force."""

import itertools
import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.metrics import roc_auc_score

from prefdist.data import tables
from prefdist.evaluation.calibration import expected_calibration_error
from prefdist.evaluation.multiple_choice import Answers, metrics, question_rows, reliability


def answers(probabilities: Any, gold: list[int]) -> Answers:
    with np.errstate(divide="ignore"):
        logps = np.log(np.asarray(probabilities, dtype=np.float64))
    return Answers(logps, np.array(gold), [f"q{i}" for i in range(len(gold))])


def simulated(size: int, sharpness: float, seed: int = 0) -> Answers:
    """Right options drawn from a law, answers that are this law (sharpness 1) or a sharper one; mass 0.9."""
    rng = np.random.default_rng(seed)
    law = rng.dirichlet(np.ones(4), size=size)
    gold = (rng.random((size, 1)) > law.cumsum(axis=1)).sum(axis=1).clip(max=3)
    stated = law**sharpness / (law**sharpness).sum(axis=1, keepdims=True)
    return answers(0.9 * stated, gold.tolist())


# By hand. Renormalised: (.5 .25 .25), (.8 .2), (.3 .3 .4) and (.6 .3 .1); the second question has two options.
BY_HAND = answers([[0.4, 0.2, 0.2], [0.4, 0.1, 0.0], [0.3, 0.3, 0.4], [0.06, 0.03, 0.01]], [0, 1, 2, 0])


def test_questions_by_hand() -> None:
    assert BY_HAND.probabilities[1].tolist() == pytest.approx([0.8, 0.2, 0.0])
    measured = BY_HAND.per_question
    assert measured["accuracy"].tolist() == [1.0, 0.0, 1.0, 1.0]
    assert measured["nll"] == pytest.approx(-np.log([0.5, 0.2, 0.4, 0.6]))
    assert measured["brier"] == pytest.approx([0.25 + 2 / 16, 0.64 + 0.64, 0.09 + 0.09 + 0.36, 0.16 + 0.09 + 0.01])
    assert measured["confidence"] == pytest.approx([0.5, 0.8, 0.4, 0.6])
    assert measured["mass"] == pytest.approx([0.8, 0.5, 1.0, 0.1])
    assert measured["tied"].tolist() == [0.0] * 4


def test_metrics_by_hand() -> None:
    found = metrics(BY_HAND, bins=(2,), resamples=20)
    value = {name: float(interval.value) for name, interval in found.items()}
    assert value["accuracy"] == 0.75
    assert value["mass"] == pytest.approx(0.6)
    # Bins [0, .5) with the third question, and [.5, 1] with mean confidence 1.9/3 and accuracy 2/3.
    assert value["ece_width_2"] == pytest.approx((0.6 + 3 * (2 / 3 - 1.9 / 3)) / 4)
    # Cut at the median .55: (.4, .5) are right, (.6, .8) are right once.
    assert value["ece_mass_2"] == pytest.approx((2 * 0.55 + 2 * 0.2) / 4)
    assert value["auroc"] == 0.0  # the wrong answer is the most confident
    assert all(interval.units == 4 for interval in found.values())


def test_a_tie_goes_to_the_first_option_and_is_counted() -> None:
    tied = answers([[0.3, 0.3, 0.2], [0.3, 0.3, 0.2]], [0, 1])
    assert tied.correct.tolist() == [True, False]
    assert tied.per_question["tied"].tolist() == [1.0, 1.0]


def test_auroc_is_the_share_of_pairs_in_the_right_order() -> None:
    model = simulated(60, 1.0)
    right, wrong = model.confidence[model.correct], model.confidence[~model.correct]
    pairs = [0.5 * (a == b) + (a > b) for a, b in itertools.product(right, wrong)]
    found = metrics(model, bins=(5,), resamples=50)["auroc"]
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low < found.value < found.high
    rounded = answers([[p, 1.0 - p] for p in np.repeat([0.6, 0.7, 0.8], 10)], [0, 1, 0, 0, 1] * 6)  # confidences tie
    of_sklearn = roc_auc_score(rounded.correct, rounded.confidence)
    assert metrics(rounded, bins=(5,), resamples=2)["auroc"].value == pytest.approx(of_sklearn, abs=1e-12)
    all_right = metrics(answers([[0.9, 0.1], [0.8, 0.2]], [0, 0]), bins=(5,), resamples=5)["auroc"]
    assert np.isnan([all_right.value, all_right.low, all_right.high]).all()


def test_a_calibrated_and_an_overconfident_model() -> None:
    honest, sharp = simulated(20_000, 1.0), simulated(20_000, 4.0)
    a, b = metrics(honest, bins=(15,), resamples=2), metrics(sharp, bins=(15,), resamples=2)
    assert a["accuracy"].value == b["accuracy"].value  # sharpening keeps the order of the options
    assert a["ece_width_15"].value < 0.02 < 0.15 < b["ece_width_15"].value
    assert a["ece_mass_15"].value < 0.02 < 0.15 < b["ece_mass_15"].value
    assert a["nll"].value < b["nll"].value
    assert a["brier"].value < b["brier"].value
    # Of Dirichlet(1, 1, 1, 1), the mean entropy is ψ(5) − ψ(2) = 1/2 + 1/3 + 1/4 nats, and E[Σ p²] = 2/5.
    assert a["nll"].value == pytest.approx(13 / 12, abs=0.025)  # 4 standard errors
    assert a["brier"].value == pytest.approx(1 - 2 / 5, abs=0.015)
    assert a["mass"].value == pytest.approx(0.9)


def test_intervals_of_means_are_the_normal_ones() -> None:
    model = simulated(300, 1.0)
    found = metrics(model, bins=(10,), resamples=800)
    for name in ("accuracy", "nll", "brier"):
        half = 1.959964 * model.per_question[name].std() / math.sqrt(300)
        # Percentiles of 800 resamples have a standard error of 5 % of a half-width each.
        assert (found[name].high - found[name].low) / 2 == pytest.approx(half, rel=0.14)
    again = metrics(model, bins=(10,), resamples=800)
    assert again["ece_mass_10"] == found["ece_mass_10"]


def test_bins_are_named_and_those_asked_for() -> None:
    model = simulated(50, 2.0)
    found = metrics(model, bins=(3, 10), resamples=2)
    assert [name for name in found if name.startswith("ece")] == ["ece_width_3", "ece_width_10", "ece_mass_3", "ece_mass_10"]
    expected = expected_calibration_error(model.confidence, model.correct, bins=3, scheme="mass")
    assert found["ece_mass_3"].value == expected


def test_a_diagram_has_the_bins_of_the_error() -> None:
    bins = reliability(BY_HAND, bins=2)
    assert bins.count.tolist() == [1, 3]
    assert bins.accuracy == pytest.approx([1.0, 2 / 3])
    assert bins.ece == pytest.approx(float(metrics(BY_HAND, bins=(2,), resamples=2)["ece_width_2"].value))


def test_rows_fit_the_metrics_table() -> None:
    rows = question_rows(BY_HAND, run="spl", seed=3)
    assert pa.Table.from_pylist(rows, schema=tables.METRICS).num_rows == 24
    assert {"run": "spl", "seed": 3, "prompt_id": "q1", "metric": "accuracy", "value": 0.0} in rows


def test_log_probabilities_far_below_float64s_smallest_number_count() -> None:
    model = Answers(np.array([[-1.0, -2000.0]]), np.array([1]), ["q"])
    assert model.per_question["nll"] == pytest.approx([1999.0])


def test_what_is_no_answer_is_refused() -> None:
    one = np.array([[-1.0, -2.0]])
    with pytest.raises(ValueError, match="comes twice"):
        Answers(np.repeat(one, 2, axis=0), np.array([0, 1]), ["q", "q"])
    with pytest.raises(ValueError, match="logits or probabilities"):
        Answers(np.array([[0.2, 0.8]]), np.array([0]), ["q"])
    with pytest.raises(ValueError, match="logits or probabilities"):
        Answers(np.array([[math.nan, -1.0]]), np.array([1]), ["q"])
    with pytest.raises(ValueError, match="options are 2"):
        Answers(one, np.array([2]), ["q"])
    with pytest.raises(ValueError, match="'q' is absent"):
        Answers(np.array([[-1.0, -math.inf]]), np.array([1]), ["q"])
    with pytest.raises(ValueError, match="got"):
        Answers(one, np.array([0, 1]), ["q"])
