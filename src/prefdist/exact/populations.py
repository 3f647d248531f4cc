"""Populations of voters: what they answer when they compare responses, and which policy an objective learns of them.

Left out: voters whose answers depend on a prompt, and annotators who err.
"""

import torch
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised
from prefdist.objectives.registry import Objective

HALVINGS = 64
"""Of the bracket: 2·BRACKET/2⁶⁴ is 1e-15 nats, below the spacing of float64 at odds of interest."""
BRACKET = 1e4
"""Nats: log odds of interest are smaller, ln(p/(1−p))/α with α = 0.01 included."""
VOTERS = ("Luce", "favourite, ties at random", "favourite, ties abstain")
"""How voters compare two responses; see `wins`."""


def learned_odds(objective: Objective, share: Tensor, log_odds_reference: Tensor) -> Tensor:
    """log π(y)/π(y′) of the policy over two responses at which the exact loss of a population is least: [B] nats.

    share [B]: of the population that prefers y to y′, in (0, 1); log_odds_reference [B]: log π₀(y)/π₀(y′). The loss is
    share·loss(y ≻ y′) + (1 − share)·loss(y′ ≻ y). It is convex in the log odds, so halving the bracket of its autograd
    slope finds the minimum without any formula of the objective. ValueError: a share of 0 or 1 has no finite optimum.
    """
    if not bool(((share > 0) & (share < 1)).all()):
        raise ValueError("share must lie in (0, 1): of a unanimous population the loss falls for ever")
    low, high = torch.full_like(share, -BRACKET), torch.full_like(share, BRACKET)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        rising = _slope(objective, middle, share, log_odds_reference) > 0
        low, high = torch.where(rising, low, middle), torch.where(rising, middle, high)
    return (low + high) / 2


def _slope(objective: Objective, log_odds: Tensor, share: Tensor, log_odds_reference: Tensor) -> Tensor:
    """d loss/d log odds [B]."""
    log_odds = log_odds.detach().requires_grad_()
    policy, reference = _log_probabilities(log_odds), _log_probabilities(log_odds_reference)
    loss = share * objective({"policy": policy, "reference": reference}, {})
    swapped = {"policy": policy.flip(-1), "reference": reference.flip(-1)}
    (slope,) = torch.autograd.grad((loss + (1 - share) * objective(swapped, {})).sum(), log_odds)
    return slope


def _log_probabilities(log_odds: Tensor) -> Tensor:
    return torch.nn.functional.logsigmoid(torch.stack([log_odds, -log_odds], dim=-1))


def wins(log_shares: Tensor, voters: str) -> Tensor:
    """Votes for a over b when all compare every pair once, per voter: log-shares of K types [..., K] -> [..., K, K].

    Type k likes response k best. "Luce": everyone prefers a to b with probability w_a/(w_a + w_b) (Luce 1959).
    "favourite, …": a voter prefers its own response, and between two others tosses a coin, or abstains.
    ValueError: shares that are zero or do not sum to one, or another kind of voters.
    """
    check_normalised(log_shares, "log_shares")
    if not bool(log_shares.isfinite().all()):
        raise ValueError("log_shares has a type with zero support (log 0): leave it out, it has no finite score")
    log_a, log_b = torch.broadcast_tensors(log_shares.unsqueeze(-1), log_shares.unsqueeze(-2))
    if voters == "Luce":
        return torch.sigmoid(log_a - log_b)
    if voters == "favourite, ties at random":
        return (1 + log_a.exp() - log_b.exp()) / 2
    if voters == "favourite, ties abstain":
        return log_a.exp()
    raise ValueError(f"voters must be one of {'; '.join(VOTERS)}: got {voters}")
