"""Diversity of the responses to one prompt, against values counted by hand and other implementations."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import sacrebleu

from prefdist.evaluation.diversity import (
    FloatArray,
    distinct_ngrams,
    expectation_adjusted_distinct,
    mean_cosine_distance,
    self_bleu,
    self_bleu_signature,
    vendi_score,
)

EMBEDDING_METRICS = [mean_cosine_distance, vendi_score]


def unit(rows: FloatArray) -> FloatArray:
    lengths: FloatArray = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / lengths


def random_unit(n: int, d: int, seed: int = 0) -> FloatArray:
    return unit(np.random.default_rng(seed).normal(size=(n, d)))


def test_distinct_ngrams_counted_by_hand() -> None:
    responses = ["abab", "ba", "c"]
    assert distinct_ngrams(responses, 1) == 3 / 7
    assert distinct_ngrams(responses, 2) == 2 / 4  # ab, ba, ab and ba: none spans two responses
    assert distinct_ngrams(responses, 4) == 1.0
    assert distinct_ngrams(responses, 5) is None
    assert distinct_ngrams([[], []], 1) is None


def test_ead_counted_by_hand() -> None:
    """V = 4. Words: 3 distinct of 5, expected 4(1 − (3/4)⁵). Pairs ab, ba and bc: 3 of 3, expected 4(1 − (3/4)³) = 37/16."""
    responses = [["a", "b", "a"], ["b", "c"]]
    words, pairs = 3 / (4 - 4 * 0.75**5), 3 * 16 / 37
    assert expectation_adjusted_distinct(responses, vocabulary=4, orders=[1]) == pytest.approx(words, rel=1e-12)
    assert expectation_adjusted_distinct(responses, vocabulary=4, orders=[2]) == pytest.approx(pairs, rel=1e-12)
    both = expectation_adjusted_distinct(responses, vocabulary=4, orders=[1, 2])
    assert both == pytest.approx((words + pairs) / 2, rel=1e-12)
    assert pairs > 1  # as the docstring says it can be


def test_ead_of_uniform_words_is_one_whatever_the_length() -> None:
    """What it is for: distinct-n falls with length. D/E[D] over 200 draws has a standard error below 0.002."""
    rng = np.random.default_rng(0)
    found: dict[int, list[tuple[float, float]]] = {10: [], 80: []}
    for length, values in found.items():
        for _ in range(200):
            words = rng.integers(50, size=(4, length)).tolist()
            adjusted = expectation_adjusted_distinct(words, vocabulary=50, orders=[1])
            distinct = distinct_ngrams(words, 1)
            assert adjusted is not None
            assert distinct is not None
            values.append((adjusted, distinct))
    short, long = (np.mean(found[length], axis=0) for length in (10, 80))
    assert [short[0], long[0]] == pytest.approx([1.0, 1.0], abs=0.01)
    assert short[1] > 3 * long[1]


def test_ead_averages_one_to_five_and_has_no_value_without_a_five_gram() -> None:
    responses = [list(range(5)), [0, 1, 2]]
    counts = {1: (5, 8), 2: (4, 6), 3: (3, 4), 4: (2, 2), 5: (1, 1)}
    expected = sum(d / (1000 * (1 - 0.999**c)) for d, c in counts.values()) / 5
    assert expectation_adjusted_distinct(responses, vocabulary=1000) == pytest.approx(expected, rel=1e-12)
    assert expectation_adjusted_distinct([[0, 1, 2, 3]] * 3, vocabulary=1000) is None
    assert expectation_adjusted_distinct([[], []], vocabulary=1000) is None
    assert expectation_adjusted_distinct([[0]], vocabulary=1, orders=[1]) == 1.0


def test_ead_refuses_a_vocabulary_that_the_words_exceed() -> None:
    with pytest.raises(ValueError, match="vocabulary is 2, and the responses alone have 3"):
        expectation_adjusted_distinct([["a", "b", "c"]], vocabulary=2, orders=[1])
    with pytest.raises(ValueError, match="orders is empty"):
        expectation_adjusted_distinct([["a"]], vocabulary=2, orders=[])


def test_self_bleu_is_sacrebleu_without_the_text_itself() -> None:
    texts = ["Open the file and read it.", "Open the file.", "Close a list and sort it, then read it."]
    scores = [sacrebleu.sentence_bleu(text, [t for t in texts if t != text]).score for text in texts]
    assert min(scores) > 0
    assert self_bleu(texts) == pytest.approx(sum(scores) / 3, rel=1e-12)


def test_self_bleu_by_hand() -> None:
    """Hypothesis `a b c d`, reference `a b x d`: precisions 3/4, 1/3, smoothed 1/(2·2) and 1/(4·1); no brevity penalty.

    Symmetric, so both texts score 100·(3/4 · 1/3 · 1/4 · 1/4)^(1/4).
    """
    assert self_bleu(["a b c d", "a b x d"]) == pytest.approx(100 * (1 / 64) ** 0.25, rel=1e-9)


def test_self_bleu_of_edge_cases() -> None:
    assert self_bleu(["alone"]) is None
    assert self_bleu([]) is None
    # sacreBLEU's 100 has a rounding error of 4e-14.
    assert self_bleu(["Yes.", "Yes."]) == pytest.approx(100, rel=1e-12)
    assert self_bleu(["one two", "three four"]) == 0
    assert self_bleu(["", " \n"]) == 100
    assert self_bleu(["", "Yes."]) == 0
    assert self_bleu(["", "", "Yes.", "Yes."]) == pytest.approx(100, rel=1e-12)


def test_self_bleu_signature_names_references_and_version() -> None:
    signature = self_bleu_signature(16)
    assert signature == f"nrefs:15|case:mixed|eff:yes|tok:13a|smooth:exp|version:{sacrebleu.__version__}"


def test_cosine_distance_by_hand_and_by_spls_double_sum() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    assert mean_cosine_distance(rows) == pytest.approx((1 + 2 + 1) / 3, rel=1e-12)
    many = random_unit(16, 5)
    double_sum = sum(1 - float(a @ b) for a in many for b in many) / 16**2
    mean = mean_cosine_distance(many)
    assert mean is not None
    assert double_sum == pytest.approx(mean * 15 / 16, rel=1e-12)


def test_cosine_distance_of_equal_rows_is_exactly_zero() -> None:
    assert mean_cosine_distance(np.tile(random_unit(1, 7), (4, 1))) == 0.0
    assert mean_cosine_distance(random_unit(1, 7)) is None


def test_vendi_score_counts_groups() -> None:
    axes = np.eye(4)
    assert vendi_score(axes) == pytest.approx(4, rel=1e-12)
    assert vendi_score(axes[[0, 0, 0]]) == pytest.approx(1, rel=1e-12)
    assert vendi_score(axes[:1]) == pytest.approx(1, rel=1e-12)
    shares = np.array([5, 2, 1]) / 8  # the eigenvalues, where rows are equal or orthogonal
    grouped = axes[[0] * 5 + [1] * 2 + [2]]
    assert vendi_score(grouped) == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-12)


def test_vendi_score_of_two_by_its_closed_form() -> None:
    """K/2 has eigenvalues (1 ± c)/2 with c the cosine."""
    c = 0.3
    p = np.array([1 + c, 1 - c]) / 2
    rows = np.array([[1.0, 0.0], [c, math.sqrt(1 - c * c)]])
    assert vendi_score(rows) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-12)


def test_vendi_score_from_the_other_side() -> None:
    """XXᵀ/N and XᵀX/N have the same eigenvalues other than 0, so squared singular values give it too."""
    rows = random_unit(16, 5)
    p = np.linalg.svd(rows, compute_uv=False) ** 2 / 16
    assert vendi_score(rows) == pytest.approx(math.exp(-(p * np.log(p)).sum()), rel=1e-10)


@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_embedding_metrics_ignore_rotation_order_and_the_last_digits(metric: Callable[[FloatArray], float]) -> None:
    rows = random_unit(8, 4)
    rotation, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(4, 4)))
    value = metric(rows)
    assert metric(rows @ rotation) == pytest.approx(value, rel=1e-12)
    assert metric(rows[::-1]) == pytest.approx(value, rel=1e-12)
    assert metric(rows.astype(np.float32)) == pytest.approx(value, rel=1e-6)  # 8 digits of a float32


@pytest.mark.parametrize("metric", EMBEDDING_METRICS)
def test_embedding_metrics_refuse_what_is_no_unit_vector(metric: Callable[[FloatArray], float]) -> None:
    rows = random_unit(3, 4)
    rows[1] *= 2
    with pytest.raises(ValueError, match="unit vectors; row 1 is not"):
        metric(rows)
    with pytest.raises(ValueError, match="unit vectors; row 0 is not"):
        metric(np.zeros((2, 3)))
    for shape in ((0, 3), (3,)):
        with pytest.raises(ValueError, match=r"must be \[N, d\] with N >= 1"):
            metric(np.ones(shape))
