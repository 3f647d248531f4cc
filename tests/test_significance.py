"""prefdist.evaluation.significance against the procedures step by step, every flip of signs, and simulated errors."""

import itertools
import math

import numpy as np
import pytest
from scipy.stats import ttest_1samp

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import paired_bootstrap
from prefdist.evaluation.significance import compare_all, corrected, sign_flip_p_value

# ---- corrections -----------------------------------------------------------------------------------------------------


def test_corrections_by_hand() -> None:
    p = [0.01, 0.04, 0.03, 0.005]
    # Holm, in order .005 .01 .03 .04: times 4, 3, 2, 1, then never falling: .02 .03 .06 .06
    assert corrected(p) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    # Benjamini-Hochberg: times 4/1, 4/2, 4/3, 4/4, then the smallest of this and what follows: .02 .02 .04 .04
    assert corrected(p, "benjamini_hochberg") == pytest.approx([0.02, 0.04, 0.04, 0.02])
    assert corrected([0.6, 0.9]).tolist() == [1.0, 1.0]


def test_rejections_are_those_of_the_stepwise_procedures() -> None:
    rng = np.random.default_rng(0)
    for _ in range(8):  # statsmodels collects garbage in every call
        p = rng.random(12) ** 3
        ordered, m, level = np.sort(p), 12, 0.1
        steps = ordered <= level / (m - np.arange(m))
        holm = int(np.argmin(steps)) if not steps.all() else m  # stops at the first that fails
        assert (corrected(p, "holm") <= level).sum() == holm
        passed = np.flatnonzero(ordered <= level * np.arange(1, m + 1) / m)
        hochberg = int(passed[-1]) + 1 if passed.size else 0  # goes to the last that passes
        assert (corrected(p, "benjamini_hochberg") <= level).sum() == hochberg


@pytest.mark.parametrize("bad", [[], [0.5, math.nan], [1.1], [[0.5]]])
def test_what_is_no_p_value_is_refused(bad: list[float]) -> None:
    with pytest.raises(ValueError, match="p-values"):
        corrected(bad)


# ---- sign flips ------------------------------------------------------------------------------------------------------


def test_p_value_counts_every_flip_of_signs() -> None:
    d = np.array([0.5, 1.0, -0.3, 2.0, 0.9, -1.1, 0.7, 0.25, 1.3])
    flips = [np.mean(d * signs) for signs in itertools.product([1, -1], repeat=9)]
    expected = np.mean([abs(flip) >= d.mean() - 1e-12 for flip in flips])
    assert sign_flip_p_value(d) == pytest.approx(expected)
    assert sign_flip_p_value(-d) == pytest.approx(expected)
    assert sign_flip_p_value([*d, math.nan]) == sign_flip_p_value(d)


def test_p_value_of_many_prompts_is_close_to_the_t_tests() -> None:
    noise = np.random.default_rng(1).normal(size=200)
    d = noise - noise.mean() + 2.0 * noise.std(ddof=1) / math.sqrt(200)
    t = float(ttest_1samp(d, 0.0).pvalue)
    assert t == pytest.approx(0.047, abs=5e-4)
    # 10 000 flips have a standard error of 2·√(p/2·(1 − p/2)/10⁴) = 0.003.
    assert sign_flip_p_value(d) == pytest.approx(t, abs=0.01)
    assert sign_flip_p_value(d, seed=3) == sign_flip_p_value(d, seed=3)


def test_p_value_of_no_difference_and_of_a_certain_one() -> None:
    assert sign_flip_p_value(np.zeros(30)) == 1.0
    assert sign_flip_p_value(np.ones(100), permutations=999) == pytest.approx(2 / 1000)


def test_false_rejections_are_at_the_level_for_skewed_differences_too() -> None:
    rng = np.random.default_rng(2)
    rejected = 0
    for repeat in range(300):  # the difference of two skewed values is symmetric, as the test needs
        d = rng.exponential(size=40) - rng.exponential(size=40)
        rejected += sign_flip_p_value(d, permutations=99, seed=repeat) <= 0.05
    assert 0.015 <= rejected / 300 <= 0.09  # 0.05 with a standard error of 0.013


def test_differences_must_be_a_list_with_a_value() -> None:
    with pytest.raises(ValueError, match="with a value"):
        sign_flip_p_value([math.nan])
    with pytest.raises(ValueError, match="with a value"):
        sign_flip_p_value(np.zeros((2, 2)))


# ---- all pairs -------------------------------------------------------------------------------------------------------


def test_all_pairs_are_compared_on_paired_prompts() -> None:
    rng = np.random.default_rng(3)
    prompts = 5.0 * rng.normal(size=(1, 60))
    noise = 0.5 * rng.normal(size=(3, 2, 60))
    runs = {"a": prompts + noise[0], "b": prompts + noise[1], "c": prompts + noise[2] + 0.4}
    found = compare_all(runs, permutations=999, resamples=200)
    assert [(comparison.a, comparison.b) for comparison in found] == [("a", "b"), ("a", "c"), ("b", "c")]
    for comparison in found:
        assert comparison.difference == paired_bootstrap(runs[comparison.a], runs[comparison.b], resamples=200)
        of_prompts = (runs[comparison.a] - runs[comparison.b]).mean(axis=0)
        assert comparison.p_value == sign_flip_p_value(of_prompts, permutations=999)
    p = [comparison.p_value for comparison in found]
    assert [comparison.p_corrected for comparison in found] == corrected(p).tolist()
    assert [comparison.p_corrected <= 0.05 for comparison in found] == [False, True, True]
    looser = compare_all(runs, correction="benjamini_hochberg", permutations=999, resamples=2)
    assert [comparison.p_corrected for comparison in looser] == corrected(p, "benjamini_hochberg").tolist()


def test_rows_pair_on_common_prompts_and_leave_out_what_has_no_value() -> None:
    a = [(0, "x", 1.0), (0, "y", 2.0), (0, "z", 4.0), (0, "only a", 99.0), (0, "null", None)]
    b = [(0, "z", 0.0), (0, "x", 0.0), (0, "y", 0.0), (0, "null", 1.0)]
    (found,) = compare_all({"a": iter(a), "b": b})
    assert found.difference.value == pytest.approx(7 / 3)
    assert (found.difference.n, found.difference.n_missing) == (3, 1)
    assert found.p_value == found.p_corrected == pytest.approx(2 / 8)  # all three of one sign: 2 of 8 flips


def test_comparisons_need_two_runs_with_values_in_common() -> None:
    with pytest.raises(UserError, match="two runs, got 1"):
        compare_all({"a": np.zeros((1, 3))})
    with pytest.raises(UserError, match="'a' and 'b' have no cell"):
        compare_all({"a": np.array([[1.0, np.nan]]), "b": np.array([[np.nan, 1.0]])})
