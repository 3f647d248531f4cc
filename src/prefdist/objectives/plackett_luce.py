"""Plackett-Luce: a ranking of n responses, drawn best first with probability ∝ exp(score) among those left.

Divergences in nats, computed in float64 and returned in the input's dtype; differentiable in both arguments. Scores are
finite. Exact for up to MAX_ITEMS responses, at O(2^n·n); plackett_luce_estimators.py has unbiased estimates for any n.
Left out: two responses (bradley_terry.py, the same law for n = 2), the best response alone (first_choice.py).
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from prefdist.objectives import subsets

MAX_ITEMS = 14
"""The most responses of the exact divergences: one prompt's JSD holds 0.1 GiB at 14, twice as much with each more."""
MAX_ENUMERATED = 9
"""The most responses of `ag_pooled`, which has no recursion: 362,880 rankings."""
_ENUMERATED = 5
"""Up to here `jsd` adds up all rankings: 120 of them cost less than the quadrature, 720 cost more."""


def log_prob(scores: Tensor, ranking: Tensor) -> Tensor:
    """log P(ranking) for scores [B, n] and ranking [B, n] (item indices, best first) -> [B].

    Source: PAD (arXiv 2502.14272), the Plackett-Luce likelihood Π_k exp(s_k) / Σ_{j≥k} exp(s_j).
    """
    return _log_prob_ordered(scores.gather(-1, ranking))


def sample(scores: Tensor, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
    """Rankings [B, num_samples, n] (item indices, best first) drawn from scores [B, n], by sorting Gumbel-noised scores."""
    shape = (scores.shape[0], num_samples, scores.shape[1])
    uniform = torch.rand(shape, generator=generator, dtype=scores.dtype, device=scores.device)
    smallest = torch.finfo(scores.dtype).tiny
    gumbel = -torch.log(-torch.log(uniform.clamp_min(smallest)))
    return (scores[:, None] + gumbel).argsort(dim=-1, descending=True)


def entropy(scores: Tensor) -> Tensor:
    """Entropy of the ranking, in [0, ln n!]: scores [B, n] -> [B]. ValueError if n is above MAX_ITEMS."""
    return _exact(subsets.entropy, _recursion_numbers, scores)


def kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """KL(P‖Q) of two laws of the ranking: scores [B, n] each -> [B]. Convex in `q_scores`.

    The chain rule over the sets that remain. ValueError if n is above MAX_ITEMS or the shapes differ.
    """
    return _exact(subsets.kl, _recursion_numbers, p_scores, q_scores)


def jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two laws of the ranking, in [0, ln 2]: scores [B, n] each -> [B].

    The sum over all rankings for n ≤ 5; above, a quadrature whose error is below 1e-10 at any scale of the scores
    (subsets.spectral_jsd). Not clamped. ValueError if n is above MAX_ITEMS or the shapes differ.
    """
    if p_scores.shape[-1] <= _ENUMERATED:
        return _exact(enumerated_jsd, _enumeration_numbers, p_scores, q_scores)
    return _exact(subsets.spectral_jsd, subsets.spectral_numbers, p_scores, q_scores)


def ag(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """Arithmetic-geometric divergence ½[KL(M‖P) + KL(M‖Q)], M = (P+Q)/2 of each prompt: scores [B, n] each -> [B].

    It is (KL(P‖Q) + KL(Q‖P))/4 − JSD, because AG + JSD = ½Σ P·ln P + ½Σ Q·ln Q − ¼Σ (P+Q)·(ln P + ln Q) =
    ¼Σ (P−Q)·(ln P − ln Q). Source: the loss that PAD's code computes for one prompt, KL(M‖√(PQ)), √(PQ) not normalised.
    """
    return (kl(p_scores, q_scores) + kl(q_scores, p_scores)) / 4 - jsd(p_scores, q_scores)


def ag_pooled(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """What PAD's code computes for B prompts at once: scores [B, n] each -> a scalar, by enumeration.

    M = ½Σ_b (P_b + Q_b) is pooled over the prompts and adds up to B; the loss is the mean over b of
    ½Σ_τ M·(ln M − ln P_b) + ½Σ_τ M·(ln M − ln Q_b). For B = 1 it is `ag`; for B > 1 no divergence: P = Q gives B·ln B
    or more. For reproductions of that code alone. ValueError if n is above MAX_ENUMERATED or the shapes differ.
    """
    _check(p_scores, q_scores, limit=MAX_ENUMERATED, advice="the pooled loss has no other form")
    log_p, log_q = (_log_prob_all(scores.double()) for scores in (p_scores, q_scores))
    log_m = torch.cat([log_p, log_q]).logsumexp(0) - math.log(2)
    return (log_m.exp() * (log_m - (log_p + log_q) / 2)).sum(-1).mean().to(p_scores.dtype)


def enumerated_jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    """The JSD as a sum over all n! rankings: scores [B, n] each -> [B]. `jsd` uses it for few items."""
    log_p, log_q = _log_prob_all(p_scores), _log_prob_all(q_scores)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)) / 2


def _log_prob_ordered(ordered: Tensor) -> Tensor:
    """Scores [..., n] in the order of the ranking -> [...]."""
    log_left = ordered.flip(-1).logcumsumexp(-1).flip(-1)
    return (ordered - log_left).sum(-1)


def _log_prob_all(scores: Tensor) -> Tensor:
    """Log-probabilities of all rankings: [B, n] -> [B, n!]."""
    return _log_prob_ordered(scores[:, subsets.rankings(scores.shape[1], scores.device)])


def _exact(function: Callable[..., Tensor], numbers: Callable[[int], int], *scores: Tensor) -> Tensor:
    """In float64, chunk by chunk; `numbers` of n are what one row holds in memory."""
    _check(*scores, limit=MAX_ITEMS, advice="divide the responses into smaller lists, or use plackett_luce_estimators")
    found = subsets.in_chunks(function, numbers(scores[0].shape[1]), *(each.double() for each in scores))
    return found.to(scores[0].dtype)


def _check(*scores: Tensor, limit: int, advice: str) -> None:
    if any(each.dim() != 2 or each.shape != scores[0].shape for each in scores):
        raise ValueError(f"scores must be [B, n] and of one shape, got {[tuple(each.shape) for each in scores]}")
    n = scores[0].shape[1]
    if n > limit:
        raise ValueError(f"{n} responses a prompt, and the exact method takes at most {limit}: {advice}")


def _recursion_numbers(n: int) -> int:
    """The members of all sets, for two laws and what is made of them."""
    return 8 * n * 2 ** (n - 1)


def _enumeration_numbers(n: int) -> int:
    """The scores of all rankings in their order, for two laws and what is made of them."""
    return 8 * n * math.factorial(n)
