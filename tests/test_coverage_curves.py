"""prefdist.evaluation.coverage against every subset of the samples, exact integers, simulation and hand-made curves."""

import itertools
import math

import numpy as np
import pytest

from prefdist.evaluation.coverage import (
    best_of_each_n,
    difficulty,
    mean_curve,
    pass_at_each_k,
    sample_efficiency,
    samples_to_reach,
)
from prefdist.evaluation.statistics import pass_at_k

# ---- curves ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 7, 128])
def test_pass_at_each_k_is_the_scalar_estimator(n: int) -> None:
    counts = range(n + 1)
    correct = np.array([[i < c for i in range(n)] for c in counts])
    exact = np.array([[pass_at_k(n, c, k) for k in range(1, n + 1)] for c in counts])
    assert pass_at_each_k(correct) == pytest.approx(exact, abs=1e-13)  # 128 float64 products


def test_pass_at_k_does_not_overflow_where_binomials_do() -> None:
    correct = np.zeros((1, 4000), dtype=bool)
    correct[0, 17] = True
    # One right sample of n is among k of them with probability k/n.
    assert pass_at_each_k(correct)[0] == pytest.approx(np.arange(1, 4001) / 4000, abs=1e-11)


@pytest.mark.parametrize("levels", [2, 3, 100])
def test_best_of_each_n_is_the_mean_over_subsets_and_ties(levels: int) -> None:
    rng = np.random.default_rng(levels)
    rewards = rng.integers(levels, size=(6, 7)).astype(float)
    rewards[0] = 1.0  # all tie
    rewards[1, 0], rewards[1, 1] = math.inf, -math.inf
    correct = rng.random((6, 7)) < 0.5
    found = best_of_each_n(rewards, correct)
    for problem, size in itertools.product(range(6), range(1, 8)):
        values = []
        for subset in itertools.combinations(range(7), size):
            best = max(rewards[problem, i] for i in subset)
            values.append(np.mean([correct[problem, i] for i in subset if rewards[problem, i] == best]))
        assert found[problem, size - 1] == pytest.approx(np.mean(values), abs=1e-13)


def test_reward_models_that_know_all_nothing_and_the_contrary() -> None:
    correct = np.random.default_rng(3).random((20, 12)) < 0.3
    assert best_of_each_n(correct, correct) == pytest.approx(pass_at_each_k(correct), abs=1e-13)
    share = correct.mean(axis=1, keepdims=True)
    assert best_of_each_n(np.zeros(correct.shape), correct) == pytest.approx(np.tile(share, (1, 12)), abs=1e-13)
    # The worst choice is right only where all N are.
    assert best_of_each_n(~correct, correct) == pytest.approx(1.0 - pass_at_each_k(~correct), abs=1e-13)


def test_best_of_n_is_unbiased_for_fresh_samples() -> None:
    # Rewards uniform, correct with probability u²: the best of N has density N·u^{N−1}, and so N/(N + 2).
    u = np.random.default_rng(4).random((40_000, 6))
    correct = np.random.default_rng(5).random(u.shape) < u**2
    sizes = np.arange(1, 7)
    assert best_of_each_n(u, correct).mean(axis=0) == pytest.approx(sizes / (sizes + 2), abs=0.01)  # 4 standard errors


def test_curves_have_intervals_over_problems() -> None:
    correct = np.random.default_rng(6).random((300, 8)) < np.random.default_rng(7).random((300, 1))
    curves = pass_at_each_k(correct)
    found = mean_curve(curves)
    half = 1.959964 * curves.std(axis=0) / math.sqrt(300)
    assert found.units == 300
    assert found.value == pytest.approx(curves.mean(axis=0))
    # Means of 300 are close to normal; percentiles of 2000 resamples err by 3 % of a half-width.
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.1)


def test_curves_refuse_what_is_no_table_of_samples() -> None:
    with pytest.raises(ValueError, match="booleans"):
        pass_at_each_k(np.ones((2, 3)))
    with pytest.raises(ValueError, match="booleans"):
        pass_at_each_k(np.ones((0, 3), dtype=bool))
    right = np.ones((2, 3), dtype=bool)
    with pytest.raises(ValueError, match="same samples"):
        best_of_each_n(np.ones((2, 4)), right)
    with pytest.raises(ValueError, match="2 rewards are NaN"):
        best_of_each_n([[0.0, math.nan, 1.0], [math.nan, 0.0, 1.0]], right)


# ---- difficulty ------------------------------------------------------------------------------------------------------


def test_difficulty_is_by_the_first_correct_sample() -> None:
    others = np.zeros((7, 100), dtype=bool)
    for problem, first in enumerate([1, 4, 5, 64, 65, 100]):  # counted from 1; the seventh is never solved
        others[problem, first - 1 :] = True
    assert difficulty(others).tolist() == ["easy", "easy", "medium", "medium", "hard", "hard", "hard"]
    assert difficulty(others, easy=1, medium=4).tolist() == ["easy", "medium"] + ["hard"] * 5
    with pytest.raises(ValueError, match="4, 64 and 63"):
        difficulty(others[:, :63])
    with pytest.raises(ValueError, match="easy <= medium"):
        difficulty(others, easy=9, medium=8)


def test_why_own_samples_bias_the_hard_split() -> None:
    # All problems are alike: by other samples the hard ones are as solvable as any, by their own they are not.
    rng = np.random.default_rng(10)
    samples = rng.random((20_000, 16)) < 0.1
    fair = pass_at_each_k(samples[:, :8])[difficulty(samples[:, 8:], easy=4, medium=8) == "hard"]
    assert fair.mean(axis=0) == pytest.approx(1.0 - 0.9 ** np.arange(1, 9), abs=0.025)  # about 8600 problems: 4.6 s.e.
    own = pass_at_each_k(samples[:, :8])[difficulty(samples[:, :8], easy=4, medium=8) == "hard"]
    assert (own == 0.0).all()


# ---- sample efficiency -----------------------------------------------------------------------------------------------


def test_samples_to_reach_by_hand() -> None:
    curve = np.array([0.2, 0.4, 0.5, 0.5, 0.9])
    assert samples_to_reach(curve, 0.1) == 1.0
    assert samples_to_reach(curve, 0.2) == 1.0
    assert samples_to_reach(curve, 0.25) == pytest.approx(1.25)
    assert samples_to_reach(curve, 0.5) == pytest.approx(3.0)
    assert samples_to_reach(curve, 0.7) == pytest.approx(4.5)
    assert samples_to_reach(curve, 0.91) == math.inf


def test_samples_to_reach_takes_the_first_crossing_of_a_curve_that_falls_again() -> None:
    assert samples_to_reach(np.array([0.2, 0.6, 0.1, 0.6]), 0.4) == pytest.approx(1.5)


def test_a_policy_needs_as_many_samples_as_itself() -> None:
    curves = pass_at_each_k(np.random.default_rng(11).random((37, 20)) < 0.05)
    found = sample_efficiency(curves, curves, 13, resamples=300)
    assert [float(found.value), float(found.low), float(found.high)] == pytest.approx([13.0] * 3)


def test_sample_efficiency_of_a_policy_with_twice_the_samples_in_one() -> None:
    # Sample j of a holds samples 2j and 2j + 1 of b: with independent samples a needs half as many.
    rng = np.random.default_rng(12)
    p = rng.random((400, 1)) * 0.1
    a, b = rng.random((400, 64)) < 1.0 - (1.0 - p) ** 2, rng.random((400, 64)) < p
    found = sample_efficiency(pass_at_each_k(a), pass_at_each_k(b), 32, resamples=400)
    assert found.low < 16.0 < found.high
    assert 12.0 < found.low < found.value < found.high < 20.0


def test_sample_efficiency_is_infinite_where_it_is_never_reached() -> None:
    solved, unsolved = np.ones((1, 4)), np.zeros((1, 4))
    never = sample_efficiency(np.repeat(unsolved, 8, 0), np.repeat(solved, 8, 0), 2, resamples=50)
    assert never.value == never.low == never.high == math.inf
    # b solves one problem of eight that a does not; resamples without it are won at once.
    b = np.concatenate([solved, np.repeat(unsolved, 7, 0)])
    sometimes = sample_efficiency(np.repeat(unsolved, 8, 0), b, 2, resamples=400)
    assert (sometimes.value, sometimes.low, sometimes.high) == (math.inf, 1.0, math.inf)


def test_sample_efficiency_pairs_problems() -> None:
    # Problems differ, policies do not: resampled apart, the ends would be far from n.
    p = np.array([0.0, 1.0] * 10)[:, None]
    curves = np.linspace(0.5, 1.0, 8) * p
    found = sample_efficiency(curves, curves * 0.99, 4, resamples=200)
    assert 3.5 < found.low <= found.value <= found.high < 4.0
    with pytest.raises(ValueError, match="same problems"):
        sample_efficiency(curves, curves[1:], 4)
    with pytest.raises(ValueError, match="n = 9"):
        sample_efficiency(curves, curves, 9)
