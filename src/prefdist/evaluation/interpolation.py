"""How far a model has moved towards another: the λ under which p_θ0^{1−λ}·p_ref^λ explains given samples best.

λ = 0 is the tuned model θ0, λ = 1 its base. Huang's note proposes λ(k) for prompts of k repeats: 1 would mean that the tuned
model behaves like the base. The log-likelihood is concave in λ (an exponential family), so its maximum is where the score
crosses zero. Left out: where the log-probabilities come from.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy.optimize import brentq
from torch import Tensor

CHUNK_ELEMENTS = 1 << 22
"""Log-probabilities interpolated at once: 32 MiB in float64."""
Moments = Callable[[float], tuple[float, float]]
"""λ -> score (first derivative of the log-likelihood) and information (minus the second)."""


@dataclass(frozen=True)
class Interpolation:
    """The maximum-likelihood λ.

    standard_error: 1/√information; tokens and samples that depend on each other make it too small.
    at_bound: the likelihood still rises there, so the best λ lies outside the bounds and standard_error is NaN.
    """

    value: float
    standard_error: float
    at_bound: bool


def fit_token_level(
    log_tuned: Tensor, log_base: Tensor, tokens: Tensor, *, bounds: tuple[float, float] = (0.0, 1.0)
) -> Interpolation:
    """λ of laws normalised at each token, p(y_t) ∝ p_θ0(y_t|y_<t)^{1−λ}·p_ref(y_t|y_<t)^λ: those of contrastive decoding.

    Args:
        log_tuned, log_base: [N, V] log-softmax of both models at the N steps of the samples.
        tokens: [N], the token that each sample has there.
        bounds: of λ.

    Raises:
        ValueError: other shapes, infinite log-probabilities, or models that agree at every step, so that no λ is better.
    """
    if log_tuned.shape != log_base.shape or log_tuned.ndim != 2 or tokens.shape != log_tuned.shape[:1]:
        shapes = [tuple(t.shape) for t in (log_tuned, log_base, tokens)]
        raise ValueError(f"log-probabilities must be [N, V] twice and tokens [N], got {shapes}")
    if not bool(log_tuned.isfinite().all() and log_base.isfinite().all()):
        raise ValueError("log-probabilities must be finite: a power of zero says nothing")
    size = max(1, CHUNK_ELEMENTS // log_tuned.shape[1])

    def moments(weight: float) -> tuple[float, float]:
        score = information = 0.0
        for tuned, base, chosen in zip(log_tuned.split(size), log_base.split(size), tokens.split(size), strict=True):
            direction = base.double() - tuned.double()
            law = (tuned.double() + weight * direction).softmax(-1)
            mean = (law * direction).sum(-1)
            score += float((direction.gather(-1, chosen.unsqueeze(-1)).squeeze(-1) - mean).sum())
            information += float((law * (direction - mean.unsqueeze(-1)).square()).sum())
        return score, information

    return _maximise(moments, bounds)


def _maximise(moments: Moments, bounds: tuple[float, float]) -> Interpolation:
    low, high = bounds
    if not low < high:
        raise ValueError(f"bounds must be a range low < high, got {low:g} to {high:g}")
    for bound, outward in ((low, -1), (high, 1)):
        score, information = moments(bound)
        if information == 0:
            raise ValueError("the log-ratio of the two models does not vary: any interpolation of them is the same law")
        if score * outward > 0:
            return Interpolation(bound, math.nan, at_bound=True)
    value = float(brentq(lambda weight: moments(weight)[0], low, high, xtol=1e-10))
    return Interpolation(value, 1 / math.sqrt(moments(value)[1]), at_bound=False)
