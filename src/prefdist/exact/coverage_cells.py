"""One law and number of pairs: what PMLE and reverse KL learn over each class, in many worlds, and its coverage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from prefdist.exact.coverage import between, coverages
from prefdist.exact.finite_classes import Classes, draw_wins, log_likelihoods, most_likely, reverse_kl

WHOLE, WORST = "all", "worst direction"
POLICIES = {
    WHOLE: "all directions, all distances",
    "well covered near": "better covered half at all distances, the other half farthest only",
    "badly covered near": "worse covered half at all distances, the other half farthest only",
    WORST: "the direction of largest coverage, all distances",
}
"""Classes of policies for PMLE, which all hold π*. The second and third have the same size and the same C."""
REWARDS = {
    WHOLE: "the rewards of all of Π",
    "best quarter": "of the best covered quarter of directions",
    "any quarter": "of a quarter of directions, whatever their coverage",
    "worst quarter": "of the worst covered quarter of directions",
}
"""Classes of rewards for reverse KL over all of Π; their policies P_γ(R) are a part of it."""


@dataclass(frozen=True)
class Learned:
    """Over one class: its size, its C [S], and KL(π*‖π̂) in nats [S]."""

    size: int
    coverage: Tensor
    error: Tensor


@dataclass(frozen=True)
class Cell:
    """shift t of μ from π*, n pairs, γ. PMLE by class of policies, reverse KL over Π by class of rewards.

    median [S]: of the coverages of Π's directions. same: share of worlds × classes of rewards in which reverse KL over Π and
    PMLE over P_γ(R) learn the same policy.
    """

    shift: float
    pairs: int
    gamma: float
    pmle: Mapping[str, Learned]
    reverse_kl: Mapping[str, Learned]
    median: Tensor
    same: float


def simulate(classes: Classes, shift: float, pairs: int, gamma: float, seed: Sequence[int]) -> Cell:
    """Pairs from μ at `shift`, labelled by σ(γ·Δ ln π*). All classes see the same pairs, each with its own maximum."""
    ratios, log_likelihood = _observe(classes, shift, pairs, gamma, seed)
    pmle, reverse, same = {}, {}, []
    for name, members in policy_classes(classes, ratios).items():
        pmle[name] = _learned(classes, ratios, members, most_likely(log_likelihood, members))
    for name, members in reward_classes(classes, ratios).items():
        likeliest = most_likely(log_likelihood, members)
        reward = gamma * _pick(classes.log_policies, likeliest)
        found = reverse_kl(classes, reward, gamma)
        same.append((found == likeliest).double())
        reverse[name] = _learned(classes, ratios, members, found)
    return Cell(shift, pairs, gamma, pmle, reverse, ratios.median(-1).values, float(torch.stack(same).mean()))


def by_size(classes: Classes, pairs: int, gamma: float, seed: Sequence[int]) -> list[Learned]:
    """PMLE over the first 1, 2, 4, … directions, pairs from μ = π*: C is 1 whatever the size."""
    ratios, log_likelihood = _observe(classes, 0.0, pairs, gamma, seed)
    place = torch.arange(ratios.shape[-1]).expand_as(ratios)
    counts = [2**k for k in range(ratios.shape[-1].bit_length())]
    members = [classes.members(place < count) for count in counts]
    return [_learned(classes, ratios, inside, most_likely(log_likelihood, inside)) for inside in members]


def _observe(classes: Classes, shift: float, pairs: int, gamma: float, seed: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Coverage of each direction [S, D], and log-likelihoods [S, M] of all policies."""
    log_mu = between(classes.log_target, classes.log_far, shift)
    wins = draw_wins(log_mu, gamma * classes.log_target, pairs, np.random.default_rng(seed))
    ratios = coverages(classes.directions, classes.log_target, log_mu)
    return ratios, log_likelihoods(wins, gamma * classes.log_policies)


def policy_classes(classes: Classes, ratios: Tensor) -> dict[str, Tensor]:
    """Members [S, M] of the classes of POLICIES by the coverage of each direction [S, D], D even."""
    rank = _ranks(ratios)
    count = ratios.shape[-1]
    worse = rank >= count // 2
    members = (
        classes.members(rank >= 0),
        classes.members(~worse, farthest=worse),
        classes.members(worse, farthest=~worse),
        classes.members(rank == count - 1),
    )
    return dict(zip(POLICIES, members, strict=True))


def reward_classes(classes: Classes, ratios: Tensor) -> dict[str, Tensor]:
    """Members [S, M] of P_γ(R) for the classes of REWARDS by the coverage of each direction [S, D], D a multiple of 4."""
    rank = _ranks(ratios)
    count = ratios.shape[-1]
    quarter = count // 4
    place = torch.arange(count).expand_as(rank)
    chosen = (rank >= 0, rank < quarter, place < quarter, rank >= count - quarter)
    return {name: classes.members(directions) for name, directions in zip(REWARDS, chosen, strict=True)}


def _ranks(ratios: Tensor) -> Tensor:
    """0 is the smallest coverage. Rounded: where μ = π* all are 1, and their order is that in which they were drawn."""
    return ratios.round(decimals=9).argsort(dim=-1, stable=True).argsort(-1)


def _learned(classes: Classes, ratios: Tensor, members: Tensor, found: Tensor) -> Learned:
    present = members[:, :-1].view(*ratios.shape, classes.octaves).any(-1)
    coverage = ratios.masked_fill(~present, 0).amax(-1)
    return Learned(int(members[0].sum()), coverage, _pick(classes.divergences, found))


def _pick(table: Tensor, index: Tensor) -> Tensor:
    """[S, M, ...], [S] -> [S, ...]."""
    return table[torch.arange(len(index)), index]
