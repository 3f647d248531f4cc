"""prefdist.evaluation.nested_bootstrap: its variance in closed form, its relation to averaging first, its coverage."""

import math

import numpy as np
import pytest

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import paired_bootstrap
from prefdist.evaluation.nested_bootstrap import nested_bootstrap

WIDE = 2 * 1.959964  # widths of normal 0.95 intervals in standard deviations


def closed_form_variance(values: np.ndarray) -> float:
    """Of the resampled mean, [S, P, M] complete: effects of prompts, of seeds (stretched), of cells; samples in cells."""
    n_seeds, n_prompts, n_samples = values.shape
    cells = values.mean(axis=2)
    seeds, prompts = cells.mean(axis=1, keepdims=True), cells.mean(axis=0, keepdims=True)
    interaction = cells - seeds - prompts + cells.mean()
    of_seeds = seeds.var() / (n_seeds - 1) if n_seeds > 1 else 0.0
    of_cells = (interaction**2).mean() / (n_seeds * n_prompts)
    of_samples = values.var(axis=2).mean() / (n_seeds * n_prompts * n_samples)
    return float(prompts.var() / n_prompts + of_seeds + of_cells + of_samples)


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_variance_is_that_of_the_closed_form(n_seeds: int) -> None:
    rng = np.random.default_rng(n_seeds)
    values = rng.normal(size=(1, 30, 1)) + 0.5 * rng.normal(size=(n_seeds, 1, 1)) + 3.0 * rng.normal(size=(n_seeds, 30, 5))
    found = nested_bootstrap(values, resamples=4000)
    # The width of 4000 resamples has a relative standard error of about 2 %; four seeds are not quite normal.
    assert (found.high - found.low) / WIDE == pytest.approx(math.sqrt(closed_form_variance(values)), rel=0.08)
    assert found.value == pytest.approx(values.mean())
    assert (found.n, found.n_missing, found.n_prompts, found.n_seeds) == (30 * n_seeds, 0, 30, n_seeds)


def test_one_sample_a_cell_is_the_bootstrap_over_prompts_and_seeds() -> None:
    values = np.random.default_rng(0).normal(size=(3, 20))
    nested, crossed = nested_bootstrap(values[:, :, None], resamples=4000), paired_bootstrap(values, resamples=4000)
    assert nested.value == pytest.approx(crossed.value)
    half = (crossed.high - crossed.low) / 2
    assert (nested.low, nested.high) == pytest.approx(
        (crossed.low, crossed.high), abs=0.12 * half
    )  # two Monte Carlo errors of 4 %


def test_one_cell_has_the_interval_of_its_samples() -> None:
    samples = np.random.default_rng(1).normal(size=200)
    found = nested_bootstrap(samples[None, None], resamples=4000)
    assert (found.high - found.low) / WIDE == pytest.approx(samples.std() / math.sqrt(200), rel=0.07)
    assert math.isnan(nested_bootstrap(samples[None, None, :1]).low)


def test_missing_samples_are_no_values_and_cells_weigh_alike() -> None:
    values = np.full((2, 3, 4), np.nan)
    values[0, 0], values[0, 1, :2], values[1, 0, 3] = [1.0, 1.0, 1.0, 5.0], [4.0, 8.0], math.inf
    values[1, 1, 2] = 10.0
    found = nested_bootstrap(values, resamples=500)
    assert found.value == pytest.approx((2.0 + 6.0 + 10.0) / 3)
    assert (found.n, found.n_missing, found.n_prompts, found.n_seeds) == (3, 3, 2, 2)
    nothing = nested_bootstrap(np.full((1, 2, 2), np.nan))
    assert math.isnan(nothing.value)
    assert math.isnan(nothing.low)
    assert nothing.n == 0


def test_position_of_the_missing_samples_does_not_matter() -> None:
    rng = np.random.default_rng(2)
    packed = np.where(np.arange(6) < rng.integers(1, 7, size=(2, 20, 1)), rng.normal(size=(2, 20, 6)), np.nan)
    shuffled = rng.permuted(packed, axis=2)
    a, b = nested_bootstrap(packed, resamples=300), nested_bootstrap(shuffled, resamples=300)
    assert a.value == pytest.approx(b.value)
    assert (a.low, a.high) == pytest.approx((b.low, b.high))


def test_pairing_removes_seeds_and_prompts_but_not_samples() -> None:
    rng = np.random.default_rng(3)
    shared = 10.0 * rng.normal(size=(3, 50, 1)) + 10.0 * rng.normal(size=(3, 1, 1))
    a, b = shared + 1.0 + rng.normal(size=(3, 50, 6)), shared + rng.normal(size=(3, 50, 4))
    found = nested_bootstrap(a, b, resamples=4000)
    assert found.value == pytest.approx(a.mean() - b.mean())
    # a's cells and b's vary apart; the closed form of either alone holds what they share, and of neither what they do not.
    difference = a.mean(axis=2, keepdims=True) - b.mean(axis=2, keepdims=True)
    samples = (a.var(axis=2).mean() / 6 + b.var(axis=2).mean() / 4) / 150
    expected = math.sqrt(closed_form_variance(difference) + samples)
    assert (found.high - found.low) / WIDE == pytest.approx(expected, rel=0.08)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("effects", "averaged", "nested"),
    [((1.0, 1.0), (0.89, 0.97), (0.90, 0.98)), ((0.1, 3.0), (0.90, 0.98), (0.97, 1.0))],
)
def test_coverage_with_one_seed(
    effects: tuple[float, float], averaged: tuple[float, float], nested: tuple[float, float]
) -> None:
    rng = np.random.default_rng(4)
    of_prompt, of_sample = effects
    hits = np.zeros(2)
    for repeat in range(300):
        values = of_prompt * rng.normal(size=(1, 50, 1)) + of_sample * rng.normal(size=(1, 50, 8))
        first = paired_bootstrap(values.mean(axis=2), resamples=200, seed=repeat)
        both = nested_bootstrap(values, resamples=200, seed=repeat)
        hits += [first.low <= 0.0 <= first.high, both.low <= 0.0 <= both.high]
    assert averaged[0] <= hits[0] / 300 <= averaged[1]
    assert nested[0] <= hits[1] / 300 <= nested[1]


def test_what_is_no_table_of_samples_is_an_error() -> None:
    with pytest.raises(ValueError, match="seeds, prompts, samples"):
        nested_bootstrap(np.zeros((2, 3)))
    with pytest.raises(ValueError, match=r"\(2, 3, 4\) and \(2, 4, 4\)"):
        nested_bootstrap(np.zeros((2, 3, 4)), np.zeros((2, 4, 4)))
    with pytest.raises(UserError, match="in common"):
        nested_bootstrap(np.array([[[1.0], [np.nan]]]), np.array([[[np.nan], [1.0]]]))
