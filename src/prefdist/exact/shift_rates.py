"""How often random mixtures that meet the hypotheses of Theorem 2 (Huang's note) violate it, and where its proof fails."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from prefdist.exact.mixtures import CHUNK, SLACK, Mixtures, correlation, hypotheses, random_mixtures


@dataclass(frozen=True)
class Cell:
    """Of n worlds that meet the hypotheses: how many violate the conclusion and the proof's step at each β [B].

    shortfall: (α − TPM(A))/α of the violating ones, a tensor a β.
    """

    n: int
    violations: Tensor
    step_aligned: Tensor
    step: Tensor
    shortfall: Sequence[Tensor]

    def __add__(self, other: "Cell") -> "Cell":
        return Cell(
            self.n + other.n,
            self.violations + other.violations,
            self.step_aligned + other.step_aligned,
            self.step + other.step,
            [torch.cat(pair) for pair in zip(self.shortfall, other.shortfall, strict=True)],
        )


def measure(rewards: str, outputs: int, betas: Tensor, worlds: int, generator: Generator) -> Cell:
    """The first `worlds` random mixtures that meet the hypotheses of Theorem 2."""
    cells = []
    missing = worlds
    while missing:
        drawn = random_mixtures(CHUNK // outputs, outputs, rewards, generator)
        met = drawn[hypotheses(drawn)][:missing]
        cells.append(_cell(met, betas))
        missing -= len(met)
    return sum(cells[1:], cells[0])


def _cell(mixtures: Mixtures, betas: Tensor) -> Cell:
    weights, gain = mixtures.weights(betas), mixtures.gain(betas)
    aligned_fails = correlation(weights, mixtures.aligned) < -SLACK
    unaligned_fails = correlation(weights, mixtures.unaligned) > SLACK
    violated = gain < -SLACK
    lost = 1 - (mixtures.weight.logit() + gain).sigmoid() / mixtures.weight
    return Cell(
        len(mixtures),
        violated.sum(-1),
        aligned_fails.sum(-1),
        (aligned_fails | unaligned_fails).sum(-1),
        [row[chosen] for row, chosen in zip(lost, violated, strict=True)],
    )


def pooled_cell(rewards: str, outputs: Sequence[int], betas: Tensor, worlds: int, generator: Generator) -> Cell:
    """The cells of several numbers of outputs as one."""
    first, *others = (measure(rewards, n, betas, worlds, generator) for n in outputs)
    return sum(others, first)
