"""The one family: make the preference distribution that the scores imply match a target, under a divergence.

Covers DPO, PMLE, SPL, SimPO, IPO, preference distillation, REBEL, PAD's VPD and PPD, and the reward-model likelihood: they
differ only in their row. Left out: the KL regulariser on fresh samples (policy_gradient.kl_surrogate), which the training adds.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prefdist.objectives import bradley_terry, first_choice, plackett_luce
from prefdist.objectives.rows import PreferenceRow
from prefdist.objectives.scores import sequence_score


class Preference:
    """A row of the family `preference`. Responses of a labelled example stand best first (index 0 is the chosen one).

    logps: "policy" [B, n] (or "reward" [B, n] where score.of is reward), "reference" and "old" [B, n] as needed.
    columns: "scores" [B, n] = r̂ where the target is scores (a reward model's or a teacher's); "n_tokens" [B, n] where the
    length is a mean.
    """

    def __init__(self, row: PreferenceRow) -> None:
        self.row = row
        needs = set()
        if row.score.of == "reward":
            needs.add("reward")
        if row.score.against != "none":
            needs.add(row.score.against)
        if row.score.length == "mean":
            needs.add("n_tokens")
        if row.target.of == "scores":
            needs.add("scores")
            if row.target.kl != 0:
                needs |= {"old", "reference"}
        self.needs = frozenset(needs)

    def __call__(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """Losses [B] in nats (squared score units for `squared`)."""
        scores = self.scores(logps, columns)
        row = self.row
        if row.model == "bradley_terry" and scores.shape[1] != 2:
            raise ValueError(f"bradley_terry compares 2 responses, got {scores.shape[1]}; use model: plackett_luce")
        if row.divergence == "nll":
            return self._negative_log_likelihood(scores)
        target = self._target_scores(logps, columns, scores)
        if row.divergence == "squared":
            return (_margins(scores) - _margins(target)).square().mean(-1)
        if row.model == "bradley_terry":
            target, scores = _margins(target)[:, 0], _margins(scores)[:, 0]
        return _DIVERGENCES[row.model, row.divergence](target, scores)

    def scores(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """s [B, n], differentiable in the policy (or the reward head), constant in what it is taken against."""
        score = self.row.score
        against = None if score.against == "none" else logps[score.against].detach()
        n_tokens = columns["n_tokens"] if score.length == "mean" else None
        return sequence_score(logps[score.of], against, a=float(score.a), b=float(score.b), n_tokens=n_tokens)

    def _negative_log_likelihood(self, scores: Tensor) -> Tensor:
        margin = float(self.row.target.margin)  # type: ignore[union-attr]  # nll has a label target: rows.py checks it
        if self.row.model == "bradley_terry":
            return -bradley_terry.log_prob(scores[:, 0], scores[:, 1] + margin)
        best_first = torch.arange(scores.shape[1], device=scores.device).expand_as(scores)
        with_margin = scores + margin * (best_first > 0).to(scores.dtype)
        if self.row.model == "first_choice":
            return -first_choice.log_prob(with_margin, best_first[:, 0])
        return -plackett_luce.log_prob(with_margin, best_first)

    def _target_scores(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor], scores: Tensor) -> Tensor:
        target = self.row.target
        if target.of == "constant":
            value = torch.zeros_like(scores)
            value[:, 0] = float(target.value)
            return value
        reward = columns["scores"]
        if target.kl != 0:  # type: ignore[union-attr]
            reward = reward - float(target.kl) * (logps["old"] - logps["reference"])  # type: ignore[union-attr]
        return float(target.scale) * reward.detach()  # type: ignore[union-attr]


_DIVERGENCES: dict[tuple[str, str], Callable[[Tensor, Tensor], Tensor]] = {
    ("bradley_terry", "kl"): bradley_terry.kl,
    ("bradley_terry", "jsd"): bradley_terry.jsd,
    ("first_choice", "kl"): first_choice.kl,
    ("first_choice", "jsd"): first_choice.jsd,
    ("plackett_luce", "kl"): plackett_luce.kl,
    ("plackett_luce", "jsd"): plackett_luce.jsd,
    ("plackett_luce", "ag"): plackett_luce.ag,
}
"""(model, divergence) -> function of the target's and the policy's scores (margins, for a pair)."""


def _margins(scores: Tensor) -> Tensor:
    """Differences of all pairs i < j: [B, n] -> [B, n(n−1)/2]; for two responses the one margin s₁ − s₂."""
    first, second = torch.triu_indices(scores.shape[1], scores.shape[1], offset=1, device=scores.device)
    return scores[:, first] - scores[:, second]


def build(row: PreferenceRow) -> Preference:
    return Preference(row)
