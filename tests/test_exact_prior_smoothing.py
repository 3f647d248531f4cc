"""prefdist.exact.smoothing and the study `prior_smoothing`: fractions, SciPy's maximiser, the objective table, derivatives."""

import math
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from studies import written_again

from prefdist.exact.closed_forms import optimum
from prefdist.exact.smoothing import divergence, entropy, loss, random_priors, smoothed, smoothed_loss
from prefdist.exact.studies.prior_smoothing import prior_smoothing, run
from prefdist.exact.study import write
from prefdist.exact.worlds import Worlds, enumerate_space
from prefdist.objectives.registry import load
from prefdist.style import RC

SMALL: dict[str, Any] = {
    "worlds": 40,
    "outputs": 12,
    "share": 0.25,
    "prior_spreads": [2.0],
    "betas": [0.0, 0.05],
    "gammas": [0.0, 0.01, 0.3],
    "seed": 0,
}
PRIOR = torch.tensor([1 / 16, 1 / 16, 1 / 2, 3 / 8], dtype=torch.float64)
REWARD = torch.tensor([0.0, 2.0, 1.0, 0.0], dtype=torch.float64) * math.log(2)


def test_optimum_in_fractions() -> None:
    """β = γ = ½: a = ½ and e^r = (1, 4, 2, 1), so p ∝ (¼, 1, √2, √⅜). β = 0, γ = 1: p ∝ (1, 4, 2, 1). γ = 0, β = 1: RLHF."""
    weights = np.array([0.25, 1, math.sqrt(2), math.sqrt(3 / 8)])
    np.testing.assert_allclose(smoothed(PRIOR.log(), REWARD, 0.5, 0.5).exp(), weights / weights.sum(), atol=1e-15)
    np.testing.assert_allclose(smoothed(PRIOR.log(), REWARD, 0.0, 1.0).exp(), np.array([1, 4, 2, 1]) / 8, atol=1e-15)
    # π₀·e^r = (1, 4, 16, 6)/16.
    np.testing.assert_allclose(smoothed(PRIOR.log(), REWARD, 1.0, 0.0).exp(), np.array([1, 4, 16, 6]) / 27, atol=1e-15)
    assert smoothed(PRIOR.log(), REWARD, 0.0, 0.0).exp().tolist() == [0, 1, 0, 0]


def test_limits() -> None:
    cold = smoothed(PRIOR.log(), REWARD, 0.0, 1e-3).exp()
    torch.testing.assert_close(cold, smoothed(PRIOR.log(), REWARD, 0.0, 0.0).exp(), atol=1e-12, rtol=0)  # e^{−693}
    hot = smoothed(PRIOR.log(), REWARD, 0.05, 1e9).exp()
    torch.testing.assert_close(hot, torch.full_like(hot, 0.25), atol=1e-8, rtol=0)  # of order r/γ


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0, 3), gamma=st.floats(0.01, 3))
def test_both_ways_to_write_the_loss(seed: int, beta: float, gamma: float) -> None:
    """Summed here term by term from −p·r + γ·Σ p ln p + β·Σ p ln(p/π₀)."""
    generator = torch.Generator().manual_seed(seed)
    logits, prior, reward = torch.randn((3, 5), generator=generator, dtype=torch.float64)
    p, log_prior = (3 * logits).softmax(-1), (3 * prior).log_softmax(-1)
    terms = [
        -q * r + gamma * q * math.log(q) + beta * q * (math.log(q) - log_q)
        for q, r, log_q in zip(p.tolist(), reward.tolist(), log_prior.tolist(), strict=True)
    ]
    # Sums of 15 terms of at most 3·20.
    assert float(loss(p, log_prior, reward, beta, gamma)) == pytest.approx(math.fsum(terms), abs=1e-12)
    assert float(smoothed_loss(p, log_prior, reward, beta, gamma)) == pytest.approx(math.fsum(terms), abs=1e-12)


@pytest.mark.parametrize(("beta", "gamma"), [(0.3, 0.1), (0.0, 0.5), (0.5, 0.0)])
def test_optimum_against_scipy(beta: float, gamma: float) -> None:
    log_prior, reward = PRIOR.log().numpy(), REWARD.numpy()

    def objective(z: np.ndarray) -> float:
        log_p = log_softmax(z)
        return float(np.exp(log_p) @ (-reward + gamma * log_p + beta * (log_p - log_prior)))

    found = log_softmax(minimize(objective, log_prior, method="BFGS", options={"gtol": 1e-10}).x)
    # A loss known to 1e-16 places its minimum to the root of that.
    np.testing.assert_allclose(smoothed(PRIOR.log(), REWARD, beta, gamma).numpy(), found, atol=3e-6)


def test_optimum_is_that_of_the_objective_table() -> None:
    generator = torch.Generator().manual_seed(1)
    reference, target, mu = torch.randn((3, 1, 6), generator=generator, dtype=torch.float64)
    space = enumerate_space(6, 1)
    log_target, log_mu = target.log_softmax(-1), mu.log_softmax(-1)
    worlds = Worlds(space, 0.3, 1, reference.unsqueeze(1), log_target, log_mu)
    equation = optimum(load("reverse_kl_rloo", {"gamma": 0.2, "beta": 0.1}).row)
    assert equation is not None
    expected = equation.solve(worlds)
    torch.testing.assert_close(smoothed(worlds.log_reference, worlds.reward, 0.1, 0.2), expected, atol=1e-14, rtol=0)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.01, 1), gamma=st.floats(0.01, 1))
def test_more_gamma_helps_where_the_wanted_are_below_the_mean(seed: int, beta: float, gamma: float) -> None:
    """d ln mass/dγ = (E[h] − E[h | wanted])/(β+γ)², h = r + β·ln π₀: by differences of γ."""
    drawn = random_priors(30, 12, 2.0, 0.34, seed)
    p = smoothed(drawn.log_prior, drawn.reward, beta, gamma).exp()
    h = drawn.reward + beta * drawn.log_prior
    inside = (p * drawn.wanted) / (p * drawn.wanted).sum(-1, keepdim=True)
    expected = ((p - inside) * h).sum(-1) / (beta + gamma) ** 2
    step = 1e-5 * (beta + gamma)
    sides = [
        (smoothed(drawn.log_prior, drawn.reward, beta, gamma + shift).exp() * drawn.wanted).sum(-1).log()
        for shift in (step, -step)
    ]
    # Central differences: 1e-10 relative, and logarithms of 1e-14 over the step, of at least 2e-7.
    scale = float(h.abs().max()) / (beta + gamma) ** 2
    torch.testing.assert_close((sides[0] - sides[1]) / (2 * step), expected, atol=1e-6 * scale, rtol=1e-5)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), beta=st.floats(0.01, 1), gamma=st.floats(0.001, 3))
def test_at_equal_temperature_smoothing_gives_to_low_priors(seed: int, beta: float, gamma: float) -> None:
    """The ratio of both policies is ∝ π₀^{−γ/(β+γ)}, so that any set of the lowest priors gains."""
    drawn = random_priors(30, 12, 3.0, 0.25, seed)
    smooth = smoothed(drawn.log_prior, drawn.reward, beta, gamma).exp()
    sharp = smoothed(drawn.log_prior, drawn.reward, beta + gamma, 0.0).exp()
    order = drawn.log_prior.argsort(-1)
    cumulated = (smooth - sharp).gather(-1, order).cumsum(-1)
    assert bool((cumulated >= -1e-12).all())  # rounding of sums of 12


def test_entropy_and_divergence_by_hand() -> None:
    p = torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64)
    q = torch.tensor([0.25, 0.5, 0.25], dtype=torch.float64)
    assert float(entropy(p)) == pytest.approx(math.log(2), abs=1e-15)
    assert float(divergence(p, q.log())) == pytest.approx(math.log(2) / 2, abs=1e-15)


def test_random_priors_mark_what_they_say() -> None:
    drawn = random_priors(30, 12, 2.0, 0.25, seed=3)
    assert 1 <= len(drawn.reward) <= 30
    for log_prior, reward, low, wanted in zip(drawn.log_prior, drawn.reward, drawn.low, drawn.wanted, strict=True):
        lowest = set(np.argsort(log_prior.numpy())[:3].tolist())
        highest = set(np.argsort(-reward.numpy())[:3].tolist())
        assert set(low.nonzero().flatten().tolist()) == lowest
        assert set(wanted.nonzero().flatten().tolist()) == lowest & highest != set()


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"beta must be ≥ 0 and finite, got -0\.1"):
        smoothed(PRIOR.log(), REWARD, -0.1, 1.0)
    with pytest.raises(ValueError, match="gamma must be ≥ 0 and finite, got inf"):
        smoothed(PRIOR.log(), REWARD, 0.1, math.inf)
    with pytest.raises(ValueError, match="log_prior must sum to one"):
        smoothed(PRIOR.log() - 1, REWARD, 0.0, 0.0)
    with pytest.raises(ValueError, match="zero support"):
        smoothed(torch.tensor([1.0, 0.0], dtype=torch.float64).log(), REWARD[:2], 0.0, 1.0)
    with pytest.raises(ValueError, match=r"share must be 1/12 … 1/2 of 12 outputs, got 0\.6"):
        random_priors(3, 12, 1.0, 0.6, seed=0)
    with pytest.raises(ValueError, match=r"outputs must be 2 … 1000, got 1001"):
        random_priors(3, 1001, 1.0, 0.25, seed=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gammas": [0.1]}, r"gammas must hold 0 and a larger one, got \[0\.1\]"),
        ({"gammas": [0.0]}, r"gammas must hold 0 and a larger one, got \[0\.0\]"),
        ({"betas": [0.0]}, r"betas must hold one > 0, got \[0\.0\]"),
    ],
)
def test_study_refuses_what_its_claims_need(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        prior_smoothing(**SMALL | changed)


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = prior_smoothing(**SMALL)
        write(study, tmp_path)
    assert [claim.verdict for claim in study.claims[:2]] == ["holds", "fails"]
    drawn = random_priors(40, 12, 2.0, 0.25, 0)
    for row in study.tables["prior_smoothing"]:
        if row["method"] == "reverse KL" and row["γ"] == 0.3:
            weights = np.exp((drawn.reward + row["β"] * drawn.log_prior).numpy() / (row["β"] + 0.3))
            mass = (weights * drawn.wanted.numpy()).sum(-1) / weights.sum(-1)
            assert row["estimate"] == pytest.approx(mass.mean(), abs=1e-13)
            assert row["n"] == len(mass)
    written_again(run, SMALL, tmp_path)
