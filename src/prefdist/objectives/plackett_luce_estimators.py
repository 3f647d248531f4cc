"""Unbiased Monte-Carlo estimates of divergences between Plackett-Luce laws, from drawn rankings: any n, O(n²) a draw.

Values in nats, for reports and for more responses than the exact method takes. The gradient of an estimate is not an
estimate of the gradient: it leaves out that the draws depend on the scores. Derived for this project; step-wise estimates
are Rao-Blackwellised over each choice given the choices before it.
"""

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

KlMethod = Literal["naive", "stepwise"]
JsdMethod = Literal["naive", "mixture", "stepwise", "stepwise_mixture"]


class _Choices(NamedTuple):
    """The choices of drawn rankings under both laws, [B, num_samples, n, n]: step by step, the item at each later place."""

    log_p: Tensor
    log_q: Tensor
    left: Tensor
    """True where the item is still unranked at the step; elsewhere the log-probabilities are 0."""

    def log_ratios(self) -> Tensor:
        """log P/Q of the first 0, 1, …, n choices, [B, num_samples, n + 1]."""
        chosen = (self.log_p - self.log_q).diagonal(dim1=-2, dim2=-1)
        return torch.nn.functional.pad(chosen.cumsum(-1), (1, 0))

    def kl(self, log_a: Tensor, log_b: Tensor) -> Tensor:
        """KL of the choice at each step, [B, num_samples, n]."""
        return (log_a.exp() * (log_a - log_b) * self.left).sum(-1)


def kl_estimates(p_scores: Tensor, q_scores: Tensor, rankings_p: Tensor, method: KlMethod) -> Tensor:
    """Estimates of KL(P‖Q), [B, num_samples], from rankings of P: scores [B, n] each, rankings [B, num_samples, n].

    naive: log P/Q of the ranking. stepwise: Σ_k KL of the k-th choice given those before it, never negative.
    """
    choices = _choices(p_scores, q_scores, rankings_p)
    if method == "naive":
        return choices.log_ratios()[..., -1]
    return choices.kl(choices.log_p, choices.log_q).sum(-1)


def jsd_estimates(p_scores: Tensor, q_scores: Tensor, rankings_p: Tensor, rankings_q: Tensor, method: JsdMethod) -> Tensor:
    """Estimates of JSD(P, Q), [B, num_samples], each from a ranking of P and one of Q: [B, num_samples, n] each.

    With λ = P/(P+Q) of a ranking or of its first choices, and m = λp + (1−λ)q the next choice under the mixture:

    - naive: ½·log 2λ at P's ranking + ½·log 2(1−λ) at Q's;
    - mixture: the mean over both of log 2 − H(λ), in [0, ln 2]: best for laws far apart;
    - stepwise: ½Σ_k KL(p‖m) along P's ranking + ½Σ_k KL(q‖m) along Q's, never negative;
    - stepwise_mixture: the mean over both of Σ_k [λ·KL(p‖m) + (1−λ)·KL(q‖m)]: best for laws near each other.
    """
    of_p, of_q = _choices(p_scores, q_scores, rankings_p), _choices(p_scores, q_scores, rankings_q)
    if method in ("naive", "mixture"):
        ends = [choices.log_ratios()[..., -1] for choices in (of_p, of_q)]
        if method == "naive":
            return math.log(2) + (logsigmoid(ends[0]) + logsigmoid(-ends[1])) / 2
        return math.log(2) - (_binary_entropy(ends[0]) + _binary_entropy(ends[1])) / 2
    along_p, along_q = _step_divergences(of_p), _step_divergences(of_q)
    if method == "stepwise":
        return (along_p[0] + along_q[1]).sum(-1) / 2
    totals = [
        (torch.sigmoid(ratio) * from_p + torch.sigmoid(-ratio) * from_q).sum(-1) for from_p, from_q, ratio in (along_p, along_q)
    ]
    return (totals[0] + totals[1]) / 2


def _choices(p_scores: Tensor, q_scores: Tensor, rankings: Tensor) -> _Choices:
    n = rankings.shape[-1]
    left = torch.ones(n, n, dtype=torch.bool, device=rankings.device).triu()
    log_p, log_q = (
        scores.unsqueeze(1)
        .expand(rankings.shape)
        .gather(-1, rankings)
        .unsqueeze(-2)
        .masked_fill(~left, -math.inf)
        .log_softmax(-1)
        .masked_fill(~left, 0.0)
        for scores in (p_scores, q_scores)
    )
    return _Choices(log_p, log_q, left)


def _step_divergences(choices: _Choices) -> tuple[Tensor, Tensor, Tensor]:
    """KL(p‖m) and KL(q‖m) of each choice, and log P/Q of the choices before it, [B, num_samples, n] each."""
    before = choices.log_ratios()[..., :-1]
    log_p_part = logsigmoid(before).unsqueeze(-1) + choices.log_p
    log_q_part = logsigmoid(-before).unsqueeze(-1) + choices.log_q
    log_m = torch.logaddexp(log_p_part, log_q_part)
    return choices.kl(choices.log_p, log_m), choices.kl(choices.log_q, log_m), before


def _binary_entropy(log_odds: Tensor) -> Tensor:
    return -(torch.sigmoid(log_odds) * logsigmoid(log_odds) + torch.sigmoid(-log_odds) * logsigmoid(-log_odds))
