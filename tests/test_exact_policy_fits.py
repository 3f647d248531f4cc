"""prefdist.exact.policy_fits: SciPy's minimiser, autograd's gradient, limits in closed form, and what is refused."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor
from torch.autograd.functional import hessian, jacobian
from torch.nn.functional import logsigmoid

import prefdist.exact.policy_fits
from prefdist.exact.bradley_terry import fit
from prefdist.exact.policy_fits import fit_policy

DRAWS = np.random.default_rng(0)
WINS = torch.from_numpy(DRAWS.integers(0, 6, (40, 5, 5)).astype(float))
LOG_REF = torch.from_numpy(DRAWS.normal(size=(40, 5))).log_softmax(-1)
FLAT = torch.full((2,), 0.5, dtype=torch.float64).log()


def loss(logits: Tensor, wins: Tensor, log_ref: Tensor, gamma: float, kl: Tensor, ridge: float) -> Tensor:
    """As the docstring has it: [..., Y] -> [...]."""
    log_p = logits.log_softmax(-1)
    lead = gamma * (log_p.unsqueeze(-1) - log_p.unsqueeze(-2))
    centred = gamma * (log_p - log_p.mean(-1, keepdim=True))
    divergence = (log_p.exp() * (log_p - log_ref)).sum(-1)
    return -(wins * logsigmoid(lead)).sum((-1, -2)) + kl * divergence + ridge / 2 * centred.square().sum(-1)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 10_000), gamma=st.floats(0.05, 2), log_kl=st.floats(-4, 8), ridge=st.floats(1e-3, 1))
def test_minimum_by_autograd(seed: int, gamma: float, log_kl: float, ridge: float) -> None:
    """The gradient vanishes, and the Hessian has no negative eigenvalue, wherever the fit ends."""
    draws = np.random.default_rng(seed)
    wins = torch.from_numpy(draws.poisson(1.0, (4, 4)).astype(float))
    log_ref = torch.from_numpy(2 * draws.normal(size=4)).log_softmax(-1)
    kl = torch.tensor(math.exp(log_kl), dtype=torch.float64)
    found = fit_policy(wins, log_ref, gamma=gamma, kl=kl, ridge=ridge)
    assert float(found.exp().sum()) == pytest.approx(1, abs=1e-14)

    def at(logits: Tensor) -> Tensor:
        return loss(logits, wins, log_ref, gamma, kl, ridge)

    weight = float(wins.sum() + kl + ridge)
    gradient, curvature = jacobian(at, found), hessian(at, found)
    assert float(gradient.abs().max()) <= 1e-9 * weight  # STATIONARY
    assert float(torch.linalg.eigvalsh(curvature).min()) >= -1e-9 * weight
    assert float(at(found)) <= float(at(log_ref))  # descent began there


@pytest.mark.parametrize(("kl", "ridge"), [(0.5, 0.0), (20.0, 1e-3), (0.0, 0.5)])
def test_minimum_by_scipy(kl: float, ridge: float) -> None:
    """Both start from π₀, so that both end in its valley."""
    found = fit_policy(WINS, LOG_REF, gamma=0.5, kl=torch.full((40,), kl, dtype=torch.float64), ridge=ridge)
    for wins, log_ref, log_p in zip(WINS[:8].numpy(), LOG_REF[:8].numpy(), found[:8].numpy(), strict=True):

        def objective(z: np.ndarray, wins: np.ndarray = wins, log_ref: np.ndarray = log_ref) -> float:
            q = log_softmax(z)
            likelihood = (wins * np.logaddexp(0, 0.5 * (q[None] - q[:, None]))).sum()
            return float(likelihood + kl * np.exp(q) @ (q - log_ref) + ridge / 2 * ((0.5 * (q - q.mean())) ** 2).sum())

        expected = log_softmax(minimize(objective, log_ref, method="BFGS", options={"gtol": 1e-7}).x)
        # BFGS differentiates by differences, so that its gradient is good to 1e-6, over a curvature of at least 0.05.
        np.testing.assert_allclose(log_p, expected, atol=1e-4)


def test_without_kl_it_is_bradley_terry() -> None:
    found = fit_policy(WINS, LOG_REF, gamma=0.25, kl=torch.zeros(40, dtype=torch.float64), ridge=0.1)
    # Both stop at steps of 1e-9 in γ·ln π or less; γ = ¼ makes that 4e-9.
    torch.testing.assert_close(found, (fit(WINS, 0.1) / 0.25).log_softmax(-1), atol=1e-8, rtol=0)


def test_with_much_kl_it_is_the_reference() -> None:
    """The first correction is the gradient of the likelihood over kl: 60 wins over 1e9 and a least probability of 0.02."""
    found = fit_policy(WINS, LOG_REF, gamma=0.5, kl=torch.full((40,), 1e9, dtype=torch.float64))
    torch.testing.assert_close(found, LOG_REF, atol=1e-5, rtol=0)


def test_two_responses_by_hand() -> None:
    """One win, uniform π₀, γ = 1: kl·p(1 − p)·ln(p/(1 − p)) = 1 − p, so that p = 0.8 at kl = 1/(0.8·ln 4)."""
    wins = torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    kl = torch.tensor(1 / (0.8 * math.log(4)), dtype=torch.float64)
    found = fit_policy(wins, FLAT, gamma=1.0, kl=kl).exp()
    torch.testing.assert_close(found, torch.tensor([0.8, 0.2], dtype=torch.float64), atol=1e-9, rtol=0)


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    kl = torch.logspace(-3, 3, 4, dtype=torch.float64).view(4, 1)
    whole = fit_policy(WINS, LOG_REF, gamma=0.5, kl=kl.expand(4, 40), ridge=1e-3)
    assert whole.shape == (4, 40, 5)
    monkeypatch.setattr(prefdist.exact.policy_fits, "AT_ONCE", 7)
    torch.testing.assert_close(fit_policy(WINS, LOG_REF, gamma=0.5, kl=kl.expand(4, 40), ridge=1e-3), whole, atol=1e-12, rtol=0)
    torch.testing.assert_close(
        fit_policy(WINS[3], LOG_REF[3], gamma=0.5, kl=kl[2, 0], ridge=1e-3), whole[2, 3], atol=1e-12, rtol=0
    )


def test_separable_wins_without_kl_and_ridge_are_refused() -> None:
    wins = torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64)
    with pytest.raises(RuntimeError, match=r"no minimum of the likelihood with KL found: .* use a kl or a ridge > 0"):
        fit_policy(wins, FLAT, gamma=0.5, kl=torch.zeros((), dtype=torch.float64))


def test_refused() -> None:
    wins, one = torch.ones(2, 2, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"wins must be finite and ≥ 0, got -1 … -1"):
        fit_policy(-wins, FLAT, gamma=0.5, kl=one)
    with pytest.raises(ValueError, match=r"kl must be finite and ≥ 0, got inf … inf"):
        fit_policy(wins, FLAT, gamma=0.5, kl=one / 0)
    with pytest.raises(ValueError, match="gamma must be > 0, got 0"):
        fit_policy(wins, FLAT, gamma=0.0, kl=one)
    with pytest.raises(ValueError, match="log_ref must sum to one"):
        fit_policy(wins, FLAT - 1, gamma=0.5, kl=one)
    with pytest.raises(ValueError, match="log_ref has zero support"):
        fit_policy(wins, torch.tensor([1.0, 0.0], dtype=torch.float64).log(), gamma=0.5, kl=one)
