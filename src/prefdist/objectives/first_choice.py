"""The law of the best of n responses alone: P(i is best) = exp(score_i) / Σ_j exp(score_j), Plackett-Luce's first choice.

Nats, any n and device, differentiable in both arguments. By data processing its divergences are at most those of the whole
ranking (plackett_luce.py).
"""

import math

import torch
from torch import Tensor


def log_prob(scores: Tensor, best: Tensor) -> Tensor:
    """log P(`best` is best) for scores [B, n] and item indices [B] -> [B]."""
    return scores.log_softmax(-1).gather(-1, best.unsqueeze(-1)).squeeze(-1)


def kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """KL(P‖Q): scores [B, n] each -> [B]."""
    return _kl(p_scores.log_softmax(-1), q_scores.log_softmax(-1))


def jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """Jensen-Shannon divergence, in [0, ln 2]: scores [B, n] each -> [B]."""
    log_p, log_q = p_scores.log_softmax(-1), q_scores.log_softmax(-1)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return (_kl(log_p, log_m) + _kl(log_q, log_m)) / 2


def _kl(log_p: Tensor, log_q: Tensor) -> Tensor:
    return (log_p.exp() * (log_p - log_q)).sum(-1)
