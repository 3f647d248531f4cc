"""The law of the next token: a temperature, and the filters that drop unlikely tokens.

Left out: drawing from it (engine.py), and laws of two models (contrastive.py), whose logits these filters take as any other's.
"""

import math
from dataclasses import dataclass

from torch import Tensor, zeros_like


@dataclass(frozen=True)
class Sampler:
    """softmax(logits/temperature), then top-k, top-p and min-p in this order; each filter sees what the last one kept.

    temperature: > 0; 1 is the model's own law, towards 0 it becomes greedy.
    top_k: the k likeliest tokens, and those that tie with the k-th (Fan et al. 2018, arXiv 1805.04833). 0: all.
    top_p: the smallest set of the likeliest tokens that reaches this share of the kept probability, the token that crosses
        it included (Holtzman et al. 2019, arXiv 1904.09751). 1: all.
    min_p: the tokens with at least this share of the likeliest one's probability at logits/temperature (Nguyen et al. 2024,
        arXiv 2407.01082). 0: all.

    The order and the ties of top-k and min-p are those of transformers' `generate`. ValueError names a value outside its range.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and math.isfinite(self.temperature)):
            raise ValueError(f"temperature must be finite and > 0, got {self.temperature}: at 0 the law is one token")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}: 1 keeps all tokens")
        if not (self.top_k == int(self.top_k) and self.top_k >= 0):
            raise ValueError(f"top_k must be a whole number ≥ 0, got {self.top_k}: 0 keeps all tokens")
        if not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must lie in [0, 1], got {self.min_p}: 0 keeps all tokens")

    def law(self, logits: Tensor) -> Tensor:
        """Probabilities of the next token: logits [B, V], minus infinity for a token that cannot come -> [B, V] float64."""
        return _normalised(self.weights(logits.float().log_softmax(-1)))

    def weights(self, logps: Tensor) -> Tensor:
        """The law up to a factor a row, which a draw does not need: log-softmax of the logits [B, V] -> [B, V] float64."""
        weights = (logps.double() / self.temperature).softmax(-1)
        if self.top_k:
            weights = _normalised(_top_k(weights, self.top_k))
        if self.top_p < 1:
            weights = _nucleus(weights, self.top_p)
        if self.min_p:
            weights = weights.masked_fill(weights < self.min_p * weights.amax(-1, keepdim=True), 0.0)
        return weights


ANCESTRAL = Sampler()
"""The model's own law."""


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)


def _top_k(law: Tensor, top_k: int) -> Tensor:
    least = law.topk(min(top_k, law.shape[-1]), dim=-1).values[:, -1:]
    return law.masked_fill(law < least, 0.0)


def _nucleus(law: Tensor, top_p: float) -> Tensor:
    """Probabilities [B, V], 0 outside the smallest set that reaches top_p: the token that crosses it is in the set."""
    ordered, tokens = law.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(-1).roll(1, -1)
    before[:, 0] = 0.0
    outside = before >= top_p
    return law.masked_fill(zeros_like(outside).scatter(-1, tokens, outside), 0.0)
