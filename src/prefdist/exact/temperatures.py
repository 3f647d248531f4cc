"""Global and token temperature of a policy, and what both do to the length of a toy language model's responses.

Global temperature raises the probability of a whole response to the power 1/τ; token temperature does so with every
token's, and normalises again at each step. Left out: sampling.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised
from prefdist.exact.worlds import Space

LONGEST = 100_000
"""Tokens up to which lengths are summed one by one."""


def at_global_temperature(log_p: Tensor, tau: float | Tensor) -> Tensor:
    """log of π^{1/τ}/Z: [..., Y] -> [..., Y] (SPL, arXiv 2511.08594: π_SPL = π_DPO^{β/α}/Z, τ = α/β).

    ValueError: τ ≤ 0, or log_p not normalised.
    """
    _check_temperature(tau)
    check_normalised(log_p, "log_p")
    return (log_p / tau).log_softmax(-1)


def at_token_temperature(space: Space, logits: Tensor, tau: float | Tensor) -> Tensor:
    """log of ∏_t π(y_t|y_<t)^{1/τ}/Z(y_<t): logits [..., n_prefixes, V] -> [..., Y]. ValueError: τ ≤ 0."""
    _check_temperature(tau)
    return space.token_logps(logits / tau).sum(-1)


def _check_temperature(tau: float | Tensor) -> None:
    coldest = float(torch.as_tensor(tau).min())
    if not coldest > 0:
        raise ValueError(f"tau must be > 0, got {coldest:g}: at 0 all mass is on the most probable response")


@dataclass(frozen=True)
class ToyModel:
    """Before every token the response stops with probability `stop`; else one of V equally likely tokens follows.

    A response of l tokens has the probability stop·((1 − stop)/V)^l, and there are V^l of them.
    """

    vocabulary: int
    stop: float

    def __post_init__(self) -> None:
        if not self.vocabulary > 1:
            raise ValueError(f"vocabulary must be > 1, got {self.vocabulary}: with one token a temperature adds no responses")
        if not 0 < self.stop < 1:
            raise ValueError(f"stop must lie in (0, 1), got {self.stop:g}: it is the probability that a response ends")

    @property
    def critical(self) -> float:
        """τ_c = 1 − ln(1 − stop)/ln V, from which on the global temperature's lengths have no finite sum."""
        return 1 - math.log1p(-self.stop) / math.log(self.vocabulary)

    def growth(self, tau: Tensor) -> Tensor:
        """ln of (mass of length l + 1)/(mass of length l) at global temperature τ, the same for all l: nats, [...].

        One more token multiplies the number of responses by V, and each one's weight by ((1 − stop)/V)^{1/τ}.
        """
        return math.log(self.vocabulary) + (math.log1p(-self.stop) - math.log(self.vocabulary)) / tau

    def token_growth(self, tau: Tensor) -> Tensor:
        """The same ratio at token temperature τ, ln(1 − stop′); always negative.

        stop′/(1 − stop′) = (stop/(1 − stop))^{1/τ}·V^{1/τ − 1}: the V tokens have the weight V·((1 − stop)/V)^{1/τ}.
        """
        odds_of_more = (math.log1p(-self.stop) - math.log(self.stop)) / tau + (1 - 1 / tau) * math.log(self.vocabulary)
        return torch.nn.functional.logsigmoid(odds_of_more)


def expected_length(growth: Tensor, longest: float) -> Tensor:
    """E[l], l = 0 … longest with mass ∝ exp(growth·l): [...] -> [...] in tokens without EOS. Summed in logarithms.

    A finite `longest` restricts the model to responses that end within it. For math.inf the closed form is
    1/(exp(−growth) − 1), and infinite from growth ≥ 0 on. ValueError: longest > LONGEST and finite.
    """
    if longest == math.inf:
        return torch.where(growth < 0, 1 / torch.expm1(-growth), math.inf)
    lengths = _lengths(growth, longest)
    return ((growth.unsqueeze(-1) * lengths).softmax(-1) * lengths).sum(-1)


def log_partition(model: ToyModel, tau: Tensor, longest: float) -> Tensor:
    """ln Z = ln Σ_y π(y)^{1/τ} over responses of at most `longest` tokens: [...] -> [...], nats."""
    growth = model.growth(tau)
    if longest == math.inf:
        total = torch.where(growth < 0, -torch.log(-torch.expm1(growth)), math.inf)
    else:
        total = (growth.unsqueeze(-1) * _lengths(growth, longest)).logsumexp(-1)
    return math.log(model.stop) / tau + total


def _lengths(growth: Tensor, longest: float) -> Tensor:
    if not (longest == int(longest) and 0 <= longest <= LONGEST):
        raise ValueError(f"longest must be a whole number of at most {LONGEST} tokens, or infinite; got {longest:g}")
    return torch.arange(int(longest) + 1, dtype=growth.dtype)
