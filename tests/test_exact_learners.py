"""prefdist.exact.learners and learning_curves: which methods coincide, limits in closed form, and measures by hand."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import Tensor

from prefdist.exact.bradley_terry import fit
from prefdist.exact.learners import DISTILLED, DPO, ON_FRESH, PMLE, REVERSE_KL, distilled, learners, likelihood
from prefdist.exact.learning_curves import (
    MANY,
    Curves,
    Toy,
    asymptote,
    choose,
    draw_pairs,
    forward_kl,
    held_out_loss,
    measure,
    reverse_kl,
    toy_worlds,
    without_data,
)

TOY = toy_worlds(contexts=2, actions=4, seeds=range(3), gamma=0.5, spread=1.0)
PAIRS = draw_pairs(TOY, [2000], 0.25)  # every response meets every other
BETAS = torch.tensor([0.05, 0.7, 5.0], dtype=torch.float64).view(-1, 1, 1, 1)
NONE = torch.zeros(1, 1, 1, 1, dtype=torch.float64)


def total_variation(p: Tensor, q: Tensor) -> float:
    return float((p.exp() - q.exp()).abs().sum(-1).max() / 2)


def test_without_regulariser_likelihood_methods_are_one() -> None:
    """Their only difference is a ridge of 1e-9 beside hundreds of pairs."""
    mine = learners(TOY, 1e-9, [0.5])
    policies = [mine[name](PAIRS.every, PAIRS.fresh, NONE) for name in (PMLE, DISTILLED, ON_FRESH, REVERSE_KL, "SPL, α = 0.5")]
    expected = (fit(PAIRS.every) / 0.5).log_softmax(-1)
    assert max(total_variation(policy, expected.unsqueeze(0)) for policy in policies) <= 1e-8


def test_pmle_and_distillation_on_its_pairs_are_one_at_every_beta() -> None:
    pmle = likelihood(TOY, 1e-9)(PAIRS.every, PAIRS.fresh, BETAS)
    soft = distilled(TOY, 1e-9, on_fresh=False)(PAIRS.every, PAIRS.fresh, BETAS)
    assert total_variation(pmle, soft) <= 1e-8
    fresh = distilled(TOY, 1e-9, on_fresh=True)(PAIRS.every, PAIRS.fresh, BETAS)
    assert total_variation(pmle, fresh) > 1e-4  # other pairs were met


@pytest.mark.parametrize("beta", [0.2, 1.5])
def test_dpo_is_rlhf(beta: float) -> None:
    """DPO's own likelihood (ADL, Eq. 6), minimised by SciPy from π₀."""
    wins, log_ref = PAIRS.every[0, 1, 1].numpy(), TOY.log_reference[1, 1].numpy()

    def loss(log_p: np.ndarray) -> float:
        implied = beta * (log_p - log_ref)
        return float((wins * np.logaddexp(0, implied[None] - implied[:, None])).sum())

    found = torch.from_numpy(minimize(loss, log_ref, method="BFGS", options={"gtol": 1e-6}).x).log_softmax(-1)
    policy = learners(TOY, 1e-9, [])[DPO](PAIRS.every, PAIRS.fresh, torch.full_like(NONE, beta))[0, 0, 1, 1]
    # BFGS's gradient by differences is good to 1e-4, over a curvature of tens of pairs times β².
    assert total_variation(policy, found) <= 1e-4


@pytest.mark.parametrize("beta", [0.2, 1.5])
def test_reverse_kl_is_distillation_with_kl_in_the_reward(beta: float) -> None:
    """At its policy the student's logit γ·Δ ln π is the teacher's, Δ(r̂ − β·ln π/π₀), for every pair: no gradient is left."""
    policy = learners(TOY, 1e-3, [])[REVERSE_KL](PAIRS.every, PAIRS.fresh, torch.full_like(NONE, beta))[0]
    target = fit(PAIRS.every, 1e-3) - beta * (policy - TOY.log_reference)
    gap = target - 0.5 * policy
    torch.testing.assert_close(gap - gap[..., :1], torch.zeros_like(gap), atol=1e-13, rtol=0)  # rounding of a few nats


def power(of_prior: float, of_target: float) -> Tensor:
    return (of_prior * TOY.log_reference + of_target * TOY.log_target).log_softmax(-1)


@pytest.mark.parametrize(
    ("name", "beta", "expected"),
    [
        (PMLE, 0.0, lambda: power(0, 1)),
        (DISTILLED, 0.0, lambda: power(0, 1)),
        (ON_FRESH, 0.0, lambda: power(0, 1)),
        (REVERSE_KL, 0.0, lambda: power(0, 1)),
        (REVERSE_KL, 1.5, lambda: power(0.75, 0.25)),
        (DPO, 0.5, lambda: power(1, 1)),
        (DPO, 2.0, lambda: power(1, 0.25)),
        ("SPL, α = 1", 0.5, lambda: power(0.5, 0.5)),
    ],
)
def test_infinitely_many_pairs(name: str, beta: float, expected: Callable[[], Tensor]) -> None:
    learn = learners(TOY, 1e-3, [1.0])[name]
    wins, fresh = (MANY * law.unsqueeze(0) for law in (TOY.law, TOY.unlabelled_law))
    # The ridge's share of the loss is 1e-15, and fits stop at steps of 1e-9.
    assert total_variation(learn(wins, fresh, torch.full_like(NONE, beta))[0, 0], expected()) <= 1e-8


def test_kl_in_the_loss_has_the_weight_of_a_mean_over_contexts() -> None:
    """The population's loss as in ADL, Eq. 5, is stationary: Σ P(pair)·(−ln σ) + β·mean KL, by autograd."""
    beta = 0.3
    learn = likelihood(TOY, 1e-3)
    logits = learn(MANY * TOY.law.unsqueeze(0), torch.zeros(1), torch.full_like(NONE, beta))[0, 0].requires_grad_()
    log_p = logits.log_softmax(-1)
    lead = 0.5 * (log_p.unsqueeze(-1) - log_p.unsqueeze(-2))
    kl = (log_p.exp() * (log_p - TOY.log_reference)).sum(-1).mean(-1).sum()
    (-(TOY.law * torch.nn.functional.logsigmoid(lead)).sum() + beta * kl).backward()
    assert logits.grad is not None
    assert float(logits.grad.abs().max()) <= 1e-9
    assert float((log_p - TOY.log_reference).detach().abs().max()) > 1e-2  # and it is not π₀, where nothing was learnt


def two_responses(mu: float, target: float, gamma: float) -> Toy:
    log_mu, log_target = (torch.tensor([[[p, 1 - p]]], dtype=torch.float64).log() for p in (mu, target))
    return Toy(log_target, log_mu, gamma, [0])


@pytest.mark.parametrize(("mu", "target", "gamma"), [(0.5, 0.5, 0.5), (0.75, 0.9, 0.3)])
def test_asymptote_of_two_responses(mu: float, target: float, gamma: float) -> None:
    """A difference of rewards has variance 1/(n·P(both)·p(1 − p)), p how often the first wins; KL = ½π*(1 − π*)·variance/γ²."""
    odds = (target / (1 - target)) ** gamma
    p = odds / (1 + odds)
    expected = target * (1 - target) / (2 * gamma**2 * 2 * mu * (1 - mu) * p * (1 - p))
    assert float(asymptote(two_responses(mu, target, gamma))) == pytest.approx(expected, rel=1e-12)


def test_asymptote_of_equals() -> None:
    flat = torch.full((2, 3, 7), 1 / 7, dtype=torch.float64).log()
    assert asymptote(Toy(flat, flat, 0.5, [0, 1])).tolist() == pytest.approx([3 * 6 / 0.5**2] * 2, rel=1e-12)


def test_asymptote_is_reached() -> None:
    """400 seeds of one world; means of n·KL, which is half a χ² of (Y − 1)·X = 6 degrees for equals, stray by 3 %."""
    one = toy_worlds(contexts=2, actions=4, seeds=[0], gamma=0.5, spread=1.0)
    seeds = range(400)
    many = Toy(one.log_target.expand(400, 2, 4), one.log_reference.expand(400, 2, 4), 0.5, seeds)
    n = 200_000
    wins = draw_pairs(many, [n], 0.25).every
    kl = forward_kl(many, (fit(wins) / 0.5).log_softmax(-1))
    assert float(n * kl.mean() / asymptote(one)) == pytest.approx(1, abs=0.15)


def test_divergences_by_hand() -> None:
    toy = two_responses(0.5, 0.75, 1.0)
    uniform = torch.full((1, 1, 2), 0.5, dtype=torch.float64).log()
    forward = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert float(forward_kl(toy, uniform)) == pytest.approx(forward, abs=1e-15)
    assert float(reverse_kl(toy, uniform)) == pytest.approx(-0.5 * math.log(0.75), abs=1e-15)
    blind = without_data(two_responses(0.25, 0.75, 1.0))
    assert float(blind["uniform"]) == pytest.approx(forward, abs=1e-15)
    assert float(blind["π₀"]) == pytest.approx(0.5 * math.log(3), abs=1e-15)


def test_held_out_loss_pair_by_pair() -> None:
    policy = torch.stack([TOY.log_reference, TOY.log_target]).unsqueeze(1)
    wins = draw_pairs(TOY, [40], 0.5).held_out
    found = held_out_loss(TOY, policy, wins)
    assert found.shape == (2, 1, 3)
    total = 0.0
    for x, a, b in np.ndindex(2, 4, 4):
        p = policy[1, 0, 2, x].exp().tolist()
        total -= float(wins[0, 2, x, a, b]) * math.log(p[a] ** 0.5 / (p[a] ** 0.5 + p[b] ** 0.5))
    assert float(found[1, 0, 2]) == pytest.approx(total / 20, rel=1e-12)


def test_pairs_are_split_and_nest() -> None:
    sizes = [8, 9, 100]
    pairs = draw_pairs(TOY, sizes, 0.25)
    for counts, numbers in (
        (pairs.every, sizes),
        (pairs.held_out, [2, 2, 25]),
        (pairs.fresh, sizes),
        (pairs.fitted, [6, 7, 75]),
    ):
        assert counts.sum((2, 3, 4)).tolist() == [[n] * 3 for n in numbers]
        assert bool((counts.diff(dim=0) >= 0).all())
    assert torch.equal(pairs.every, pairs.fitted + pairs.held_out)
    for share in (0.1, 1.0):
        with pytest.raises(ValueError, match=rf"held_out must leave pairs on both sides of 8, got {share:g}"):
            draw_pairs(TOY, sizes, share)


def test_choice_of_beta() -> None:
    forward = torch.tensor([[[5.0, 5.0]], [[3.0, 4.0]], [[4.0, 2.0]]], dtype=torch.float64)  # β, n, seed
    held_out = torch.tensor([[[1.0, 0.1]], [[0.6, 0.2]], [[0.5, 0.3]]], dtype=torch.float64)
    exact = torch.tensor([[0.0, 0.1], [1.0, 1.1], [2.0, 2.1]], dtype=torch.float64)
    curves = Curves(torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64), forward, -forward, held_out, exact)
    chosen = {by: {k: v.tolist() for k, v in choose(curves, by).items()} for by in ("none", "held-out", "oracle")}
    assert chosen["none"] == {"forward": [[5, 5]], "reverse": [[-5, -5]], "beta": [[0, 0]], "exact": [[0.0, 0.1]]}
    assert chosen["held-out"] == {"forward": [[4, 5]], "reverse": [[-4, -5]], "beta": [[2, 0]], "exact": [[2.0, 0.1]]}
    assert chosen["oracle"] == {"forward": [[3, 2]], "reverse": [[-3, -2]], "beta": [[1, 2]], "exact": [[1.0, 2.1]]}


def test_measure_holds_pairs_out() -> None:
    """The held-out loss is of the fit without them, the divergence of the fit with them, limits of neither."""
    curves = measure(TOY, PAIRS, learners(TOY, 1e-3, [])[REVERSE_KL], [0.0, 0.5])
    for index, beta in enumerate((0.0, 0.5)):
        policies = [
            ((fit(wins, 1e-3) + beta * TOY.log_reference) / (beta + 0.5)).log_softmax(-1)
            for wins in (PAIRS.every, PAIRS.fitted)
        ]
        torch.testing.assert_close(curves.forward[index], forward_kl(TOY, policies[0]), atol=1e-13, rtol=0)
        torch.testing.assert_close(curves.reverse[index], reverse_kl(TOY, policies[0]), atol=1e-13, rtol=0)
        loss = held_out_loss(TOY, policies[1].unsqueeze(0), PAIRS.held_out)[0]
        torch.testing.assert_close(curves.held_out[index], loss, atol=1e-13, rtol=0)
        prior = beta / (beta + 0.5)
        torch.testing.assert_close(curves.exact[index], forward_kl(TOY, power(prior, 1 - prior)), atol=1e-12, rtol=0)
