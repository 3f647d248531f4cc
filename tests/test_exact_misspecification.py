"""prefdist.exact.misspecified and the study `misspecification`: fractions, Taylor terms, losses minimised by SciPy."""

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from studies import written_again

from prefdist.exact.misspecified import (
    METHODS,
    Setting,
    antisymmetric,
    equation_of,
    intransitive,
    label_noise,
    learn,
    position_bias,
)
from prefdist.exact.studies.misspecification import misspecification, run
from prefdist.exact.study import write
from prefdist.exact.worlds import enumerate_space, random_worlds
from prefdist.style import RC

SMALL: dict[str, Any] = {
    "worlds": 20,
    "contexts": 2,
    "actions": 4,
    "gamma": 0.5,
    "spread": 1.0,
    "knowledge": [0.0, 0.9],
    "position_biases": [0.0, 1.0],
    "cycles": [0.0, 0.5],
    "noises": [0.0, 0.2],
    "factors": [1.0, 2.0],
    "small": 0.01,
    "cyclic_win": 0.9,
}
UNIFORM = torch.full((3,), 1 / 3, dtype=torch.float64).log()


def one(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


def test_observed_laws_in_fractions() -> None:
    """Odds of 3: a bias of ln 2 makes them 6 or 3/2, and a quarter of the labels turned round gives ¼ + ½·¾."""
    biased = (Fraction(6, 7) + Fraction(3, 5)) / 2
    assert float(position_bias(one(math.log(3)), math.log(2))) == pytest.approx(float(biased), abs=1e-15)
    assert float(label_noise(one(math.log(3)), 0.25)) == pytest.approx(float(Fraction(5, 8)), abs=1e-15)
    assert float(intransitive(one(math.log(3)), 2.0, one(math.log(2)))) == pytest.approx(float(Fraction(12, 13)), abs=1e-15)


@given(gap=st.floats(-4, 4))
def test_taylor_terms_of_the_observed_log_odds(gap: float) -> None:
    """logit P = Δ − (b²/2)·tanh(Δ/2) + O(b⁴), and Δ − 2ε·sinh Δ + O(ε²)."""
    step = 1e-3
    bent = (float(position_bias(one(gap), step).logit()) - gap) / step**2
    assert bent == pytest.approx(-math.tanh(gap / 2) / 2, abs=1e-6)  # the next term is of size b², 1e-6 times 1/8
    turned = (float(label_noise(one(gap), step**2).logit()) - gap) / step**2
    # The next term is 2ε·sinh Δ·(…) with sinh 4 = 27: a relative 1e-6·e⁴.
    assert turned == pytest.approx(-2 * math.sinh(gap), rel=1e-4, abs=1e-8)


@given(gap=st.floats(-50, 50), noise=st.floats(0.001, 0.499))
def test_noise_bounds_what_can_be_learned(gap: float, noise: float) -> None:
    limit = math.log((1 - noise) / noise)
    assert abs(float(label_noise(one(gap), noise).logit())) <= limit * (1 + 1e-9) + 1e-12


def logistic(margin: np.ndarray) -> np.ndarray:
    return np.logaddexp(0, -margin)


# Losses of one ordered pair that a won, of s = log π and s₀ = log π₀ as differences; γ = 0.5 and the methods' own settings.
LOSSES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "PMLE": lambda s, s0: logistic(0.5 * s),
    "DPO": lambda s, s0: logistic(0.5 * (s - s0)),
    "SPL": lambda s, s0: logistic(0.75 * s - 0.5 * s0),
    "IPO": lambda s, s0: (s - s0 - 4) ** 2,
}


@pytest.mark.parametrize("method", LOSSES)
@pytest.mark.parametrize("kind", ["position bias", "intransitive", "label noise"])
def test_optimum_is_the_minimum_of_the_population_loss(method: str, kind: str) -> None:
    worlds = random_worlds(enumerate_space(4, 1), contexts=1, seeds=[3], gamma=0.5, spread=1.0)
    setting = Setting.of(worlds, [0.0], seed=7)
    preference = setting.observed(kind, 0.4)
    prior, mu = setting.priors[0.0][0].numpy(), worlds.log_mu[0].exp().numpy()
    weights = mu[:, None] * mu[None] * preference[0].numpy()

    def loss(z: np.ndarray) -> float:
        differences = [v[:, None] - v[None] for v in (log_softmax(z), prior)]
        return float((weights * LOSSES[method](*differences)).sum())

    found = log_softmax(minimize(loss, prior, method="BFGS", options={"gtol": 1e-10}).x)
    policy = learn(preference, worlds.log_mu).policy(method, 0.5, setting.priors[0.0])[0].numpy()
    # The loss is flat to 1e-16 within 1e-8 of the minimum in units of its curvature, of at least 0.01 here.
    np.testing.assert_allclose(policy, found, atol=3e-6)


@pytest.mark.parametrize(("method", "entropy", "kl"), [("reverse KL, β = γ", 0.5, 0.5), ("RLHF", 0.0, 0.5)])
def test_fixed_point_maximises_the_objective_with_the_fitted_reward(method: str, entropy: float, kl: float) -> None:
    worlds = random_worlds(enumerate_space(4, 1), contexts=1, seeds=[5], gamma=0.5, spread=1.0)
    learned = learn(label_noise(worlds.reward.unsqueeze(-1) - worlds.reward.unsqueeze(-2), 0.2), worlds.log_mu)
    reward, prior = learned.reward[0].numpy(), worlds.log_reference[0].numpy()

    def loss(z: np.ndarray) -> float:
        log_p = log_softmax(z)
        return float(np.exp(log_p) @ (-reward + entropy * log_p + kl * (log_p - prior)))

    found = log_softmax(minimize(loss, prior, method="BFGS", options={"gtol": 1e-10}).x)
    policy = learned.policy(method, 0.5, worlds.log_reference)[0].numpy()
    np.testing.assert_allclose(policy, found, atol=3e-6)  # as above


def test_cycle_by_hand() -> None:
    """q = 0.9: with μ uniform nobody is better; with half the data a's, c meets its victim most often and b its master."""
    cycle = torch.tensor([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]], dtype=torch.float64)
    even = learn(cycle, UNIFORM)
    torch.testing.assert_close(even.reward, torch.zeros(3, dtype=torch.float64), atol=1e-9, rtol=0)  # Newton's last step
    often_a = learn(cycle, torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log())
    torch.testing.assert_close(often_a.win_rate, torch.tensor([0.5, 0.4, 0.6], dtype=torch.float64))
    # Stationary where a(y) = E σ(r(y) − r(y′)): by symmetry r = (0, −x, x), 0.6 = ½σ(x) + ¼σ(2x) + ⅛.
    x = float(often_a.reward[2])
    assert 0.5 / (1 + math.exp(-x)) + 0.25 / (1 + math.exp(-2 * x)) + 0.125 == pytest.approx(0.6, abs=1e-9)
    assert often_a.reward.tolist() == pytest.approx([0, -x, x], abs=1e-9)


def test_wrong_gamma_gives_a_power_of_the_target() -> None:
    study = misspecification(**SMALL)
    worlds = random_worlds(enumerate_space(4, 1), contexts=2, seeds=range(20), gamma=0.5, spread=1.0)
    p = worlds.log_target.exp().numpy()
    squared = p**2 / (p**2).sum(-1, keepdims=True)
    expected = (p * np.log(p / squared)).sum(-1).mean()
    rows = [r for r in study.tables["misspecification"] if r["kind"] == "γ assumed too small" and r["strength"] > 0]
    for row in rows:
        if row["method"] in ("PMLE", "distillation", "reverse KL, β = 0"):
            assert row["estimate"] == pytest.approx(expected, abs=1e-9)  # of rewards fitted to 1e-10
    assert len(rows) == len(METHODS) * 2


def test_cycles_are_antisymmetric_and_a_seed_gives_the_same() -> None:
    drawn = antisymmetric(5, 4, seed=1)
    assert torch.equal(drawn, -drawn.mT)
    assert torch.equal(drawn, antisymmetric(5, 4, seed=1))
    assert not torch.equal(drawn, antisymmetric(5, 4, seed=2))


def test_refused() -> None:
    half = torch.full((3, 3), 0.5, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"strength of label noise must lie in \[0, 1/2\), got 0\.5"):
        label_noise(one(0.0), 0.5)
    with pytest.raises(ValueError, match=r"log_mu must sum to one .*limit 1e-05"):
        learn(half, UNIFORM - 1)
    with pytest.raises(ValueError, match="log_mu has zero support"):
        learn(half, torch.tensor([0.5, 0.5, 0.0], dtype=torch.float64).log())
    with pytest.raises(ValueError, match=r"P\(a beats b\) \+ P\(b beats a\) = 1: off by 0\.2, limit 1e-9"):
        learn(half + 0.1, UNIFORM)
    with pytest.raises(ValueError, match=r"method must be one of PMLE; .*: got KTO"):
        equation_of("KTO", 0.5)
    with pytest.raises(ValueError, match="gamma must be > 0, got 0"):
        equation_of("DPO", 0.0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"noises": [0.1, 0.2]}, r"strengths of label noise must hold 0 .* least is 0\.1"),
        ({"factors": [2.0]}, r"strengths of γ assumed too small must hold 0 \(factors: 1\)"),
        ({"knowledge": [1.0]}, r"knowledge must lie in \[0, 1\), got \[1\.0\]"),
        ({"noises": [0.0, 0.6]}, r"label noise must lie in \[0, 1/2\), got 0\.6"),
    ],
)
def test_study_refuses_what_its_claims_need(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        misspecification(**SMALL | changed)


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = misspecification(**SMALL)
        write(study, tmp_path)
    assert [claim.verdict for claim in study.claims[:4]] == ["holds", "holds", "holds under weak preferences", "holds"]
    assert study.claims[-1].verdict == "holds under Bradley-Terry preferences"
    orders = {
        (row["kind"], row["method"]): row["median"] for row in study.tables["misspecification_order"] if not row["prior knows"]
    }
    # A strength of 0.01 adds a term of the next order, about 1 % of the first.
    assert orders["position bias", "PMLE"] == pytest.approx(4, abs=0.05)
    assert orders["label noise", "PMLE"] == pytest.approx(2, abs=0.05)
    assert orders["position bias", "DPO"] == pytest.approx(2, abs=0.05)
    written_again(run, SMALL, tmp_path)
