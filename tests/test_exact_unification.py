"""prefdist.exact.notations, tilt_identities and the study `unification`: formulas by hand, and what must not be equal."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from studies import written_again

from prefdist.exact import notations, tilt
from prefdist.exact.studies.unification import _claim, run, unification
from prefdist.exact.study import write
from prefdist.exact.tilt_identities import ROUNDING, SOLVED, WRITTEN, draw
from prefdist.style import RC

SMALL: dict[str, Any] = {"sizes": [2, 5], "worlds": 6, "maximised": 2, "spread": 1.0, "weights": (0.1, 2.0)}
PRIOR = torch.tensor([[0.5, 0.25, 0.25]], dtype=torch.float64)
REWARD = torch.tensor([[0.0, math.log(2), math.log(4)]], dtype=torch.float64)


def weight(value: float) -> torch.Tensor:
    return torch.tensor([[value]], dtype=torch.float64)


def test_notations_by_hand() -> None:
    """Prior 1/2, 1/4, 1/4 and e^r = 1, 2, 4, at weights that give whole powers."""
    # β = 1: ½·1, ¼·2, ¼·4.
    torch.testing.assert_close(notations.rlhf_optimum(PRIOR, REWARD, weight(1)), PRIOR.new_tensor([[1, 1, 2]]) / 4)
    # α = ½, β = 1: π₀²·e^{2r}: ¼·1, 1/16·4, 1/16·16.
    torch.testing.assert_close(notations.spl_optimum(PRIOR, REWARD, weight(0.5), weight(1)), PRIOR.new_tensor([[1, 1, 4]]) / 6)
    # β = γ = ½: π₀^{1/2}·e^r: √2·1, 1·2, 1·4 (times ½).
    raw = PRIOR.new_tensor([[math.sqrt(2), 2, 4]])
    torch.testing.assert_close(notations.adl_optimum(PRIOR, REWARD, weight(0.5), weight(0.5)), raw / raw.sum())
    # Aligned (0, ½, ½), unaligned (1, 0, 0), α = ½: the prior is PRIOR, so that Huang's policy is that of β = 1 above.
    parts = PRIOR.new_tensor([[0, 0.5, 0.5]]), PRIOR.new_tensor([[1.0, 0, 0]])
    torch.testing.assert_close(
        notations.huang_optimum(*parts, weight(0.5), REWARD, weight(1)), PRIOR.new_tensor([[1, 1, 2]]) / 4
    )
    # π = PRIOR, γ = 2: ½² against ¼² is 4 : 1.
    assert float(notations.adl_preference(PRIOR, weight(2))[0, 0, 1]) == pytest.approx(0.8, abs=1e-15)


def test_objectives_by_hand() -> None:
    even = torch.full((1, 2), 0.5, dtype=torch.float64)
    prior, reward = even.new_tensor([[0.25, 0.75]]), even.new_tensor([[1.0, 3.0]])
    # E[r] = 2, H = ln 2, H(π, π₀) = −½·ln(3/16).
    cross = -0.5 * math.log(3 / 16)
    spl = notations.spl_objective(even, prior, reward, weight(0.3), weight(0.2))
    assert float(spl) == pytest.approx(2 + 0.3 * math.log(2) - 0.2 * cross, abs=1e-15)
    adl = notations.adl_loss(even, prior, reward, weight(0.2), weight(0.1))
    assert float(adl) == pytest.approx(-2 - 0.1 * math.log(2) + 0.2 * (cross - math.log(2)), abs=1e-15)


@settings(deadline=None, max_examples=30)
@given(alpha=st.floats(0.2, 3), beta=st.floats(0, 3), seed=st.integers(0, 1000))
def test_no_policy_beats_the_tilt(alpha: float, beta: float, seed: int) -> None:
    """SPL's objective at Dirichlet policies, SPL's α < β (ADL's γ < 0) and β = 0 included."""
    generator = np.random.default_rng(seed)
    prior = torch.from_numpy(generator.dirichlet(np.ones(4), 1))
    reward = torch.from_numpy(generator.normal(size=(1, 4)))
    best = tilt(prior.log(), reward, temperature=alpha, ref_power=beta / alpha).exp()
    others = torch.from_numpy(generator.dirichlet(np.ones(4), 200))
    value = notations.spl_objective(best, prior, reward, weight(alpha), weight(beta))
    # Rounding of sums of four terms of some nats.
    assert float((notations.spl_objective(others, prior, reward, weight(alpha), weight(beta)) - value).max()) <= 1e-12


@pytest.mark.parametrize("identity", WRITTEN + SOLVED, ids=lambda identity: identity.name)
def test_identities_hold_on_worlds_of_other_seeds_and_sizes(identity: Any) -> None:
    worlds = draw(11, 4, 1.5, (0.2, 3.0))
    assert float(identity.deviation(worlds).max()) <= identity.limit


@pytest.mark.parametrize("identity", WRITTEN + SOLVED, ids=lambda identity: identity.name)
def test_identities_notice_another_side(identity: Any) -> None:
    """The right side of a world with other weights, reward and target is far from the left one: none compares with itself."""
    worlds, other = draw(5, 4, 1.0, (0.2, 2.0)), draw(5, 8, 1.0, (0.2, 2.0))
    last = replace(other, **{name: getattr(other, name)[4:] for name in vars(other)})
    assert float(replace(identity, left=lambda _: identity.left(last)).deviation(worlds).min()) > 1e-3


def test_a_weight_taken_for_another_is_noticed() -> None:
    """ADL's α (the prior's exponent) in the place of SPL's (the entropy's weight), and RLHF at the temperature β + γ."""
    w = draw(6, 20, 1.0, (0.2, 2.0))
    right = notations.adl_optimum(w.reference, w.reward, w.beta, w.gamma)
    clash = notations.spl_optimum(w.reference, w.reward, w.beta / (w.beta + w.gamma), w.beta)
    whole_prior = notations.rlhf_optimum(w.reference, w.reward, w.beta + w.gamma)
    for wrong in (clash, whole_prior):
        assert float((wrong - right).abs().amax(-1).median()) > 0.02


def test_worlds_are_distributions_and_a_seed_is_one_world() -> None:
    three, five = draw(4, 3, 1.0, (0.1, 2.0)), draw(4, 5, 1.0, (0.1, 2.0))
    torch.testing.assert_close(five.first(3).reward, three.reward, atol=0, rtol=0)
    for law in (five.reference, five.target, five.policy):
        torch.testing.assert_close(law.sum(-1), torch.ones(5, dtype=torch.float64))
    for name in ("alpha", "beta", "gamma"):
        assert 0.1 <= float(getattr(five, name).min()) <= float(getattr(five, name).max()) <= 2.0


def test_tilt_takes_a_weight_of_each_world() -> None:
    w = draw(3, 5, 1.0, (0.1, 2.0))
    both = tilt(w.reference.log(), w.reward, temperature=w.alpha, ref_power=w.beta)
    for s in range(5):
        alone = tilt(w.reference[s].log(), w.reward[s], temperature=float(w.alpha[s]), ref_power=float(w.beta[s]))
        torch.testing.assert_close(both[s], alone, atol=0, rtol=0)
    with pytest.raises(ValueError, match="temperature must be > 0, got -1"):
        tilt(w.reference.log(), w.reward, temperature=torch.tensor([[1.0]] * 4 + [[-1.0]]), ref_power=1)


def test_refused() -> None:
    with pytest.raises(ValueError, match="weights must be a range 0 < low ≤ high, got 2 to 1"):
        draw(3, 1, 1.0, (2.0, 1.0))
    with pytest.raises(ValueError, match="maximised must be ≤ worlds, got 7 > 6"):
        unification(**SMALL | {"maximised": 7})


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = unification(**SMALL)
        write(study, tmp_path)
    assert {claim.verdict for claim in study.claims} == {"holds"}
    rows = study.tables["unification"]
    assert [row["n"] for row in rows] == [12] * len(WRITTEN) + [4] * len(SOLVED)
    assert max(row["largest deviation"] for row in rows[: len(WRITTEN)]) <= ROUNDING
    spoiled = [{**rows[0], "verdict": "different"}, *rows[1:]]
    assert _claim("optimum", spoiled).verdict == "fails"
    written_again(run, SMALL, tmp_path)
