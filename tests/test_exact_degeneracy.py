"""prefdist.exact.separable, flows and the study `degeneracy`: gradients by hand, Lambert's W, hand-made margins, SciPy."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import lambertw
from studies import written_again

from prefdist.exact.flows import follow
from prefdist.exact.separable import Separable, random_separable
from prefdist.exact.studies.degeneracy import degeneracy, run
from prefdist.objectives.policy_gradient import kl_surrogate
from prefdist.objectives.registry import load

SMALL: dict[str, Any] = {
    "worlds": 3,
    "responses": 7,
    "pairs": 2,
    "spread": 1.0,
    "betas": [1.0],
    "margin": 2.0,
    "gammas": [2.0],
    "kls": [2.0],
    "times": [0.0, 1e2, 1e3],
    "seed": 0,
}
PRIOR = torch.tensor([[0.1, 0.2, 0.3, 0.4]], dtype=torch.float64)
ONE_PAIR = Separable(PRIOR.log(), torch.tensor([[[0, 1]]]))
CHAIN = Separable(PRIOR.log(), torch.tensor([[[0, 1], [1, 2]]]))
NONE = torch.zeros(1, 4, dtype=torch.bool)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


# dL/d(ln π(a) − ln π(b)) of a pair that a won, of s = Δ ln π and s₀ = Δ ln π₀, by hand.
SLOPES = {
    "dpo": ({"beta": 0.3}, lambda s, s0: -0.3 * sigmoid(-0.3 * (s - s0))),
    "spl": ({"alpha": 0.4, "beta": 0.1}, lambda s, s0: -0.4 * sigmoid(-0.4 * s + 0.1 * s0)),
    "ipo": ({"margin": 2.0}, lambda s, s0: 2 * (s - s0 - 2.0)),
    "pmle": ({"gamma": 0.6, "beta": 0.0}, lambda s, s0: -0.6 * sigmoid(-0.6 * s)),
}


@pytest.mark.parametrize("name", SLOPES)
def test_first_move_is_the_gradient_of_the_project_s_objective(name: str) -> None:
    """A pair pulls its two logits apart with equal force, and no other logit moves: Δ ln π does not see the normaliser."""
    parameters, slope = SLOPES[name]
    data = random_separable(3, 7, 3, 1.0, seed=5)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn((3, 7), generator=generator, dtype=torch.float64)
    expected = np.zeros((3, 7))
    for world in range(3):
        for a, b in data.pairs[world].tolist():
            s, s0 = (float(values[world, a] - values[world, b]) for values in (logits, data.log_reference))
            force = slope(np.float64(s), np.float64(s0)) / 3
            expected[world, a] += force
            expected[world, b] -= force
    inputs = logits.clone().requires_grad_()
    (found,) = torch.autograd.grad(data.loss(load(name, parameters), inputs).sum(), inputs)
    np.testing.assert_allclose(found, expected, atol=1e-14)  # rounding
    step = 1e-4
    moved = follow(lambda z: data.loss(load(name, parameters), z), logits, [0.0, step])
    # The second order in t is t²·|H·g|/2, 1e-8 at most here; divided by t.
    np.testing.assert_allclose((moved[1] - moved[0]) / step, -expected, atol=1e-3)


def test_kl_is_the_expectation_of_the_training_s_surrogate() -> None:
    """PMLE's gradient with KL less that without is β times the mean of `kl_surrogate` over all pairs of samples."""
    logits = torch.tensor([[0.3, -0.2, 0.5, 1.0]], dtype=torch.float64, requires_grad=True)
    losses = [ONE_PAIR.loss(load("pmle", {"gamma": 0.5, "beta": kl}), logits) for kl in (0.7, 0.0)]
    (found,) = torch.autograd.grad((losses[0] - losses[1]).sum(), logits)
    pairs = torch.cartesian_prod(torch.arange(4), torch.arange(4))
    policy, reference = (values[0][pairs].unsqueeze(-1) for values in (logits.log_softmax(-1), PRIOR.log()))
    weights = policy.detach().sum((-1, -2)).exp()
    surrogate = kl_surrogate(policy, reference, torch.ones(16, 2, 1, dtype=torch.bool))
    (expected,) = torch.autograd.grad(0.7 * (weights * surrogate).sum(), logits)
    torch.testing.assert_close(found, expected, atol=1e-14, rtol=0)  # rounding


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_one_pair_under_dpo_is_lambert_s_function(beta: float) -> None:
    """M = β·Δ ln(π/π₀) obeys dM/dt = 2β²·σ(−M) from 0: M + e^M = 1 + 2β²t, so that M = c − W(e^c)."""
    times = [0.0, 10.0, 1e4, 1e8]
    log_p = follow(lambda z: ONE_PAIR.loss(load("dpo", {"beta": beta}), z), PRIOR.log(), times).log_softmax(-1)
    found = beta * (log_p - PRIOR.log())[:, 0, :2].diff(dim=-1).squeeze(-1).neg()
    constants = [1 + 2 * beta**2 * t for t in times]
    # W(e^c) overflows from c = 709 on; there e^M = c − M by iteration.
    expected = [c - float(lambertw(math.exp(c)).real) if c < 700 else math.log(c - math.log(c)) for c in constants]
    np.testing.assert_allclose(found, expected, atol=2e-3)  # a step is 1e-5 off, relative to logits of up to 80 nats


def test_dpo_ends_on_what_won() -> None:
    data = Separable(PRIOR.log(), torch.tensor([[[0, 1], [2, 3]]]))
    p = follow(lambda z: data.loss(load("dpo", {"beta": 0.1}), z), PRIOR.log(), [0.0, 1e6])[-1].softmax(-1)
    # Both pairs have the same margin at all times, so winners keep their odds of 1 : 3. Rest: e^{-90}; the flow 1e-5.
    np.testing.assert_allclose(p, [[0.25, 0, 0.75, 0]], atol=1e-4)


def test_margins_by_hand() -> None:
    torch.testing.assert_close(ONE_PAIR.directions(NONE), torch.tensor([[0.5, -0.5, 0, 0]], dtype=torch.float64))
    torch.testing.assert_close(CHAIN.directions(NONE), torch.tensor([[1.0, 0, -1, 0]], dtype=torch.float64), atol=1e-12, rtol=0)
    # The winner tied to two others: least 3c² + (c − 1)², c = ¼.
    tied = torch.tensor([[True, False, True, True]])
    torch.testing.assert_close(ONE_PAIR.directions(tied), torch.tensor([[0.25, -0.75, 0.25, 0.25]], dtype=torch.float64))
    # With all tied nothing is asked for.
    torch.testing.assert_close(ONE_PAIR.directions(~NONE), torch.zeros(1, 4, dtype=torch.float64))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_margins_against_a_quadratic_programme(seed: int) -> None:
    data = random_separable(1, 8, 3, 1.0, seed)
    pairs = data.pairs[0].numpy()
    found = minimize(
        lambda w: w @ w,
        np.zeros(8),
        jac=lambda w: 2 * w,
        constraints={"type": "ineq", "fun": lambda w: w[pairs[:, 0]] - w[pairs[:, 1]] - 1},
        method="SLSQP",
        options={"ftol": 1e-14},
    )
    np.testing.assert_allclose(data.directions(torch.zeros(1, 8, dtype=torch.bool))[0], found.x, atol=1e-5)  # SLSQP's


def test_least_squares_optimum_by_hand() -> None:
    """One pair moves its logits by ±margin/2; the chain by (m, 0, −m)."""
    expected = (PRIOR.log() + torch.tensor([[1.0, -1, 0, 0]])).log_softmax(-1)
    torch.testing.assert_close(ONE_PAIR.squared_optimum(2.0), expected)
    expected = (PRIOR.log() + torch.tensor([[2.0, 0, -2, 0]])).log_softmax(-1)
    torch.testing.assert_close(CHAIN.squared_optimum(2.0), expected)


def with_kl(gamma: float, times: list[float]) -> torch.Tensor:
    objective = load("pmle", {"gamma": gamma, "beta": 1.0})
    return follow(lambda z: ONE_PAIR.loss(objective, z), PRIOR.log(), times).log_softmax(-1)


def test_kl_is_no_barrier_under_gamma_below_one() -> None:
    """β = 1, one pair: at γ = ½ the loser falls by 1/γ = 2 nats an e-fold of t, the others go to π₀ given no loss."""
    log_p = with_kl(0.5, [0.0, 1e6, 1e8])
    speed = (log_p[-1] - log_p[-2])[0] / math.log(100)
    # The next order is √p(loser)·ln p(loser), like ln t/t: 1e-5. Steps are 1e-5 off, relative to 40 nats.
    np.testing.assert_allclose(speed, [0, -2.0, 0, 0], atol=1e-3)
    np.testing.assert_allclose(log_p[-1].exp(), [[1 / 8, 0, 3 / 8, 1 / 2]], atol=1e-4)  # the same


def test_kl_is_one_above() -> None:
    log_p = with_kl(2.0, [0.0, 1e4, 1e5])
    torch.testing.assert_close(log_p[-1], log_p[-2], atol=1e-5, rtol=0)
    torch.testing.assert_close(log_p[-1], ONE_PAIR.descend(2.0, 1.0), atol=1e-4, rtol=0)  # steps of the flow are 1e-5 off
    # The balance of forces on the loser, by hand: γ·σ(−γ·Δ ln π) = β·p·(KL − ln p/π₀).
    p = log_p[-1, 0].exp()
    kl = float((p * (log_p[-1, 0] - PRIOR[0].log())).sum())
    push = 2 * sigmoid(np.float64(-2 * (log_p[-1, 0, 0] - log_p[-1, 0, 1])))
    assert push == pytest.approx(float(p[1]) * (kl - float(log_p[-1, 0, 1] - PRIOR[0, 1].log())), abs=1e-5)  # as above


def test_what_is_no_data_is_refused() -> None:
    pair = torch.tensor([[[0, 1]]])
    with pytest.raises(ValueError, match=r"log_reference must sum to one .* off by 0.1, limit 1e-05"):
        Separable(torch.tensor([[0.5, 0.4]], dtype=torch.float64).log(), pair)
    with pytest.raises(ValueError, match=r"log_reference has zero support"):
        Separable(torch.tensor([[1.0, 0.0]], dtype=torch.float64).log(), pair)
    with pytest.raises(ValueError, match=r"pairs of a world hold a cycle"):
        Separable(PRIOR.log(), torch.tensor([[[0, 1], [1, 2], [2, 0]]]))
    with pytest.raises(ValueError, match=r"pairs must be 1 … 4 with 10 responses, got 5"):
        random_separable(1, 10, 5, 1.0, 0)


def test_times_are_checked() -> None:
    with pytest.raises(ValueError, match=r"times must increase within 0 … 1e\+12, got \[0.0, 10000000000000.0\]"):
        follow(lambda z: z.sum(-1), PRIOR.log(), [0.0, 1e13])
    with pytest.raises(ValueError, match=r"times must begin with 0 and hold two more, got \[1.0, 2.0, 3.0\]"):
        degeneracy(**{**SMALL, "times": [1.0, 2.0, 3.0]})


def test_random_data_have_no_cycle_and_leave_some_out() -> None:
    data = random_separable(200, 7, 3, 1.0, 3)
    assert bool((~data.on_data).any(-1).all()) and bool((data.pairs[..., 0] != data.pairs[..., 1]).all())
    again = random_separable(200, 7, 3, 1.0, 3)
    assert torch.equal(data.pairs, again.pairs) and torch.equal(data.log_reference, again.log_reference)
    unordered = {tuple(sorted(map(tuple, pairs.sort(-1).values.tolist()))) for pairs in data.pairs}
    assert all(len(set(pairs)) == 3 for pairs in unordered)


def test_study_writes_the_same_bytes_twice_and_its_verdicts(tmp_path: Path) -> None:
    run(SMALL, {}, tmp_path, tmp_path)
    files = written_again(run, SMALL, tmp_path)
    assert {"degeneracy.csv", "degeneracy.md", "degeneracy.svg", "claims.csv"} <= set(files)
    verdicts = [line.rsplit(",", 1)[1] for line in files["claims.csv"].decode().splitlines()[1:]]
    assert verdicts[:4] == ["holds"] * 4
