"""Finite classes of policies around π*, pairs labelled by π*, and the maximum likelihood over a class by enumeration.

A class holds π ∝ π*·e^{s·d} for D random directions d and distances s = reach·2^{−k}: near policies in every direction, so that
what is learnt keeps getting nearer to π* as data grow. Left out: several contexts, and pairs that are not independent.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.random import Generator as Numpy
from torch import Generator, Tensor

from prefdist.exact.mixtures import check_outputs
from prefdist.exact.pairs import law_of_wins
from prefdist.exact.smoothing import divergence, loss


@dataclass(frozen=True)
class Classes:
    """S worlds. log_target, log_far [S, K]: π*, and ν far from it; directions [S, D, K]; log_policies [S, M, K].

    Policy m lies in direction m // octaves at distance reach·2^{−(m % octaves)}; the last one is π*.
    """

    log_target: Tensor
    log_far: Tensor
    directions: Tensor
    log_policies: Tensor
    octaves: int

    @property
    def divergences(self) -> Tensor:
        """KL(π*‖π) [S, M] in nats."""
        return divergence(self.log_target.exp().unsqueeze(1), self.log_policies)

    def members(self, directions: Tensor, farthest: Tensor | None = None) -> Tensor:
        """Masks [S, M]: π*, all policies in `directions` [S, D] (boolean), and of those in `farthest` the farthest one."""
        inside = directions.unsqueeze(-1).expand(-1, -1, self.octaves).clone()
        if farthest is not None:
            inside[..., 0] |= farthest
        return torch.cat([inside.flatten(1), torch.ones(len(inside), 1, dtype=torch.bool)], dim=1)


def random_classes(
    *, worlds: int, actions: int, directions: int, octaves: int, reach: float, spread: float, far_spread: float, seed: int
) -> Classes:
    """Logits of π* from N(0, spread²), of ν from N(0, far_spread²), of directions from N(0, 1), all from one seed."""
    check_outputs(actions)
    generator = Generator().manual_seed(seed)
    target, far = torch.randn((2, worlds, actions), generator=generator, dtype=torch.float64)
    drawn = torch.randn((worlds, directions, actions), generator=generator, dtype=torch.float64)
    log_target = (spread * target).log_softmax(-1)
    scales = reach * 0.5 ** torch.arange(octaves, dtype=torch.float64)
    shifts = (scales.unsqueeze(-1) * drawn.unsqueeze(-2)).flatten(1, 2)
    policies = (log_target.unsqueeze(1) + shifts).log_softmax(-1)
    log_policies = torch.cat([policies, log_target.unsqueeze(1)], dim=1)
    return Classes(log_target, (far_spread * far).log_softmax(-1), drawn, log_policies, octaves)


def draw_wins(log_mu: Tensor, reward: Tensor, pairs: int, random: Numpy) -> Tensor:
    """How often a beat b [S, K, K] among n pairs of iid responses from μ; P(a beats b) = σ(r(a) − r(b)). ValueError: n < 1."""
    if pairs < 1:
        raise ValueError(f"pairs must be ≥ 1, got {pairs}")
    law = law_of_wins(log_mu.unsqueeze(1), reward.unsqueeze(1)).squeeze(1)
    cells = law.flatten(1).numpy()
    counts = random.multinomial(pairs, cells / cells.sum(-1, keepdims=True))
    return torch.from_numpy(counts.astype(np.float64)).view(law.shape)


def log_likelihoods(wins: Tensor, rewards: Tensor) -> Tensor:
    """Σ wins[a, b]·ln σ(R(a) − R(b)): [S, K, K], [S, M, K] -> [S, M] in nats (ADL, Eq. 4 and 9).

    Each pair of responses once, with x = R(a) − R(b): won·ln σ(x) + lost·ln σ(−x) = won·x − (won + lost)·ln(1 + e^x).
    """
    size = wins.shape[-1]
    first, second = torch.triu_indices(size, size, offset=1)
    won, lost = wins[:, first, second], wins[:, second, first]
    gaps = rewards[..., first] - rewards[..., second]
    return torch.einsum("smp,sp->sm", gaps, won) - torch.einsum("smp,sp->sm", torch.nn.functional.softplus(gaps), won + lost)


def most_likely(log_likelihood: Tensor, members: Tensor) -> Tensor:
    """Which of the members [S, M] of each class is most likely: indices [S]."""
    return log_likelihood.masked_fill(~members, -torch.inf).argmax(-1)


def reverse_kl(classes: Classes, reward: Tensor, gamma: float) -> Tensor:
    """Which policy of Π minimises −E_π[R̂] − γ·H(π), ADL's Eq. 15 at β = 0: rewards [S, K] -> indices [S]."""
    return loss(classes.log_policies.exp(), classes.log_policies, reward.unsqueeze(1), 0.0, gamma).argmin(-1)
