"""Bradley-Terry: two responses, P(a beats b) = σ(score_a − score_b). Natural logarithms, any device, differentiable.

Left out: more than two responses (plackett_luce.py) and where the scores come from (scores.py).
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_prob(score_a: Tensor, score_b: Tensor) -> Tensor:
    """log P(a beats b) for scores [B] -> [B] (ADL Eq. 2 with score = γ·log π)."""
    return logsigmoid(score_a - score_b)


def kl(p_margin: Tensor, q_margin: Tensor) -> Tensor:
    """KL(Bernoulli(σ(p_margin)) ‖ Bernoulli(σ(q_margin))) in nats, margins [B] -> [B] (ADL Eq. 11)."""
    p = torch.sigmoid(p_margin)
    for_a = logsigmoid(p_margin) - logsigmoid(q_margin)
    for_b = logsigmoid(-p_margin) - logsigmoid(-q_margin)
    return p * for_a + (1 - p) * for_b


def jsd(p_margin: Tensor, q_margin: Tensor) -> Tensor:
    """Jensen-Shannon divergence of Bernoulli(σ(p_margin)) and Bernoulli(σ(q_margin)), in [0, ln 2], [B] -> [B]."""
    log_p = torch.stack([logsigmoid(p_margin), logsigmoid(-p_margin)])
    log_q = torch.stack([logsigmoid(q_margin), logsigmoid(-q_margin)])
    log_mixture = torch.logaddexp(log_p, log_q) - math.log(2)
    to_p = (log_p.exp() * (log_p - log_mixture)).sum(0)
    to_q = (log_q.exp() * (log_q - log_mixture)).sum(0)
    return (to_p + to_q) / 2
