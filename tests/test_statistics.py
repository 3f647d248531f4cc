"""prefdist.evaluation.statistics against closed forms, brute force, simulation and AlpacaEval's published numbers."""

import csv
import gzip
import itertools
import math
from pathlib import Path

import numpy as np
import pytest

from prefdist.errors import UserError
from prefdist.evaluation.statistics import (
    brier_score,
    brier_scores,
    cohen_kappa,
    expected_calibration_error,
    paired_bootstrap,
    pass_at_k,
    reliability_bins,
    win_rate,
)

ALPACA_EVAL = Path(__file__).resolve().parents[2] / "shared/data/alpaca_eval"


# ---- bootstrap -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n_seeds", [1, 4])
def test_prompt_variance_alone_gives_the_normal_interval(n_seeds: int) -> None:
    prompts = np.random.default_rng(0).normal(3.0, 2.0, size=400)
    estimate = paired_bootstrap(np.tile(prompts, (n_seeds, 1)), resamples=20_000)
    half = 1.959964 * prompts.std() / math.sqrt(400)
    assert estimate.value == pytest.approx(prompts.mean())
    assert estimate.low == pytest.approx(prompts.mean() - half, abs=0.05 * half)
    assert estimate.high == pytest.approx(prompts.mean() + half, abs=0.05 * half)
    assert (estimate.n_prompts, estimate.n_seeds, estimate.n, estimate.n_missing) == (400, n_seeds, 400 * n_seeds, 0)
    assert estimate.covers_seeds == (n_seeds > 1)


def test_seed_variance_alone_is_stretched_to_the_unbiased_standard_error() -> None:
    seeds = np.random.default_rng(1).normal(size=30)
    estimate = paired_bootstrap(np.tile(seeds[:, None], (1, 5)), resamples=20_000)
    half = 1.959964 * seeds.std(ddof=1) / math.sqrt(30)
    assert (estimate.high - estimate.low) / 2 == pytest.approx(half, rel=0.05)


def test_interval_with_two_seeds_is_known_exactly() -> None:
    # Means of two draws from {0, 2} are 0, 1, 2 with probability 1/4, 1/2, 1/4: the interval is the stretched range.
    estimate = paired_bootstrap(np.array([[0.0], [2.0]]))
    assert estimate.value == 1.0
    assert estimate.low == pytest.approx(1.0 - math.sqrt(2.0))
    assert estimate.high == pytest.approx(1.0 + math.sqrt(2.0))


@pytest.mark.parametrize(
    ("n_seeds", "effects", "lowest", "highest"),
    [
        (1, (1.0, 0.0, 0.2), 0.92, 0.98),  # prompts dominate: nominal
        (2, (1.0, 0.0, 0.2), 0.92, 0.98),
        (5, (1.0, 0.1, 0.2), 0.91, 0.98),
        (2, (0.1, 1.0, 0.1), 0.55, 0.67),  # seeds dominate: (2/π)·atan(√2) = 0.61 for two of them
        (5, (0.1, 1.0, 0.1), 0.83, 0.93),
        (5, (0.1, 0.0, 1.0), 0.985, 1.0),  # noise of single cells dominates: too wide, by up to √3
    ],
)
def test_coverage(n_seeds: int, effects: tuple[float, float, float], lowest: float, highest: float) -> None:
    rng = np.random.default_rng(7)
    of_prompt, of_seed, of_cell = effects
    hits, repeats = 0, 1500
    for repeat in range(repeats):
        values = of_prompt * rng.normal(size=(1, 80)) + of_seed * rng.normal(size=(n_seeds, 1))
        estimate = paired_bootstrap(values + of_cell * rng.normal(size=(n_seeds, 80)), resamples=500, seed=repeat)
        hits += estimate.low <= 0.0 <= estimate.high
    assert lowest <= hits / repeats <= highest


def test_resampling_is_that_of_a_plain_loop() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(3, 7))
    effect = values.mean(axis=1, keepdims=True) - values.mean()
    stretched = values + (math.sqrt(3 / 2) - 1) * effect
    means = [stretched[rng.integers(3, size=3)][:, rng.integers(7, size=7)].mean() for _ in range(20_000)]
    estimate = paired_bootstrap(values, resamples=20_000)
    spread = float(np.std(means))
    assert estimate.low == pytest.approx(np.quantile(means, 0.025), abs=0.08 * spread)
    assert estimate.high == pytest.approx(np.quantile(means, 0.975), abs=0.08 * spread)


def test_pairing_removes_what_the_two_share() -> None:
    rng = np.random.default_rng(4)
    shared = 10.0 * rng.normal(size=(3, 50))
    a, b = shared + 1.0 + 0.1 * rng.normal(size=(3, 50)), shared
    estimate = paired_bootstrap(a, b)
    assert estimate == paired_bootstrap(a - b)
    assert 0.9 < estimate.low < 1.0 < estimate.high < 1.1


def test_rows_in_any_order_equal_the_array_and_pair_on_common_cells() -> None:
    values = np.random.default_rng(5).normal(size=(2, 4))
    rows = [(s, f"p{p}", float(values[s, p])) for s, p in itertools.product(range(2), range(4))]
    assert paired_bootstrap(reversed(rows)) == paired_bootstrap(values)
    zero = [(seed, f"p{p}", 0.0) for seed in (1, 2) for p in (1, 2, 3, 9)]
    assert paired_bootstrap(rows, zero) == paired_bootstrap(values[1:, 1:])


def test_no_value_is_dropped_and_counted() -> None:
    rows = [(0, "a", 1.0), (0, "b", None), (0, "c", math.nan), (1, "a", 3.0), (1, "b", math.inf), (1, "c", 8.0)]
    estimate = paired_bootstrap(rows)
    assert estimate.value == 4.0
    assert (estimate.n_prompts, estimate.n_seeds, estimate.n, estimate.n_missing) == (2, 2, 3, 3)
    nothing = paired_bootstrap([(0, "a", None)])
    assert math.isnan(nothing.value)
    assert (nothing.n, nothing.n_missing) == (0, 1)


def test_one_cell_has_no_interval() -> None:
    estimate = paired_bootstrap([(0, "a", 2.0)])
    assert estimate.value == 2.0
    assert math.isnan(estimate.low)
    assert math.isnan(estimate.high)


def test_missing_duplicate_and_disjoint_cells_are_errors() -> None:
    with pytest.raises(UserError, match=r"\(seed 1, prompt 'b'\)"):
        paired_bootstrap([(0, "a", 1.0), (0, "b", 1.0), (1, "a", 1.0)])
    with pytest.raises(UserError, match="two rows for seed 0, prompt 'a'"):
        paired_bootstrap([(0, "a", 1.0), (0, "a", 1.0)])
    with pytest.raises(UserError, match="in common"):
        paired_bootstrap([(0, "a", 1.0)], [(0, "b", 1.0)])
    with pytest.raises(ValueError, match="one shape"):
        paired_bootstrap(np.zeros((2, 3)), np.zeros((2, 4)))
    with pytest.raises(ValueError, match="seeds, prompts"):
        paired_bootstrap(np.zeros(3))


# ---- win rate --------------------------------------------------------------------------------------------------------


def test_win_rate_by_hand() -> None:
    result = win_rate([2.0, 1.0, 1.5, 0.0, 1.75, None, math.nan])
    soft = np.array([1.0, 0.0, 0.5, 0.5, 0.75])
    assert result.estimate == pytest.approx(55.0)
    assert result.standard_error == pytest.approx(100.0 * soft.std(ddof=1) / math.sqrt(5))
    assert (result.n_wins, result.n_wins_base, result.n_draws, result.n_total, result.n_missing) == (2, 1, 2, 5, 2)


def test_win_rate_refuses_what_is_no_preference() -> None:
    with pytest.raises(UserError, match=r"0\.5"):
        win_rate([1.0, 0.5])
    with pytest.raises(UserError, match="no preference"):
        win_rate([None])


@pytest.mark.skipif(not ALPACA_EVAL.is_dir(), reason="AlpacaEval's annotations are not beside this checkout")
def test_win_rate_is_that_of_the_published_leaderboard() -> None:
    preferences: dict[str, list[float | None]] = {}
    with gzip.open(ALPACA_EVAL / "ae2_preferences_12_models.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            value = float(row["preference"]) if row["preference"] else None
            preferences.setdefault(row["model"], []).append(value)
    with (ALPACA_EVAL / "ae2_published_12_models.csv").open() as file:
        published = list(csv.DictReader(file))
    assert len(published) == len(preferences) == 12
    for row in published:
        result = win_rate(preferences[row["model"]])
        assert result.estimate == pytest.approx(float(row["win_rate"]), abs=1e-9)
        assert result.standard_error == pytest.approx(float(row["standard_error"]), abs=1e-9)
        counts = [result.n_wins, result.n_wins_base, result.n_draws, result.n_total]
        assert counts == [int(row[name]) for name in ("n_wins", "n_wins_base", "n_draws", "n_total")]


# ---- pass@k, kappa ---------------------------------------------------------------------------------------------------


def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample() -> None:
    for n, c, k in [(5, 0, 2), (5, 2, 2), (6, 1, 3), (6, 4, 3), (4, 4, 1), (7, 3, 7)]:
        subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))
    assert pass_at_k(128, 6, 16) == pytest.approx(0.559, abs=5e-4)  # 1 − C(122, 16)/C(128, 16)
    with pytest.raises(ValueError, match="k=9"):
        pass_at_k(8, 1, 9)


def test_cohen_kappa_of_a_textbook_table() -> None:
    # 20 both yes, 5 yes-no, 10 no-yes, 15 both no: observed 0.7, expected 0.5·0.6 + 0.5·0.4 = 0.5.
    pairs = [("y", "y")] * 20 + [("y", "n")] * 5 + [("n", "y")] * 10 + [("n", "n")] * 15
    a, b = zip(*pairs, strict=True)
    assert cohen_kappa(a, b) == pytest.approx(0.4)
    assert cohen_kappa(a, a) == 1.0
    assert cohen_kappa([0, 1], [1, 0]) == -1.0
    assert cohen_kappa(["y", None, (1, 2)], ["y", None, (1, 2)]) == 1.0  # labels of any kind
    assert math.isnan(cohen_kappa([1, 1], [1, 1]))
    with pytest.raises(ValueError, match="same items"):
        cohen_kappa([1], [1, 2])


def test_cohen_kappa_where_a_rater_lacks_labels() -> None:
    # a knows y and n only. Observed 3/5, expected 3/5·2/5 + 2/5·1/5 = 8/25: c and t add nothing.
    assert cohen_kappa("yyynn", "yyctn") == pytest.approx((3 / 5 - 8 / 25) / (1 - 8 / 25))
    assert cohen_kappa("yyct", "yyyy") == 0.0  # a rater of one label agrees as chance does
    assert cohen_kappa("yy", "nn") == 0.0  # no label in common: nothing observed, nothing expected


# ---- calibration -----------------------------------------------------------------------------------------------------


def test_ece_by_hand() -> None:
    confidence, correct = [0.1, 0.15, 0.6, 0.7, 1.0], [0, 1, 1, 0, 1]
    # Two bins of equal width: [0, .5) holds 2 (mean .125, accuracy .5), [.5, 1] holds 3 (mean 2.3/3, accuracy 2/3).
    expected = (2 * 0.375 + 3 * (2.3 / 3 - 2 / 3)) / 5
    assert expected_calibration_error(confidence, correct, bins=2) == pytest.approx(expected)
    bins = reliability_bins(confidence, correct, bins=4)
    assert bins.count.tolist() == [2, 0, 2, 1]
    assert np.isnan(bins.accuracy[1])
    assert bins.accuracy[[0, 2, 3]] == pytest.approx([0.5, 0.5, 1.0])


def test_equal_mass_bins_hold_equally_many_and_never_part_ties() -> None:
    p = np.random.default_rng(0).beta(5, 1, size=1000)
    hit = np.random.default_rng(1).random(1000) < p
    assert reliability_bins(p, hit, bins=10, scheme="mass").count.tolist() == [100] * 10
    tied = reliability_bins([0.3] * 4 + [0.8] * 2, [1, 0, 0, 0, 1, 1], bins=3, scheme="mass")
    assert tied.count.sum() == 6
    assert tied.ece == pytest.approx((4 * 0.05 + 2 * 0.2) / 6)
    constant = reliability_bins([0.5] * 4, [1, 0, 1, 1], bins=3, scheme="mass")
    assert constant.ece == pytest.approx(0.25)


def test_ece_of_a_calibrated_and_of_an_overconfident_forecaster() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(50_000)
    assert expected_calibration_error(p, rng.random(50_000) < p) < 0.015
    assert expected_calibration_error(np.full(50_000, 0.9), rng.random(50_000) < 0.6) == pytest.approx(0.3, abs=0.01)


def test_brier_score_by_hand() -> None:
    assert brier_score([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]], [0, 1]) == pytest.approx((0.09 + 0.04 + 0.01 + 2.0) / 2)
    assert brier_scores([[0.7, 0.2, 0.1], [0.0, 0.0, 1.0]], [0, 1]) == pytest.approx([0.14, 2.0])
    binary = np.array([0.9, 0.4])
    assert brier_scores(binary, [1, 1]) == pytest.approx([0.01, 0.36])
    assert brier_score(binary, [1, 1]) == pytest.approx((0.01 + 0.36) / 2)
    assert brier_score(np.stack([1 - binary, binary], axis=1), [1, 1]) == pytest.approx(0.01 + 0.36)


def test_calibration_refuses_what_is_no_probability() -> None:
    with pytest.raises(ValueError, match="logits"):
        expected_calibration_error([1.2], [1])
    with pytest.raises(ValueError, match="sum to 1"):
        brier_score([[0.5, 0.4]], [0])
    with pytest.raises(ValueError, match="class indices"):
        brier_score([[0.5, 0.5]], [2])
    with pytest.raises(ValueError, match="0 and 1 only"):
        reliability_bins([0.5], [2])
    with pytest.raises(ValueError, match="both be"):
        reliability_bins([0.5, 0.5], [1])
