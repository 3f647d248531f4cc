"""prefdist.exact: labelled pairs of a reference, two responses by hand, win rates by loops."""

import math
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from studies import written_again

from prefdist.exact.annotators import ANNOTATORS, Annotated, random_annotated
from prefdist.exact.studies.chosen_rejected import chosen_rejected, run

TAUS = (1.0, 1.5, 11.0)


def tensor(*values: object) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two(reference: float, preference: float) -> Annotated:
    return Annotated.learn(tensor([reference, 1 - reference]), tensor([[0.5, preference], [1 - preference, 0.5]]))


def test_two_responses_by_hand() -> None:
    # Odds of the first under SPL at α = 1, β = 0.1: 9^0.1·1.5. It beats p_ref at 0.9·0.5 + 0.1·0.6, the other at 0.41.
    odds = 9**0.1 * 1.5
    first = odds / (1 + odds)
    world = two(0.9, 0.6)
    assert float(world.tuned(0.1, 10)[0, 0].exp()) == pytest.approx(first, abs=1e-10)  # of the fit
    assert float(world.tuned_win_rate(0.1, 10)) == pytest.approx(first * 0.51 + (1 - first) * 0.41, abs=1e-10)
    assert float(world.tuned_win_rate(0.1, 10)) < 0.5 < float(world.tuned_win_rate(0.1, 1))


@settings(max_examples=30, deadline=None)
@given(
    reference=st.floats(0.55, 0.95), preference=st.floats(0.55, 0.95), beta=st.floats(0.05, 2), over=st.sampled_from([0.9, 1.1])
)
def test_two_responses_lose_from_the_threshold_on(reference: float, preference: float, beta: float, over: float) -> None:
    # π odds = L^{1/τ}·ℓ^{1/α} < L, hence ln ℓ < (α − β)·ln L with L, ℓ the odds of the reference and of the preference.
    bonus = math.log(preference / (1 - preference)) / math.log(reference / (1 - reference))
    lost = two(reference, preference).tuned_win_rate(beta, 1 + over * bonus / beta) < 0.5
    assert bool(lost) == (over > 1)


@pytest.mark.parametrize("annotator", ANNOTATORS)
def test_pairs_against_loops(annotator: str) -> None:
    world = random_annotated(1, 4, annotator, generator(1))
    p, wins = world.reference[0].numpy(), world.preference[0].numpy()
    chosen, rejected = np.zeros(4), np.zeros(4)
    for a, b in product(range(4), repeat=2):  # two draws, in order; a wins with probability wins[a, b]
        for winner, loser, chance in ((a, b, wins[a, b]), (b, a, wins[b, a])):
            chosen[winner] += p[a] * p[b] * chance
            rejected[loser] += p[a] * p[b] * chance
    mixtures = world.mixtures
    np.testing.assert_allclose(mixtures.aligned[0], chosen, atol=1e-15)
    np.testing.assert_allclose(mixtures.unaligned[0], rejected, atol=1e-15)
    np.testing.assert_allclose((chosen + rejected) / 2, p, atol=1e-15)
    np.testing.assert_allclose(mixtures.responsibility[0], world.win_rate[0], atol=1e-15)

    def loss(scores: np.ndarray) -> float:
        return float((np.outer(p, p) * wins * np.logaddexp(0, scores[None] - scores[:, None])).sum())

    reward = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-10}).x
    # The minimiser's differences of the loss are exact to 1e-8, and its curvature is as small as p.
    np.testing.assert_allclose(world.reward[0], reward - reward.mean(), atol=1e-7 / p.min())
    for tau in TAUS:
        law = p ** (1 / tau) * np.exp(world.reward[0].numpy() / (0.3 * tau))
        law /= law.sum()
        rate = sum(law[a] * p[b] * wins[a, b] for a, b in product(range(4), repeat=2))
        assert float(world.tuned_win_rate(0.3, tau)) == pytest.approx(rate, abs=1e-13)
        assert float(world.win_rate_by_pairs(0.3, tau)) == pytest.approx(rate, abs=1e-13)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    outputs=st.integers(2, 8),
    annotator=st.sampled_from(sorted(ANNOTATORS)),
    beta=st.sampled_from([0.02, 0.3, 3.0, 30.0]),
)
def test_tuned_model_never_loses(seed: int, outputs: int, annotator: str, beta: float) -> None:
    drawn = random_annotated(20, outputs, annotator, generator(seed))
    rate = drawn.win_rate_by_pairs(beta, tau=1)
    assert bool((rate >= 0.5 - 1e-12).all())  # rounding of sums over pairs
    torch.testing.assert_close(drawn.mixtures.aligned_mass(beta), rate, atol=1e-12, rtol=0)
    for tau in TAUS[1:]:
        assert not bool((drawn.same_order(beta, tau) & (drawn.win_rate_by_pairs(beta, tau) < 0.5 - 1e-12)).any())


def test_annotators_are_what_they_are_called() -> None:
    n = 50_000
    laws = {name: draw(n, 3, generator()) for name, draw in ANNOTATORS.items()}
    cyclic = {
        name: int((((law[:, 0, 1] > 0.5) == (law[:, 1, 2] > 0.5)) & ((law[:, 1, 2] > 0.5) == (law[:, 2, 0] > 0.5))).sum())
        for name, law in laws.items()
    }
    assert cyclic["bradley_terry"] == cyclic["noisy"] == 0
    # Two of the eight directions of three pairs are cycles; four standard errors.
    assert abs(cyclic["intransitive"] / n - 0.25) < 4 * math.sqrt(0.25 * 0.75 / n)
    for law in laws.values():
        torch.testing.assert_close(law + law.mT, torch.ones_like(law), atol=1e-15, rtol=0)
    log_odds = laws["bradley_terry"].logit()
    torch.testing.assert_close(log_odds[:, 0, 1] + log_odds[:, 1, 2], log_odds[:, 0, 2], atol=1e-10, rtol=0)  # at odds of e^7
    assert float(laws["noisy"].min()) > 0.2 and float(laws["noisy"].max()) < 0.8


def test_same_order_by_hand() -> None:
    # r differs by ln 1.5, log p_ref by ln 9: the order turns where (τ−1)·β·ln 9 > ln 1.5, at 0.1845.
    world = two(0.9, 0.6)
    assert [bool(world.same_order(0.1, tau)) for tau in (1.0, 2.84, 2.85)] == [True, True, False]


@pytest.mark.parametrize(
    ("reference", "preference", "message"),
    [
        ([0.5, 0.4], 0.6, r"reference must sum to one: off by 0.1, limit 1e-05"),
        ([1.0, 0.0], 0.6, r"reference must be > 0, got 0: a response never drawn has no reward"),
        ([0.5, 0.5], 1.2, r"preference must be in \[0, 1\]"),
    ],
)
def test_what_is_no_world_is_refused(reference: list[float], preference: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Annotated.learn(tensor(reference), tensor([[0.5, preference], [1 - preference, 0.5]]))


def test_preferences_that_do_not_sum_to_one_are_refused() -> None:
    with pytest.raises(ValueError, match=r"P\(a beats b\) \+ P\(b beats a\) = 1: off by 0.2, limit 1e-05"):
        Annotated.learn(tensor([0.5, 0.5]), tensor([[0.5, 0.6], [0.6, 0.5]]))


def test_bad_parameters_are_refused() -> None:
    with pytest.raises(ValueError, match=r"annotator must be one of bradley_terry, .*got 'human'"):
        random_annotated(1, 2, "human", generator())
    with pytest.raises(ValueError, match=r"outputs must be 2 … 1000, got 1001"):
        random_annotated(1, 1001, "noisy", generator())
    with pytest.raises(ValueError, match=r"taus must be > 1, got 1"):
        chosen_rejected(worlds=1, taus=[1.0])
    with pytest.raises(ValueError, match=r"betas must be > 0, got 0"):
        chosen_rejected(worlds=1, betas=[0.0])


def test_study_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    spec = {"worlds": 40, "outputs": [2, 3], "annotators": ["intransitive"], "betas": [0.1, 1.0], "taus": [2.0], "seed": 1}
    run(spec, {}, tmp_path, tmp_path)
    files = written_again(run, spec, tmp_path)
    assert {"chosen_rejected.csv", "chosen_rejected.md", "chosen_rejected.svg", "claims.csv"} <= set(files)


def test_verdicts_and_shares() -> None:
    study = chosen_rejected(worlds=300, outputs=[2, 3], annotators=["noisy"], betas=[0.1, 1.0], taus=[1.5, 11.0], seed=4)
    assert [claim.verdict for claim in study.claims] == ["holds", "fails", "holds"]
    # With two responses only (τ−1)·β matters, here 0.05, 0.5, 1 and 10: a world that loses goes on to lose.
    shares = [row["estimate"] for row in study.tables["chosen_rejected_spl"] if row["outputs"] == 2]
    assert shares == sorted(shares) and shares[-1] > 0.3
