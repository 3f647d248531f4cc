"""prefdist.exact.pairs: the law of a pair in fractions, counts that nest, their means and variances."""

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdist.exact.pairs import count_wins, law_of_wins

MU = torch.tensor([[0.75, 0.25]], dtype=torch.float64).log()
REWARD = torch.tensor([[math.log(3), 0.0]], dtype=torch.float64)  # the first wins 3 of 4


def test_law_of_two_responses_in_fractions() -> None:
    twice = [Fraction(3, 4) ** 2, Fraction(1, 4) ** 2]
    met = 2 * Fraction(3, 4) * Fraction(1, 4)
    expected = [[twice[0], met * Fraction(3, 4)], [met * Fraction(1, 4), twice[1]]]
    assert sum(map(sum, expected)) == 1
    found = law_of_wins(MU, REWARD)[0].tolist()
    assert [x for row in found for x in row] == pytest.approx([float(x) for row in expected for x in row], abs=1e-15)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), contexts=st.integers(1, 4), actions=st.integers(1, 6), scale=st.floats(0, 20))
def test_law_is_one(seed: int, contexts: int, actions: int, scale: float) -> None:
    """Contexts are equally likely, first responses follow μ, and odds of a label are e^Δr."""
    generator = torch.Generator().manual_seed(seed)
    logits, reward = torch.randn((2, 3, contexts, actions), generator=generator, dtype=torch.float64)
    log_mu, reward = logits.log_softmax(-1), scale * reward
    law = law_of_wins(log_mu, reward)
    ones = torch.full((3, contexts), 1 / contexts, dtype=torch.float64)
    torch.testing.assert_close(law.sum((-1, -2)), ones, atol=1e-14, rtol=0)  # sums of 36 terms
    drawn = (law + law.mT).sum(-1) / 2 * contexts
    torch.testing.assert_close(drawn, log_mu.exp(), atol=1e-14, rtol=0)
    odds = law.log() - law.mT.log()
    # Logarithms of probabilities down to e^{−100}: relative rounding of 1e-14.
    torch.testing.assert_close(odds, reward.unsqueeze(-1) - reward.unsqueeze(-2), atol=1e-12, rtol=1e-12)


def test_fewer_pairs_are_a_prefix() -> None:
    law = law_of_wins(MU, REWARD).expand(2, 1, 2, 2)
    seeds = [(0, 0), (1, 0)]
    few, more, most = count_wins(law, [10, 11, 5000], seeds)
    assert few.sum((1, 2, 3)).tolist() == [10, 10]
    assert most.sum((1, 2, 3)).tolist() == [5000, 5000]
    assert (more - few).sum((1, 2, 3)).tolist() == [1, 1]
    assert bool((more >= few).all() and (most >= more).all())
    assert torch.equal(count_wins(law, [10], seeds)[0], few)  # the same whatever is drawn later
    assert torch.equal(count_wins(law[:1], [10, 11, 5000], seeds[1:])[2, 0], most[1])  # whatever other seeds draw
    assert not torch.equal(most[0], most[1])
    assert not torch.equal(count_wins(law, [5000], [(0, 1), (1, 1)])[0], most)


def test_counts_follow_the_law() -> None:
    law = law_of_wins(MU, REWARD)
    n, seeds = 1000, 2000
    drawn = count_wins(law.expand(seeds, 1, 2, 2), [400, n], [(seed, 7) for seed in range(seeds)])
    p = law[0]
    for count, size in ((drawn[0], 400), (drawn[1], n), (drawn[1] - drawn[0], n - 400)):
        sigma = (size * p * (1 - p)).sqrt()
        # Means of 2000 seeds stray by σ/√2000; five of that is one in a million. Variances stray by √(2/2000) = 3 %.
        assert bool(((count[:, 0].mean(0) - size * p).abs() <= 5 * sigma / math.sqrt(seeds)).all())
        assert bool(((count[:, 0].var(0) / sigma**2 - 1).abs() <= 5 * math.sqrt(2 / seeds)).all())


def test_refused() -> None:
    law = law_of_wins(MU, REWARD).unsqueeze(0)
    with pytest.raises(ValueError, match=r"sizes must be ≥ 0 and must not fall, got \[10, 5\]"):
        count_wins(law, [10, 5], [(0, 0)])
    with pytest.raises(ValueError, match=r"sizes must be ≥ 0 and must not fall, got \[-1\]"):
        count_wins(law, [-1], [(0, 0)])
    with pytest.raises(ValueError, match="seeds must be as many as laws, got 2 for 1"):
        count_wins(law, [1], [(0, 0), (1, 0)])
    with pytest.raises(ValueError, match=r"log_mu must sum to one over its last axis: off by 0\.5"):
        law_of_wins(MU - math.log(2), REWARD)
    with pytest.raises(ValueError, match="reward must be finite"):
        law_of_wins(MU, REWARD.log())
