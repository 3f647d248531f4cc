"""Contrastive decoding of whole responses and token by token, and how far apart the two are.

Whole responses: p_θ^a·p_ref^{−b}/Z. For p_θ ∝ p_ref·e^{r/β} this is p_ref^{a−b}·e^{a·r/β}/Z: a = 1 + c, b = c is the tilt at
β/(1 + c), and a = b leaves the reward alone (Huang's note, contrastive formula; c in −1 … 0 is DeRa, arXiv 2402.02992).
Token by token: the same powers of each conditional, normalised at every step, which is what decoding does. Left out:
plausibility masks (sampling/contrastive.py).
"""

import torch
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised, tilt
from prefdist.exact.worlds import Space


def contrast(log_policy: Tensor, log_ref: Tensor, *, a: float | Tensor, b: float | Tensor) -> Tensor:
    """log of p_θ^a·p_ref^{−b}/Z: [..., Y], [..., Y] -> [..., Y]. ValueError: a law that is not normalised or has zeros."""
    for name, log_p in {"log_policy": log_policy, "log_ref": log_ref}.items():
        check_normalised(log_p, name)
        if not bool(log_p.isfinite().all()):
            raise ValueError(f"{name} has zero support (log 0), which a contrast cannot weigh")
    return (a * log_policy - b * log_ref).log_softmax(-1)


def contrasted_tilt(log_ref: Tensor, reward: Tensor, *, beta: float, a: float, b: float) -> Tensor:
    """The same of p_θ ∝ p_ref·e^{r/β} in closed form, p_ref^{a−b}·e^{a·r/β}/Z: [..., Y]. Errors of `tilt`."""
    return tilt(log_ref, a * reward, temperature=beta, ref_power=a - b)


def token_logits(space: Space, log_p: Tensor) -> Tensor:
    """The conditionals of a law of responses: log-probabilities [..., Y] -> log P(token | prefix) [..., n_prefixes, V].

    Its inverse is space.token_logps(...).sum(-1). A prefix of probability 0 has no conditionals: NaN.
    """
    check_normalised(log_p, "log_p")
    cells = (space.prefixes * space.vocabulary + space.tokens)[space.mask]
    responses = space.mask.nonzero(as_tuple=True)[0]
    mass = log_p.new_zeros(*log_p.shape[:-1], space.n_prefixes * space.vocabulary)
    mass = mass.index_add(-1, cells, log_p.exp()[..., responses])
    table = mass.unflatten(-1, (space.n_prefixes, space.vocabulary))
    return (table / table.sum(-1, keepdim=True)).log()


def token_contrast(space: Space, policy: Tensor, reference: Tensor, *, a: float, b: float) -> Tensor:
    """Log-probabilities [..., Y] of ∏_t π_θ(y_t|y_<t)^a·π_ref(y_t|y_<t)^{−b}/Z(y_<t): logits [..., n_prefixes, V] of both."""
    return space.token_logps(a * policy.log_softmax(-1) - b * reference.log_softmax(-1)).sum(-1)


def token_gap(space: Space, log_policy: Tensor, log_ref: Tensor, *, a: float, b: float) -> Tensor:
    """KL(contrast of whole responses ‖ token by token) in nats: [..., Y], [..., Y] -> [...]. 0 for responses of one token."""
    whole = contrast(log_policy, log_ref, a=a, b=b)
    tokens = token_contrast(space, token_logits(space, log_policy), token_logits(space, log_ref), a=a, b=b)
    return torch.sum(whole.exp() * (whole - tokens), -1)
