"""Counterexamples to Theorem 2 of Huang's note: small mixtures whose hypotheses hold and whose aligned mass falls.

Rational, so that one temperature of each can be done without any rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from scipy.optimize import brentq
from torch import Tensor

from prefdist.exact.mixtures import Mixtures

BRACKET = (0.05, 50.0)
"""β between which aligned mass turns from a loss to a gain."""


@dataclass(frozen=True)
class Counterexample:
    """Integer rewards; p_A and p_U as fractions; α."""

    name: str
    reward: Sequence[int]
    aligned: Sequence[Fraction]
    unaligned: Sequence[Fraction]
    weight: Fraction = Fraction(1, 2)

    @property
    def mixtures(self) -> Mixtures:
        """One world, in float64."""
        aligned, unaligned, reward = (_tensor(row).unsqueeze(0) for row in (self.aligned, self.unaligned, self.reward))
        return Mixtures(aligned, unaligned, reward, _tensor([self.weight]))

    def rational_mass(self, base: int) -> Fraction:
        """TPM(A) exactly, where e^{1/β} = base."""
        weights = [Fraction(base) ** power for power in self.reward]
        aligned, unaligned = (
            sum((p * weight for p, weight in zip(component, weights, strict=True)), Fraction())
            for component in (self.aligned, self.unaligned)
        )
        return self.weight * aligned / (self.weight * aligned + (1 - self.weight) * unaligned)

    def threshold(self) -> float:
        """β at which TPM(A) = α. ValueError (SciPy's) where there is none within BRACKET."""
        mixtures = self.mixtures
        return float(brentq(lambda beta: float(mixtures.gain(torch.tensor([beta], dtype=torch.float64))), *BRACKET, xtol=1e-12))


def _tensor(values: Sequence[int | Fraction]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _twentieths(*numerators: int) -> tuple[Fraction, ...]:
    return tuple(Fraction(numerator, 20) for numerator in numerators)


COUNTEREXAMPLES = (
    Counterexample("CE1", (0, 2, 3), _twentieths(0, 18, 2), _twentieths(14, 0, 6)),
    Counterexample("CE1, α = 0.9", (0, 2, 3), _twentieths(0, 18, 2), _twentieths(14, 0, 6), Fraction(9, 10)),
    Counterexample("CE2", (0, 2, 3), _twentieths(0, 20, 0), _twentieths(16, 0, 4)),
    Counterexample("CE3", (0, 1, 2), _twentieths(1, 14, 5), _twentieths(12, 1, 7)),
)
"""The best output belongs to the unaligned component: all of it in CE2, most of it in CE1, a little more in CE3."""
