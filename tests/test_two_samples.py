"""The classifier two-sample test: equal laws, different laws, laws that differ in word order alone, and leaks by prompt."""

import numpy as np
import pytest

from prefdist.evaluation.two_samples import NGrams, Responses, classifier_test

PROMPTS, SAMPLES, LENGTH = 40, 6, 12


def draw(seed: int, law: np.ndarray, samples: int = SAMPLES) -> list[list[list[int]]]:
    """Tokens independent of each other."""
    rng = np.random.default_rng(seed)
    return rng.choice(len(law), (PROMPTS, samples, LENGTH), p=law).tolist()  # type: ignore[no-any-return]


EVEN = np.full(8, 1 / 8)
SKEWED = np.array([0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])


def test_equal_laws_are_not_told_apart() -> None:
    """20 pairs of samples: about one in twenty intervals may miss ½, and their mean is ½ to 4 of its standard errors."""
    found = [classifier_test(draw(2 * seed, EVEN), draw(2 * seed + 1, EVEN), longest_ngram=1) for seed in range(20)]
    values = np.array([f.value for f in found])
    assert values.mean() == pytest.approx(0.5, abs=4 * values.std(ddof=1) / np.sqrt(20))
    assert sum(not f.low <= 0.5 <= f.high for f in found) <= 4  # more than 4 of 20 at 5 %: once in 400


def test_different_laws_are_told_apart_as_well_as_can_be() -> None:
    """The best classifier counts token 0: its accuracy, by binomial arithmetic, is the ceiling, and is nearly reached."""
    found = classifier_test(draw(0, EVEN), draw(1, SKEWED), longest_ngram=1)
    rng = np.random.default_rng(0)
    # Likelihood ratio: more zeros than the point where (.3/.125)^k·(.7/.875)^(12−k) = 1 say "skewed".
    cut = 12 * np.log(0.875 / 0.7) / (np.log(0.3 / 0.125) + np.log(0.875 / 0.7))
    zeros = [rng.binomial(LENGTH, p, 200_000) for p in (0.125, 0.3)]
    best = ((zeros[0] < cut).mean() + (zeros[1] > cut).mean()) / 2
    assert best == pytest.approx(0.75, abs=0.05)
    assert found.low > 0.6
    assert found.value < best + 0.05
    assert (found.n_prompts, found.n) == (PROMPTS, PROMPTS)


def test_word_order_needs_longer_ngrams() -> None:
    """The same tokens, sorted on one side: counts of single tokens are equal laws, pairs are not."""
    shuffled = draw(0, EVEN)
    ordered = [[sorted(y) for y in ys] for ys in draw(1, EVEN)]
    assert classifier_test(shuffled, ordered, longest_ngram=1).high < 0.6
    assert classifier_test(shuffled, ordered, longest_ngram=2).low > 0.9


def test_what_belongs_to_a_prompt_is_not_learnt() -> None:
    """Responses of a prompt carry its own token, on one side twice: known prompts would give it away, held-out ones cannot."""
    rng = np.random.default_rng(0)
    sides = rng.permuted(np.tile([0, 1], (PROMPTS, 1)), axis=1)  # which side has the prompt's first name
    named = [[[[100 + 2 * i + int(sides[i, side])] for _ in range(SAMPLES)] for i in range(PROMPTS)] for side in (0, 1)]
    assert classifier_test(*named, longest_ngram=1).value == pytest.approx(0.5, abs=0.1)


def test_unequal_numbers_of_samples() -> None:
    """One half remains chance, and different laws are told apart no worse."""
    found = classifier_test(draw(0, EVEN, samples=2), draw(1, EVEN, samples=12), longest_ngram=1)
    assert found.low <= 0.5 <= found.high
    assert found.value == pytest.approx(0.5, abs=0.1)
    # A classifier that does not weigh the sides answers "the frequent one", and reaches .58 here.
    assert classifier_test(draw(0, EVEN, samples=2), draw(1, SKEWED, samples=12), longest_ngram=1).low > 0.65


def test_a_seed_is_a_result() -> None:
    samples = draw(0, EVEN), draw(1, SKEWED)
    assert classifier_test(*samples, seed=1) == classifier_test(*samples, seed=1)
    assert classifier_test(*samples, seed=1) != classifier_test(*samples, seed=2)


def test_ngrams() -> None:
    assert list(NGrams(2)([5, 17, 5])) == ["5", "17", "5", "5 17", "17 5"]
    assert list(NGrams(3)([1])) == ["1"]
    assert list(NGrams(2)([])) == []


@pytest.mark.parametrize(
    ("first", "second", "folds", "message"),
    [
        ([[[1]]], [[[1]], [[1]]], 2, "samples of 1 prompts cannot be told from samples of 2 others"),
        ([[[1]], [[1]]], [[[1]], [[2]]], 3, "folds must be 2 to the number of prompts, 2; got 3"),
        ([[[1]], []], [[[1]], [[2]]], 2, "prompt 1 has no response on one side"),
    ],
)
def test_refused(first: Responses, second: Responses, folds: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier_test(first, second, folds=folds)
