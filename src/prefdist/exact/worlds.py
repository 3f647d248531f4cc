"""Enumerable worlds: every response of a small vocabulary and length, and random policies over them.

A policy is a table of token logits, one row a prefix, so the log-probability of a response is a sum over its tokens.
With length 1 this is the plain table of contexts × actions. Left out: transformers, and sampling of any kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

EOS = 0
MOST_RESPONSES = 10_000
"""Of one space: tables of pairs of responses have the square of it."""


@dataclass(frozen=True)
class Space:
    """All Y responses over V tokens: each ends with its first EOS (token 0), or without one at T tokens.

    prefixes, tokens, mask [Y, T]: which row of logits draws a token, which token it is, and whether it exists.
    """

    prefixes: Tensor
    tokens: Tensor
    mask: Tensor
    n_prefixes: int
    vocabulary: int

    @property
    def n_tokens(self) -> Tensor:
        """[Y], EOS included."""
        return self.mask.sum(-1)

    def token_logps(self, logits: Tensor) -> Tensor:
        """Logits [..., n_prefixes, V] -> log-probabilities of the tokens [..., Y, T] in nats, 0 outside the mask."""
        table = logits.log_softmax(-1).flatten(-2)
        return table[..., self.prefixes * self.vocabulary + self.tokens] * self.mask


def enumerate_space(vocabulary: int, length: int) -> Space:
    """The space of responses of at most `length` tokens. ValueError where they are more than can be enumerated."""
    number = sum((vocabulary - 1) ** t for t in range(length)) + (vocabulary - 1) ** length
    if number > MOST_RESPONSES:
        raise ValueError(
            f"{vocabulary} tokens and a length of {length} make {number} responses, and {MOST_RESPONSES} are the limit of "
            "exact enumeration: take a smaller vocabulary or length"
        )
    nodes = [prefix for size in range(length) for prefix in product(range(1, vocabulary), repeat=size)]
    responses = [(*prefix, EOS) for prefix in nodes] + list(product(range(1, vocabulary), repeat=length))
    row_of = {prefix: row for row, prefix in enumerate(nodes)}
    shape = (len(responses), length)
    prefixes, tokens = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.long)
    mask = torch.zeros(shape, dtype=torch.bool)
    for row, response in enumerate(responses):
        for t, token in enumerate(response):
            prefixes[row, t], tokens[row, t], mask[row, t] = row_of[response[:t]], token, True
    return Space(prefixes, tokens, mask, len(nodes), vocabulary)


@dataclass(frozen=True)
class Worlds:
    """S independent worlds of X contexts each on one space, their contexts side by side (N = S·X).

    reference [N, n_prefixes, V]: logits of π₀. log_target, log_mu [N, Y]: log π* and the log-law of the offline
    responses. Preferences follow P*(a beats b) = σ(r(a) − r(b)) with r = gamma·log π* (ADL, arXiv 2506.01523, Eq. 2).
    """

    space: Space
    gamma: float
    n_worlds: int
    reference: Tensor
    log_target: Tensor
    log_mu: Tensor

    @property
    def log_reference(self) -> Tensor:
        """log π₀ [N, Y]."""
        return self.space.token_logps(self.reference).sum(-1)

    @property
    def reward(self) -> Tensor:
        """r [N, Y]."""
        return self.gamma * self.log_target

    @property
    def preference(self) -> Tensor:
        """P*(a beats b) [N, Y, Y]."""
        return torch.sigmoid(self.reward.unsqueeze(-1) - self.reward.unsqueeze(-2))


def random_worlds(space: Space, *, contexts: int, seeds: Sequence[int], gamma: float, spread: float) -> Worlds:
    """Logits of π*, π₀ and μ drawn from N(0, spread²) in float64; a seed is one world and gives the same one always."""
    drawn = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        shape = (3, contexts, space.n_prefixes, space.vocabulary)
        drawn.append(spread * torch.randn(shape, generator=generator, dtype=torch.float64))
    target, reference, mu = torch.cat(drawn, dim=1)
    sequence_logps = [space.token_logps(logits).sum(-1) for logits in (target, mu)]
    return Worlds(space, gamma, len(seeds), reference, *sequence_logps)
