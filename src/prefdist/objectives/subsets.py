"""Plackett-Luce expectations by recursion over the sets of items that are still unranked: O(2^n·n) in place of n!.

A ranking is a chain of remaining sets, from all n items down to none. Sets are handled one size at a time, all sets of a
size and all rows of the batch at once. Everything here is float64; plackett_luce.py is the public side.
"""

import itertools
import math
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import torch
from torch import Tensor, view_as_complex, view_as_real
from torch.utils.checkpoint import checkpoint

_STEP, _NODES = 0.11, 60
"""Quadrature of `spectral_jsd` at the frequencies (k + ½)·step, k < nodes: its error is below 7.6e-11 for any two laws.

The integrand is analytic where |Im ω| < ½, and there |B(ω)| ≤ 1 (Hölder). So the midpoint rule errs by at most
2·N(δ)/(e^{2π(½−δ)/h} − 1), N(δ) = ∫ 2/|(1+4z²)·cosh πz| dx on Im z = ½−δ: 6.1e-11 at the best δ. What is cut off beyond
ω = 6.6 is at most 8·e^{−6.6π}/(π·(1 + 4·6.6²)) = 1.4e-11.
"""
_NUMBERS_AT_ONCE = 2**23
"""Float64 numbers that one chunk of a batch may hold (64 MiB); a single row is never split."""


class Level(NamedTuple):
    """All sets of k of the n items, in lexicographic order."""

    members: Tensor
    """[C(n,k), k]: the items of each set."""
    without: Tensor
    """[C(n,k), k]: which set of k − 1 items is left when the j-th member is taken."""


@cache
def levels(n: int, device: torch.device) -> tuple[Level, ...]:
    """Sets of 1, 2, …, n items."""
    found = []
    # Tensors made in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False):
        number = torch.zeros(2**n, dtype=torch.long)
        for size in range(1, n + 1):
            members = torch.tensor(list(itertools.combinations(range(n), size)))
            bits = 1 << members
            mask = bits.sum(-1)
            without = number[mask.unsqueeze(-1) - bits]
            number[mask] = torch.arange(len(members))
            found.append(Level(members.to(device), without.to(device)))
    return tuple(found)


@cache
def rankings(n: int, device: torch.device) -> Tensor:
    """All n! rankings, [n!, n]."""
    with torch.inference_mode(False):
        return torch.tensor(list(itertools.permutations(range(n)))).to(device)


def entropy(scores: Tensor) -> Tensor:
    """H(S) = Σ_i p_S(i)·(−log p_S(i) + H(S∖i)), the entropy of the ranking of all: [B, n] -> [B]."""
    total = scores.new_zeros(len(scores), 1)
    for level in levels(scores.shape[1], scores.device):
        log_p = scores[:, level.members].log_softmax(-1)
        total = (log_p.exp() * (total[:, level.without] - log_p)).sum(-1)
    return total.squeeze(1)


def kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """KL(S) = Σ_i p_S(i)·(log p_S(i) − log q_S(i) + KL(S∖i)), that of the ranking of all: [B, n] -> [B]."""
    total = p_scores.new_zeros(len(p_scores), 1)
    for level in levels(p_scores.shape[1], p_scores.device):
        log_p, log_q = p_scores[:, level.members].log_softmax(-1), q_scores[:, level.members].log_softmax(-1)
        total = (log_p.exp() * (log_p - log_q + total[:, level.without])).sum(-1)
    return total.squeeze(1)


def spectral_jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """JSD = 2∫_0^∞ (1 − Re B(ω)) / ((1+4ω²)·cosh πω) dω with B(ω) = Σ_τ P(τ)^{½+iω}·Q(τ)^{½−iω}: [B, n] -> [B].

    The identity holds for any two laws: log 2 − JSD = Σ_τ √(PQ)·k(log P/Q), and the weight is the Fourier transform of
    k. For Plackett-Luce, B is a recursion over sets: g(S) = e^{−iω·(lse_S(p) − lse_S(q))}·Σ_i √(p_S(i)·q_S(i))·g(S∖i),
    the items' own phases collected in one factor at the end. |g| ≤ 1, so nothing overflows at any scale of the scores.
    """
    omega = (torch.arange(_NODES, dtype=torch.float64, device=p_scores.device) + 0.5) * _STEP
    weight = 2 * _STEP / ((1 + 4 * omega.square()) * torch.cosh(math.pi * omega))
    one = torch.ones((), dtype=torch.float64, device=p_scores.device)
    g = torch.ones(len(p_scores), 1, _NODES, dtype=torch.complex128, device=p_scores.device)
    for level in levels(p_scores.shape[1], p_scores.device):
        p, q = p_scores[:, level.members], q_scores[:, level.members]
        # The product of the two probabilities' roots, without the gradient of a root at 0.
        root = ((p.log_softmax(-1) + q.log_softmax(-1)) / 2).exp()
        # Real and imaginary parts side by side: a real matrix product costs half a complex one.
        parts = view_as_real(g).flatten(-2).index_select(1, level.without.flatten())
        mixed = root.unsqueeze(-2) @ parts.view(*root.shape, -1)
        phase = (q.logsumexp(-1) - p.logsumexp(-1)).unsqueeze(-1) * omega
        g = view_as_complex(mixed.view(*root.shape[:2], _NODES, 2)) * torch.polar(one, phase)
    phase = (p_scores - q_scores).sum(-1, keepdim=True) * omega
    return ((1 - (g.squeeze(1) * torch.polar(one, phase)).real) * weight).sum(-1)


def spectral_numbers(n: int) -> int:
    """Float64 numbers that `spectral_jsd` keeps for a row: members of all sets times nodes, real and imaginary."""
    return n * 2 ** (n - 1) * 2 * _NODES


def in_chunks(function: Callable[..., Tensor], numbers: int, *scores: Tensor) -> Tensor:
    """`function` of scores [B, n] -> [B], so many rows at once that each with `numbers` fits the limit of memory.

    Where there is more than one chunk, backward computes each again in place of keeping it.
    """
    rows = max(1, _NUMBERS_AT_ONCE // numbers)
    if len(scores[0]) <= rows:
        return function(*scores)
    parts = zip(*(part.split(rows) for part in scores), strict=True)
    return torch.cat([checkpoint(function, *part, use_reentrant=False, preserve_rng_state=False) for part in parts])
