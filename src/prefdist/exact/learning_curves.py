"""What each method learns from n pairs of a toy world: its divergences from π* over n, β and seeds (ADL, App. D.1).

Every method sees the pairs through counts of wins. Reward models and likelihoods have the same ridge, beside the sum over
pairs: its share of the loss vanishes as 1/n, and it bounds what separable pairs would send to infinity.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from prefdist.exact.bradley_terry import fit
from prefdist.exact.closed_forms import tilt
from prefdist.exact.pairs import count_wins, law_of_wins
from prefdist.exact.policy_fits import fit_policy

SHUFFLES = {"fitted": 0, "held out": 1, "fresh": 2}
"""Streams of pairs of one seed."""


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


@dataclass(frozen=True)
class Pairs:
    """Wins [N, S, X, Y, Y] among n pairs: all, those fitted when β is chosen, those held out then; and unlabelled fresh ones."""

    sizes: Sequence[int]
    every: Tensor
    fitted: Tensor
    held_out: Tensor
    fresh: Tensor


@dataclass(frozen=True)
class Curves:
    """Of one method, [B, N, S]: divergences from π* in nats (means over contexts), fitted to all pairs; and the held-out loss.

    betas [B]: the first is the method without a regulariser, or at β = γ where it has no such form. log_policy [B, N, S,
    X, Y].
    """

    betas: Tensor
    forward: Tensor
    reverse: Tensor
    held_out: Tensor


def draw_pairs(toy: Toy, sizes: Sequence[int], held_out: float) -> Pairs:
    """`held_out`: share of every n that is held out, rounded down. ValueError: none or all of the smallest n."""
    withheld = [int(n * held_out) for n in sizes]
    if not 0 < withheld[0] < sizes[0]:
        raise ValueError(f"held_out must leave pairs on both sides of {sizes[0]}, got {held_out:g}")

    def draw(stream: str, law: Tensor, numbers: Sequence[int]) -> Tensor:
        return count_wins(law, numbers, [(seed, SHUFFLES[stream]) for seed in toy.seeds])

    labelled = law_of_wins(toy.log_reference, toy.reward)
    unlabelled = law_of_wins(toy.log_reference, torch.zeros_like(toy.reward))
    fitted = draw("fitted", labelled, [n - without for n, without in zip(sizes, withheld, strict=True)])
    held = draw("held out", labelled, withheld)
    return Pairs(sizes, fitted + held, fitted, held, draw("fresh", unlabelled, sizes))


Learner = Callable[[Tensor, Tensor], Tensor]
"""Wins [N, S, X, Y, Y] and β [B, 1, 1, 1] -> log π [B, N, S, X, Y]."""


def tilted(toy: Toy, ridge: float, powers: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Learner:
    """π ∝ π₀^power·exp(r̂/temperature) for the temperature and power of β that `powers` gives."""

    def learn(wins: Tensor, beta: Tensor) -> Tensor:
        temperature, power = powers(beta.unsqueeze(-1))
        return tilt(toy.log_reference, fit(wins, ridge), temperature=temperature, ref_power=power)

    return learn


def likelihood(toy: Toy, pairs: Pairs, ridge: float) -> Learner:
    """PMLE with β·KL in the loss (ADL, Eq. 5), means over all n pairs and over contexts."""

    def learn(wins: Tensor, beta: Tensor) -> Tensor:
        return _with_kl(toy, wins, beta * _per_context(wins), ridge)

    return learn


def distilled(toy: Toy, pairs: Pairs, ridge: float, *, fresh: bool) -> Learner:
    """Distillation of r̂ with β·KL in the loss (ADL, Eq. 12): on the labelled pairs themselves, or on as many fresh ones."""

    def learn(wins: Tensor, beta: Tensor) -> Tensor:
        reward = fit(wins, ridge)
        seen = pairs.fresh if fresh else wins
        soft = (seen + seen.mT) * torch.sigmoid(reward.unsqueeze(-1) - reward.unsqueeze(-2))
        return _with_kl(toy, soft, beta * _per_context(soft), ridge)

    return learn


def _per_context(wins: Tensor) -> Tensor:
    """Pairs a context on average: [N, S, X, Y, Y] -> [N, S, 1]. The loss is n times the mean loss."""
    return wins.sum((-1, -2)).mean(-1, keepdim=True)


def _with_kl(toy: Toy, wins: Tensor, kl: Tensor, ridge: float) -> Tensor:
    shape = torch.broadcast_shapes(kl.shape, wins.shape[:-2])
    return fit_policy(wins, toy.log_reference, gamma=toy.gamma, kl=kl.expand(shape), ridge=ridge)


def forward_kl(toy: Toy, log_policy: Tensor) -> Tensor:
    """KL(π*‖π) in nats, its mean over contexts: [..., S, X, Y] -> [..., S]."""
    return (toy.log_target.exp() * (toy.log_target - log_policy)).sum(-1).mean(-1)


def reverse_kl(toy: Toy, log_policy: Tensor) -> Tensor:
    """KL(π‖π*) in nats, its mean over contexts: [..., S, X, Y] -> [..., S]."""
    return (log_policy.exp() * (log_policy - toy.log_target)).sum(-1).mean(-1)


def held_out_loss(toy: Toy, log_policy: Tensor, wins: Tensor) -> Tensor:
    """Mean of −ln σ(γ·Δ ln π) over held-out pairs: [B, N, S, X, Y] and [N, S, X, Y, Y] -> [B, N, S]."""
    losses = []
    for policy in log_policy:  # one β at a time: pairs of responses take the square
        lead = toy.gamma * (policy.unsqueeze(-1) - policy.unsqueeze(-2))
        losses.append(-(wins * logsigmoid(lead)).sum((-1, -2, -3)) / wins.sum((-1, -2, -3)))
    return torch.stack(losses)


def measure(toy: Toy, pairs: Pairs, learn: Learner, betas: Sequence[float]) -> Curves:
    grid = torch.tensor(betas, dtype=torch.float64)
    shaped = grid.view(-1, 1, 1, 1)
    policy = learn(pairs.every, shaped)
    chosen_on = held_out_loss(toy, learn(pairs.fitted, shaped), pairs.held_out)
    return Curves(grid, forward_kl(toy, policy), reverse_kl(toy, policy), chosen_on)


def choose(curves: Curves, by: str) -> Mapping[str, Tensor]:
    """Both divergences and β [N, S] at the β chosen a seed and n "by" "none", "held-out" or "oracle" (forward KL)."""
    if by == "none":
        index = torch.zeros_like(curves.forward[0], dtype=torch.long)
    else:
        index = {"held-out": curves.held_out, "oracle": curves.forward}[by].argmin(0)

    def at(values: Tensor) -> Tensor:
        return values.gather(0, index.unsqueeze(0)).squeeze(0)

    return {"forward": at(curves.forward), "reverse": at(curves.reverse), "beta": curves.betas[index]}
