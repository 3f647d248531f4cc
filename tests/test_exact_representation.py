"""prefdist.exact.populations and the study `representation`: fractions by hand, SciPy, training, and voters one by one."""

import math
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from studies import written_again

from prefdist.exact.bradley_terry import fit
from prefdist.exact.optima import train
from prefdist.exact.populations import VOTERS, learned_odds, wins
from prefdist.exact.studies.representation import representation, run
from prefdist.exact.study import write
from prefdist.exact.worlds import Worlds, enumerate_space
from prefdist.objectives import load
from prefdist.style import RC

SMALL: dict[str, Any] = {
    "shares": [0.6, 0.8],
    "alphas": [1.0, 0.5],
    "betas": [0.1],
    "priors": [0.5, 0.2],
    "voted_shares": [0.55],
    "voted_alphas": [1.0, 0.1],
    "voters": [5, 2000],
    "seeds": 30,
    "types": [2, 4],
    "type_worlds": 10,
}


def share(name: str, parameters: dict[str, float], p: float, prior: float) -> float:
    """The learned P(y)."""
    odds = learned_odds(
        load(name, parameters), torch.tensor([p], dtype=torch.float64), torch.tensor([math.log(prior / (1 - prior))]).double()
    )
    return float(odds.sigmoid())


@pytest.mark.parametrize(
    ("name", "parameters", "prior", "expected"),
    [
        # p = 4/5. Uniform prior: p^{1/α} over its sum, with odds 4, 4², 4¹⁰.
        ("spl", {"alpha": 1.0, "beta": 0.1}, 0.5, Fraction(4, 5)),
        ("spl", {"alpha": 0.5, "beta": 0.1}, 0.5, Fraction(16, 17)),
        ("dpo", {"beta": 0.1}, 0.5, Fraction(4**10, 4**10 + 1)),
        # Prior odds 1/4: DPO keeps them, SPL at β/α = 2 squares them: 4²/4² of the share and 1/4² of the prior.
        ("dpo", {"beta": 1.0}, 0.2, Fraction(1, 2)),
        ("spl", {"alpha": 0.5, "beta": 1.0}, 0.2, Fraction(1, 2)),
        ("spl", {"alpha": 1.0, "beta": 2.0}, 0.2, Fraction(1, 5)),
    ],
)
def test_learned_share_by_hand(name: str, parameters: dict[str, float], prior: float, expected: Fraction) -> None:
    # The prior's odds come from a float32 logarithm here: 1e-7 of 1.4 nats.
    assert share(name, parameters, 0.8, prior) == pytest.approx(float(expected), abs=1e-7)


@settings(deadline=None, max_examples=20)
@given(
    p=st.floats(0.05, 0.95),
    prior=st.floats(-2, 2),
    alpha=st.floats(0.1, 2),
    beta=st.floats(0.01, 2),
)
def test_learned_odds_minimise_the_loss_written_down_anew(p: float, prior: float, alpha: float, beta: float) -> None:
    found = float(
        learned_odds(load("spl", {"alpha": alpha, "beta": beta}), torch.tensor([p]).double(), torch.tensor([prior]).double())
    )

    def loss(odds: float) -> float:
        logit = alpha * odds - beta * prior
        return float(p * np.logaddexp(0, -logit) + (1 - p) * np.logaddexp(0, logit))

    # SciPy sees losses to 1e-16, so its minimum to 1e-8 of the scale of odds, here some tens of nats.
    expected = minimize_scalar(loss, bracket=(found - 1, found + 2), tol=1e-12).x
    assert found == pytest.approx(expected, abs=1e-5)


def test_training_on_lucean_voters_represents_all_types() -> None:
    """SPL at α = 1 trained by gradients on three responses, from a prior that β → 0 makes it forget."""
    shares = torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64)
    uniform = torch.zeros(1, 1, 3, dtype=torch.float64)
    worlds = Worlds(enumerate_space(3, 1), 1.0, 1, uniform, shares.log(), uniform.log_softmax(-1)[:, 0])
    trained = train(load("spl", {"alpha": 1.0, "beta": 0.1}), worlds).exp()
    torch.testing.assert_close(trained, shares, atol=1e-8, rtol=0)  # the last step of training is below 1e-9 nats


@pytest.mark.parametrize("voters", VOTERS)
def test_wins_are_votes_counted_one_by_one(voters: str) -> None:
    """Ten voters of three types compare every pair; a coin counts half for each side."""
    favourites = [0] * 5 + [1] * 3 + [2] * 2
    votes = np.zeros((3, 3))
    for favourite in favourites:
        for a, b in combinations(range(3), 2):
            if voters == "Luce":
                for won, lost in ((a, b), (b, a)):
                    votes[won, lost] += favourites.count(won) / (favourites.count(won) + favourites.count(lost))
            elif favourite in (a, b):
                votes[favourite, a + b - favourite] += 1
            elif voters == "favourite, ties at random":
                votes[a, b] += 0.5
                votes[b, a] += 0.5
    found = wins(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), voters).numpy()
    np.fill_diagonal(found, 0)
    np.testing.assert_allclose(found, votes / 10, atol=1e-15)


def test_coins_flatten_a_plurality() -> None:
    """Shares .5, .3, .2 with P(1≻2) = .6, P(1≻3) = .65, P(2≻3) = .55: scores against their own stationarity."""
    scores = fit(wins(torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64).log(), "favourite, ties at random"))
    expected = torch.sigmoid(scores.unsqueeze(-1) - scores.unsqueeze(-2))
    # Bradley-Terry matches every response's expected wins: .6 + .65, .4 + .55, .35 + .45.
    gained = expected.sum(-1) - 0.5
    torch.testing.assert_close(gained, torch.tensor([1.25, 0.95, 0.8], dtype=torch.float64), atol=1e-9, rtol=0)
    learned = scores.softmax(-1)
    assert learned[0] < 0.5  # the largest type loses, and the smallest gains
    assert learned[2] > 0.2


def test_refused() -> None:
    one = torch.tensor([1.0])
    with pytest.raises(ValueError, match=r"share must lie in \(0, 1\)"):
        learned_odds(load("dpo"), one, one)
    with pytest.raises(ValueError, match=r"log_shares must sum to one.*off by 0\.1.*limit"):
        wins(torch.tensor([0.5, 0.4]).log(), "Luce")
    with pytest.raises(ValueError, match="log_shares has a type with zero support"):
        wins(torch.tensor([1.0, 0.0]).log(), "Luce")
    with pytest.raises(ValueError, match=r"voters must be one of Luce; .*got majority"):
        wins(torch.tensor([0.5, 0.5]).log(), "majority")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"alphas": [0.5]}, r"alphas must hold 1, got \[0\.5\]"),
        ({"priors": [0.2]}, r"priors must hold 0\.5, got \[0\.2\]"),
        ({"types": [2]}, r"types must hold a number > 2, got \[2\]"),
    ],
)
def test_study_refuses_what_its_claims_need(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        representation(**SMALL | changed)


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = representation(**SMALL)
        write(study, tmp_path)
    verdicts = [claim.verdict for claim in study.claims]
    assert verdicts[:4] == ["holds", "holds", "holds", "holds under a uniform π₀, or β → 0"]
    assert verdicts[5] == "holds under: Luce or favourite, ties abstain"
    by_key = {(row["objective"], row["π₀(y)"], row["α"], row["β"]): row for row in study.tables["representation"]}
    # π₀(y) = .2, α = 1, β = .1, p = .8: odds 4·(1/4)^{.1}.
    assert by_key["SPL", 0.2, 1.0, 0.1]["P(y) at p=0.8"] == pytest.approx(4**0.9 / (1 + 4**0.9), abs=1e-14)
    voters = {(row["α"], row["voters"]): row for row in study.tables["representation_voters"]}
    assert voters[1.0, 2000]["estimate"] == pytest.approx(0.55, abs=5 * math.sqrt(0.55 * 0.45 / 2000 / 30))
    # Five voters: k of them for y give odds (k/(5 − k))¹⁰, so nearly a majority vote: E = P(k ≥ 3) up to 2 %.
    majority = sum(math.comb(5, k) * 0.55**k * 0.45 ** (5 - k) for k in (3, 4, 5))
    assert voters[0.1, 5]["low"] < majority < voters[0.1, 5]["high"]
    written_again(run, SMALL, tmp_path)
