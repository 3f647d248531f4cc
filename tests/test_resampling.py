"""prefdist.evaluation.resampling against every resample enumerated, and against the normal interval."""

import itertools
import math

import numpy as np
import pytest

from prefdist.evaluation.resampling import bootstrap, draw_counts, percentile_interval


def test_interval_of_a_median_is_that_of_all_resamples() -> None:
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    medians = [np.median(values[list(index)]) for index in itertools.product(range(5), repeat=5)]
    found = bootstrap(lambda index: np.median(values[index]), 5, resamples=4000, confidence=0.8)
    assert found.value == 4.0
    # A median of five takes five values only: the percentiles of 4000 resamples are exactly those of all 3125.
    assert (found.low, found.high) == tuple(np.quantile(medians, (0.1, 0.9)))
    assert found.units == 5


def test_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    found = bootstrap(lambda index: values[index].mean(), 400, resamples=4000)
    half = 1.959964 * values.std() / 20
    # A 2.5 % quantile of 4000 draws has a standard error of √(0.025·0.975/4000)/φ(1.96) = 0.042 standard deviations.
    assert found.low == pytest.approx(values.mean() - half, abs=0.08 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.08 * half)


def test_entries_of_an_array_share_their_resamples_and_seeds_repeat_them() -> None:
    values = np.random.default_rng(1).normal(size=(30, 3))
    together = bootstrap(lambda index: values[index].mean(axis=0), 30, seed=5)
    alone = bootstrap(lambda index: values[index, 2].mean(), 30, seed=5)
    assert together.low.shape == (3,)
    assert together.low[2] == pytest.approx(float(alone.low), abs=1e-12)  # sums in another order
    other = bootstrap(lambda index: values[index, 2].mean(), 30, seed=6)
    assert other.low != alone.low


def test_resamples_without_a_value_do_not_count() -> None:
    values = np.array([np.nan, 1.0, 3.0])

    def mean_if_complete(index: np.ndarray) -> np.ndarray:
        return np.array([values[index].mean(), np.nan])

    found = bootstrap(mean_if_complete, 3, confidence=0.5)
    # Of the 8 resamples of the last two units, one is all 1, one is all 3: 1, 5/3 (3 of 8), 7/3 (3 of 8), 3.
    assert math.isnan(found.value[0])
    assert (found.low[0], found.high[0]) == pytest.approx((5 / 3, 7 / 3))
    assert np.isnan([found.low[1], found.high[1]]).all()


def test_one_unit_has_no_interval_and_none_is_an_error() -> None:
    found = bootstrap(lambda index: float(index.size), 1)
    assert found.value == 1.0
    assert np.isnan([found.low, found.high]).all()
    with pytest.raises(ValueError, match="at least one unit"):
        bootstrap(lambda index: 0.0, 0)


def test_percentiles_by_hand() -> None:
    replicates = np.stack([np.arange(101.0), np.full(101, np.nan)], axis=1)
    low, high = percentile_interval(replicates, 0.9)
    assert low == pytest.approx([5.0, np.nan], nan_ok=True)
    assert high == pytest.approx([95.0, np.nan], nan_ok=True)


def test_counts_are_multinomial() -> None:
    counts = draw_counts(20_000, 4, np.random.default_rng(2))
    assert (counts.sum(axis=1) == 4).all()
    expected = 4 * (np.eye(4) / 4 - 1 / 16)  # covariance of four draws among four
    assert np.cov(counts.T) == pytest.approx(expected, abs=0.04)  # standard errors are 0.01 and less
