"""Pairs drawn from a reference policy and labelled by an annotator: the reward they teach, and the tuned model's win rate.

With p_A the law of the chosen and p_U that of the rejected response, p_ref = ½·p_A + ½·p_U, and a response's
responsibility a(y) is its win rate against p_ref. The tuned model's aligned mass is then its own win rate against p_ref.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from prefdist.exact.bradley_terry import fit
from prefdist.exact.closed_forms import NORMALISATION_LIMIT, tilt, tpm
from prefdist.exact.mixtures import Mixtures, check_outputs, dirichlet

NOISE = 0.2
"""Share of labels that the noisy annotator turns round."""


def _bradley_terry(worlds: int, outputs: int, generator: Generator) -> Tensor:
    scores = torch.randn((worlds, outputs), generator=generator, dtype=torch.float64)
    return (scores.unsqueeze(-1) - scores.unsqueeze(-2)).sigmoid()


def _noisy(worlds: int, outputs: int, generator: Generator) -> Tensor:
    return NOISE + (1 - 2 * NOISE) * _bradley_terry(worlds, outputs, generator)


def _intransitive(worlds: int, outputs: int, generator: Generator) -> Tensor:
    drawn = torch.rand((worlds, outputs, outputs), generator=generator, dtype=torch.float64).triu(1)
    return drawn + (1 - drawn.mT).tril(-1) + torch.eye(outputs, dtype=torch.float64) / 2


ANNOTATORS: Mapping[str, Callable[[int, int, Generator], Tensor]] = {
    "bradley_terry": _bradley_terry,
    "noisy": _noisy,
    "intransitive": _intransitive,
}
"""Bradley-Terry with scores from N(0, 1); the same with NOISE; P(a beats b) uniform on (0, 1), each pair by itself, so that
cycles are common."""


@dataclass(frozen=True)
class Annotated:
    """S worlds: p_ref [S, n], P(a beats b) [S, n, n], and the reward [S, n] of maximum likelihood on infinitely many pairs.

    float64. ValueError: a reference that does not sum to one or has zero support, preferences outside [0, 1] or that do
    not sum to one with their opposite; RuntimeError (of `fit`) where there is no finite reward.
    """

    reference: Tensor
    preference: Tensor
    reward: Tensor

    @classmethod
    def learn(cls, reference: Tensor, preference: Tensor) -> "Annotated":
        """Fits the reward."""
        off = float((reference.sum(-1) - 1).abs().max())
        if not off <= NORMALISATION_LIMIT:
            raise ValueError(f"reference must sum to one: off by {off:.3g}, limit {NORMALISATION_LIMIT}")
        if not bool((reference > 0).all()):
            raise ValueError(f"reference must be > 0, got {reference.min():.3g}: a response never drawn has no reward")
        off = float((preference + preference.mT - 1).abs().max())
        if not off <= NORMALISATION_LIMIT or not bool(((preference >= 0) & (preference <= 1)).all()):
            raise ValueError(
                f"preference must be in [0, 1], P(a beats b) + P(b beats a) = 1: off by {off:.3g}, limit {NORMALISATION_LIMIT}"
            )
        wins = reference.unsqueeze(-1) * reference.unsqueeze(-2) * preference
        return cls(reference, preference, fit(wins))

    @property
    def win_rate(self) -> Tensor:
        """a(y) = P(y beats y′), y′ ~ p_ref: [S, n]."""
        return (self.preference @ self.reference.unsqueeze(-1)).squeeze(-1)

    @property
    def mixtures(self) -> Mixtures:
        """p_A of the chosen and p_U of the rejected, both by summing over all labelled pairs; α = ½."""
        pairs = self.reference.unsqueeze(-1) * self.reference.unsqueeze(-2)
        chosen, rejected = pairs * self.preference, pairs * self.preference.mT
        # Either of the two draws may be the chosen one, hence the 2.
        return Mixtures(
            2 * chosen.sum(-1),
            2 * rejected.sum(-1),
            self.reward,
            torch.full(self.reference.shape[:1], 0.5, dtype=torch.float64),
        )

    def tuned(self, beta: float, tau: float) -> Tensor:
        """log of SPL's optimum π ∝ p_ref^{1/τ}·exp(r/(τβ)) [S, n] (SPL, arXiv 2511.08594); τ = 1 is RLHF's and DPO's."""
        return tilt(self.reference.log(), self.reward, temperature=tau * beta, ref_power=1 / tau)

    def tuned_win_rate(self, beta: float, tau: float) -> Tensor:
        """E[a] under the tuned model [S]: its win rate against p_ref, and its aligned mass."""
        return tpm(self.tuned(beta, tau), self.reference.log(), self.win_rate)

    def win_rate_by_pairs(self, beta: float, tau: float) -> Tensor:
        """The same by summing over all pairs of a response of the tuned model and one of p_ref, as a check [S]."""
        return torch.einsum("sa,sab,sb->s", self.tuned(beta, tau).exp(), self.preference, self.reference)

    def same_order(self, beta: float, tau: float) -> Tensor:
        """Whether r − (τ−1)·β·log p_ref orders the responses as r does [S].

        SPL's optimum is RLHF's at temperature τβ for that reward, so its win rate is then at least ½.
        """
        bent = self.reward - (tau - 1) * beta * self.reference.log()
        higher, bent_higher = (values.unsqueeze(-1) - values.unsqueeze(-2) for values in (self.reward, bent))
        return ((higher <= 0) | (bent_higher >= 0)).all(-1).all(-1)


def random_annotated(worlds: int, outputs: int, annotator: str, generator: Generator) -> Annotated:
    """p_ref from Dirichlet(1), and an annotator of ANNOTATORS by its name."""
    check_outputs(outputs)
    if annotator not in ANNOTATORS:
        raise ValueError(f"annotator must be one of {', '.join(ANNOTATORS)}, got {annotator!r}")
    reference = dirichlet((worlds, outputs), generator)
    return Annotated.learn(reference, ANNOTATORS[annotator](worlds, outputs, generator))
