"""prefdist.exact.temperatures and the study `temperature`: fractions by hand, and the toy model's responses one by one."""

import math
from fractions import Fraction
from itertools import product
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from studies import written_again

from prefdist.exact.studies.temperature import _example, run, temperature
from prefdist.exact.study import write
from prefdist.exact.temperatures import (
    ToyModel,
    at_global_temperature,
    at_token_temperature,
    expected_length,
    log_partition,
)
from prefdist.exact.worlds import enumerate_space
from prefdist.style import RC

SMALL: dict[str, Any] = {
    "vocabulary": 3,
    "lengths": [1, 2, 3],
    "worlds": 10,
    "spread": 1.0,
    "taus": [0.5, 1.0, 2.0],
    "beta": 0.1,
    "toy_vocabulary": 3,
    "toy_stop": 0.05,
    "toy_taus": [1.0, 1.02, 1.05, 1.1],
    "longest": [50, 200],
}


def one(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_two_tokens_by_hand() -> None:
    """τ = ½ squares probabilities: first token .36·(.81 + .01) against .16·(.25 + .25), and .36 against .16."""
    row = _example(0.5)
    whole = [Fraction(36, 100) * Fraction(82, 100), Fraction(16, 100) * Fraction(1, 2)]
    assert row["P(first token = 1), global"] == pytest.approx(float(whole[0] / sum(whole)), abs=1e-15)
    assert row["P(first token = 1), token"] == pytest.approx(float(Fraction(36, 52)), abs=1e-15)
    # τ = 3/2, written with powers: .6^{2/3}·(.9^{2/3} + .1^{2/3}) against .4^{2/3}·2·.5^{2/3}.
    power = 2 / 3
    first, second = 0.6**power * (0.9**power + 0.1**power), 0.4**power * 2 * 0.5**power
    row = _example(1.5)
    assert row["P(first token = 1), global"] == pytest.approx(first / (first + second), abs=1e-14)
    assert row["P(first token = 1), token"] == pytest.approx(0.6**power / (0.6**power + 0.4**power), abs=1e-14)


@settings(deadline=None, max_examples=25)
@given(vocabulary=st.integers(2, 4), length=st.integers(1, 3), tau=st.floats(0.3, 12), seed=st.integers(0, 1000))
def test_temperatures_against_responses_one_by_one(vocabulary: int, length: int, tau: float, seed: int) -> None:
    space = enumerate_space(vocabulary, length)
    logits = torch.randn(space.n_prefixes, vocabulary, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    p = logits.softmax(-1).numpy()
    hot = p ** (1 / tau) / (p ** (1 / tau)).sum(-1, keepdims=True)
    steps = [
        list(zip(rows[m], tokens[m], strict=True))
        for rows, tokens, m in zip(*(t.numpy() for t in (space.prefixes, space.tokens, space.mask)), strict=True)
    ]
    whole = np.array([math.prod(p[step] for step in response) for response in steps]) ** (1 / tau)
    by_token = [math.prod(hot[step] for step in response) for response in steps]
    found = at_global_temperature(space.token_logps(logits).sum(-1), tau).exp().numpy()
    # Products of at most three float64 probabilities, over sums of at most 40 of them.
    np.testing.assert_allclose(found, whole / whole.sum(), atol=1e-13)
    np.testing.assert_allclose(at_token_temperature(space, logits, tau).exp().numpy(), by_token, atol=1e-13)
    if length == 1:
        np.testing.assert_allclose(found, by_token, atol=1e-13)


@pytest.mark.parametrize("tau", [0.7, 1.0, 1.3, 3.0])
@pytest.mark.parametrize(("vocabulary", "stop", "longest"), [(2, 0.3, 6), (3, 0.05, 4)])
def test_toy_model_response_by_response(vocabulary: int, stop: float, longest: int, tau: float) -> None:
    """Every string of at most `longest` tokens, with its own probability."""
    model = ToyModel(vocabulary, stop)
    words = [word for size in range(longest + 1) for word in product(range(vocabulary), repeat=size)]
    weights = [(stop * ((1 - stop) / vocabulary) ** len(word)) ** (1 / tau) for word in words]
    mean = sum(weight * len(word) for weight, word in zip(weights, words, strict=True)) / sum(weights)
    assert float(expected_length(model.growth(one(tau)), longest)) == pytest.approx(mean, rel=1e-12)  # sums of 127 terms
    assert float(log_partition(model, one(tau), longest)) == pytest.approx(math.log(sum(weights)), abs=1e-12)
    stopped, more = stop ** (1 / tau), vocabulary * ((1 - stop) / vocabulary) ** (1 / tau)
    assert float(model.token_growth(one(tau)).exp()) == pytest.approx(more / (stopped + more), rel=1e-12)


def test_critical_temperature_is_where_the_mass_of_lengths_stops_falling() -> None:
    model = ToyModel(10, 0.01)
    root = brentq(lambda tau: 10 * (0.99 / 10) ** (1 / tau) - 1, 0.5, 2, xtol=1e-14)
    assert model.critical == pytest.approx(root, abs=1e-12)
    assert float(model.growth(one(model.critical))) == pytest.approx(0, abs=1e-14)
    below, above = (expected_length(model.growth(one(model.critical + shift)), math.inf) for shift in (-1e-6, 1e-6))
    assert math.isfinite(float(below))
    assert math.isinf(float(above))


def test_closed_forms_are_the_limits_of_long_sums() -> None:
    model, tau = ToyModel(3, 0.05), one(1.03)  # below τ_c = 1.0467: mass falls by 1.8 % a token
    assert float(expected_length(model.growth(tau), 5000)) == pytest.approx(
        float(expected_length(model.growth(tau), math.inf)), rel=1e-10
    )
    assert float(log_partition(model, tau, 5000)) == pytest.approx(float(log_partition(model, tau, math.inf)), abs=1e-10)
    assert float(log_partition(model, one(1.0), math.inf)) == pytest.approx(0, abs=1e-13)  # a distribution to begin with
    assert float(expected_length(model.growth(one(1.0)), math.inf)) == pytest.approx(19, rel=1e-12)  # (1 − q)/q


@settings(deadline=None)
@given(vocabulary=st.integers(2, 1000), stop=st.floats(1e-4, 0.9), tau=st.floats(1, 50))
def test_token_temperature_keeps_length_between_its_ends(vocabulary: int, stop: float, tau: float) -> None:
    """The odds of going on are ((1 − q)/q)^{1/τ}·V^{1 − 1/τ}, a geometric mean of both ends."""
    mean = float(expected_length(ToyModel(vocabulary, stop).token_growth(one(tau)), math.inf))
    assert mean == pytest.approx((1 / stop - 1) ** (1 / tau) * vocabulary ** (1 - 1 / tau), rel=1e-9)  # 1 − q′ near 1
    low, high = sorted((1 / stop - 1, vocabulary))
    assert low * (1 - 1e-9) <= mean <= high * (1 + 1e-9)


def test_refused() -> None:
    even = torch.tensor([0.5, 0.5]).log()
    with pytest.raises(ValueError, match="tau must be > 0, got 0"):
        at_global_temperature(even, 0.0)
    with pytest.raises(ValueError, match="tau must be > 0, got nan"):
        at_token_temperature(enumerate_space(2, 1), torch.zeros(1, 2), math.nan)
    with pytest.raises(ValueError, match="log_p must sum to one"):
        at_global_temperature(even - 1, 2.0)
    with pytest.raises(ValueError, match="longest must be a whole number of at most 100000 tokens, or infinite; got 100001"):
        expected_length(one(0.0), 100_001)
    with pytest.raises(ValueError, match="vocabulary must be > 1, got 1"):
        ToyModel(1, 0.5)
    with pytest.raises(ValueError, match=r"stop must lie in \(0, 1\), got 1"):
        ToyModel(2, 1.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"lengths": [2, 3]}, r"lengths must hold 1 and a longer one, got \[2, 3\]"),
        ({"lengths": [1]}, r"lengths must hold 1 and a longer one, got \[1\]"),
        ({"taus": [1.0]}, "taus must hold one that is not 1"),
        ({"toy_taus": [0.9, 1.1]}, r"toy_taus must be ≥ 1, got 0\.9"),
        ({"vocabulary": 20, "lengths": [1, 4]}, "137561 responses, and 10000 are the limit"),
    ],
)
def test_study_refuses_what_its_claims_need(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        temperature(**SMALL | changed)


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = temperature(**SMALL)
        write(study, tmp_path)
    assert [claim.verdict for claim in study.claims] == [
        "holds",
        "holds from two tokens on",
        "holds",
        "holds under τ < τ_c, or a maximal length",
        "holds",
    ]
    # Σ l·e^{gl}/Σ e^{gl}, l = 0 … 200, summed here token by token.
    growth = {tau: math.log(3) + math.log(0.95 / 3) / tau for tau in SMALL["toy_taus"]}
    for row in study.tables["temperature_length"]:
        if row["longest"] == 200:
            terms = [math.exp(growth[row["τ"]] * length) for length in range(201)]
            expected = sum(length * term for length, term in enumerate(terms)) / sum(terms)
            assert row["E[tokens], global"] == pytest.approx(expected, rel=1e-11)
    written_again(run, SMALL, tmp_path)
