"""What each method learns from n pairs of a toy world: its divergences from π* over n, β and seeds (ADL, App. D.1).

Every method sees the pairs through counts of wins. Reward models and likelihoods have the same ridge, beside the sum over
pairs: its share of the mean loss is ridge/n, and it bounds what separable pairs would send to infinity.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefdist.exact.pairs import count_wins, law_of_wins
from prefdist.exact.worlds import enumerate_space, random_worlds

STREAMS = {"fitted": 0, "held out": 1, "fresh": 2}
"""Of pairs of one seed: independent of each other."""
DIVERGENCES = {"forward": "KL(π*‖π)", "reverse": "KL(π‖π*)"}
MANY = 2.0**40
"""Pairs that stand for infinitely many: the ridge's share of their mean loss is gone."""


@dataclass(frozen=True)
class Toy:
    """S worlds of X contexts and Y responses, one a seed: log π* and log π₀ = log μ [S, X, Y]; γ of the preferences."""

    log_target: Tensor
    log_reference: Tensor
    gamma: float
    seeds: Sequence[int]

    @property
    def reward(self) -> Tensor:
        """r [S, X, Y]."""
        return self.gamma * self.log_target

    @property
    def law(self) -> Tensor:
        """Of one labelled pair, [S, X, Y, Y]."""
        return law_of_wins(self.log_reference, self.reward)

    @property
    def unlabelled_law(self) -> Tensor:
        """Of one pair whose label says nothing, [S, X, Y, Y]."""
        return law_of_wins(self.log_reference, torch.zeros_like(self.reward))


@dataclass(frozen=True)
class Pairs:
    """Wins [N, S, X, Y, Y] among n pairs: all, those fitted when β is chosen, those held out then; unlabelled fresh ones."""

    every: Tensor
    fitted: Tensor
    held_out: Tensor
    fresh: Tensor


@dataclass(frozen=True)
class Curves:
    """Of one method: divergences from π* in nats, means over contexts, and the held-out loss, [B, N, S] over β, n and seeds.

    betas [B]: the first is the method without a regulariser, or at β = γ where it has no such form. exact [B, S]: the
    forward divergence that infinitely many pairs leave.
    """

    betas: Tensor
    forward: Tensor
    reverse: Tensor
    held_out: Tensor
    exact: Tensor


def toy_worlds(*, contexts: int, actions: int, seeds: Sequence[int], gamma: float, spread: float) -> Toy:
    """Logits of π* and π₀ from N(0, spread²), a world a seed; pairs come from π₀."""
    worlds = random_worlds(enumerate_space(actions, 1), contexts=contexts, seeds=seeds, gamma=gamma, spread=spread)
    shape = (len(seeds), contexts, actions)
    return Toy(worlds.log_target.view(shape), worlds.log_reference.view(shape), gamma, seeds)


def draw_pairs(toy: Toy, sizes: Sequence[int], held_out: float) -> Pairs:
    """`held_out`: share of every n that is held out, rounded down. ValueError: none or all of the smallest n."""
    withheld = [int(n * held_out) for n in sizes]
    if not 0 < withheld[0] < sizes[0]:
        raise ValueError(f"held_out must leave pairs on both sides of {sizes[0]}, got {held_out:g}")

    def draw(stream: str, law: Tensor, numbers: Sequence[int]) -> Tensor:
        return count_wins(law, numbers, [(seed, STREAMS[stream]) for seed in toy.seeds])

    fitted = draw("fitted", toy.law, [n - without for n, without in zip(sizes, withheld, strict=True)])
    held = draw("held out", toy.law, withheld)
    return Pairs(fitted + held, fitted, held, draw("fresh", toy.unlabelled_law, sizes))


Learner = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Wins [N, S, X, Y, Y], as many fresh pairs and β [B, 1, 1, 1] -> log π [B, N, S, X, Y]."""


def forward_kl(toy: Toy, log_policy: Tensor) -> Tensor:
    """KL(π*‖π) in nats, its mean over contexts: [..., S, X, Y] -> [..., S]."""
    return (toy.log_target.exp() * (toy.log_target - log_policy)).sum(-1).mean(-1)


def reverse_kl(toy: Toy, log_policy: Tensor) -> Tensor:
    """KL(π‖π*) in nats, its mean over contexts: [..., S, X, Y] -> [..., S]."""
    return (log_policy.exp() * (log_policy - toy.log_target)).sum(-1).mean(-1)


def without_data(toy: Toy) -> dict[str, Tensor]:
    """KL(π*‖π) [S] of the two policies that saw no pairs: the prior, and the one that knows nothing."""
    uniform = torch.full_like(toy.log_target, 1 / toy.log_target.shape[-1]).log()
    return {"π₀": forward_kl(toy, toy.log_reference), "uniform": forward_kl(toy, uniform)}


def held_out_loss(toy: Toy, log_policy: Tensor, wins: Tensor) -> Tensor:
    """Mean of −ln σ(γ·Δ ln π) over held-out pairs: [B, N, S, X, Y] and [N, S, X, Y, Y] -> [B, N, S]."""
    losses = []
    for policy in log_policy:  # one β at a time: pairs of responses take the square
        lead = toy.gamma * (policy.unsqueeze(-1) - policy.unsqueeze(-2))
        losses.append(-(wins * logsigmoid(lead)).sum((-1, -2, -3)) / wins.sum((-1, -2, -3)))
    return torch.stack(losses)


def measure(toy: Toy, pairs: Pairs, learn: Learner, betas: Sequence[float]) -> Curves:
    """Policies fitted to all pairs; the held-out loss is that of a fit without the held-out pairs."""
    grid = torch.tensor(betas, dtype=torch.float64)
    shaped = grid.view(-1, 1, 1, 1)
    policy = learn(pairs.every, pairs.fresh, shaped)
    held_out = held_out_loss(toy, learn(pairs.fitted, pairs.fresh, shaped), pairs.held_out)
    limit = learn(MANY * toy.law.unsqueeze(0), MANY * toy.unlabelled_law.unsqueeze(0), shaped)
    return Curves(grid, forward_kl(toy, policy), reverse_kl(toy, policy), held_out, forward_kl(toy, limit).squeeze(1))


def asymptote(toy: Toy) -> Tensor:
    """lim n·E[KL(π*‖π̂)] of Bradley-Terry's maximum likelihood, π̂ ∝ exp(r̂/γ), in nats, [S].

    KL ≈ ½·Var_π*(r̂ − r)/γ², and Cov(r̂) = H⁺/n with H the Laplacian of the weights P(pair)·σ(Δr)·σ(−Δr): the inverse
    Fisher information.
    """
    won = torch.sigmoid(toy.reward.unsqueeze(-1) - toy.reward.unsqueeze(-2))
    weights = (toy.law + toy.law.mT) * won * (1 - won)
    laplacian = torch.diag_embed(weights.sum(-1)) - weights
    target = toy.log_target.exp()
    spread = torch.diag_embed(target) - target.unsqueeze(-1) * target.unsqueeze(-2)
    traces = (spread * torch.linalg.pinv(laplacian, hermitian=True)).sum((-1, -2))
    return traces.mean(-1) / (2 * toy.gamma**2)


def choose(curves: Curves, by: str) -> Mapping[str, Tensor]:
    """Divergences, β and "exact" [N, S] at the β chosen "by" "none", "held-out" or "oracle" (least forward KL)."""
    if by == "none":
        index = torch.zeros_like(curves.forward[0], dtype=torch.long)
    else:
        index = {"held-out": curves.held_out, "oracle": curves.forward}[by].argmin(0)

    def at(values: Tensor) -> Tensor:
        return values.gather(0, index.unsqueeze(0)).squeeze(0)

    exact = curves.exact.gather(0, index)
    return {"forward": at(curves.forward), "reverse": at(curves.reverse), "beta": curves.betas[index], "exact": exact}
