"""Plackett-Luce: a ranking of n responses, drawn best first with probability ∝ exp(score) among those left.

Left out: two responses (bradley_terry.py, the same law for n = 2).
"""

import torch
from torch import Tensor


def log_prob(scores: Tensor, ranking: Tensor) -> Tensor:
    """log P(ranking) for scores [B, n] and ranking [B, n] (item indices, best first) -> [B].

    Source: PAD (arXiv 2502.14272), the Plackett-Luce likelihood Π_k exp(s_k) / Σ_{j≥k} exp(s_j).
    """
    ordered = scores.gather(-1, ranking)
    log_left = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return (ordered - log_left).sum(-1)


def sample(scores: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Rankings [B, num_samples, n] (item indices, best first) drawn from scores [B, n], by sorting Gumbel-noised scores."""
    shape = (scores.shape[0], num_samples, scores.shape[1])
    uniform = torch.rand(shape, generator=generator, dtype=scores.dtype, device=scores.device)
    smallest = torch.finfo(scores.dtype).tiny
    gumbel = -torch.log(-torch.log(uniform.clamp_min(smallest)))
    return (scores[:, None] + gumbel).argsort(dim=-1, descending=True)
