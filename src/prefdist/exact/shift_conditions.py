"""Conditions on a mixture that are, or are not, enough for the aligned component to gain mass: TPM(A) ≥ α.

Three kinds: Theorem 2 of Huang's note as it stands, other readings of its hypotheses, and corrected conditions. A
condition is a law of worlds and a test of them, [B] temperatures -> [B, S] truth values.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from prefdist.exact.mixtures import SLACK, Mixtures, correlation, hypotheses, normal, random_mixtures

Test = Callable[[Mixtures, Tensor], Tensor]
Draw = Callable[[int, int, Generator], Mixtures]


@dataclass(frozen=True)
class Condition:
    """`kind`: "as stated", "another reading" or "corrected". `draw`: worlds, outputs, generator -> mixtures."""

    name: str
    kind: str
    test: Test
    draw: Draw = normal


def at_every_beta(test: Callable[[Mixtures], Tensor]) -> Test:
    """A condition that does not look at β."""
    return lambda mixtures, betas: test(mixtures).expand(len(betas), -1)


def spearman(mixtures: Mixtures) -> Tensor:
    """The hypotheses with rank correlations [S]."""
    ranks = _ranks(mixtures.reward)
    aligned, unaligned = (correlation(ranks, _ranks(p)) for p in (mixtures.aligned, mixtures.unaligned))
    return (aligned > SLACK) & (unaligned < -SLACK)


def _ranks(values: Tensor) -> Tensor:
    """Outputs below each, ties counted half: [S, n] -> [S, n]."""
    difference = values.unsqueeze(-1) - values.unsqueeze(-2)
    return (difference.sign() + 1).sum(-1) / 2


def expectations(mixtures: Mixtures) -> Tensor:
    """E_A[r] > E_ref[r] > E_U[r], which is E_A[r] > E_U[r] [S]."""
    return (mixtures.reward * (mixtures.aligned - mixtures.unaligned)).sum(-1) > SLACK


def reference_covariances(mixtures: Mixtures) -> Tensor:
    """The hypotheses with covariances under p_ref in place of the uniform measure [S]."""
    reference = mixtures.reference
    centred = reference * (mixtures.reward - (reference * mixtures.reward).sum(-1, keepdim=True))
    return ((centred * mixtures.aligned).sum(-1) > SLACK) & ((centred * mixtures.unaligned).sum(-1) < -SLACK)


def expected_weights(mixtures: Mixtures, betas: Tensor) -> Tensor:
    """E_A[e^{r/β}] ≥ E_U[e^{r/β}]: necessary, too."""
    return (mixtures.weights(betas) * (mixtures.aligned - mixtures.unaligned)).sum(-1) >= 0


def weight_correlations(mixtures: Mixtures, betas: Tensor) -> Tensor:
    """The hypotheses with e^{r/β} in place of r: the proof of Theorem 2 then goes through."""
    weights = mixtures.weights(betas)
    return (correlation(weights, mixtures.aligned) > SLACK) & (correlation(weights, mixtures.unaligned) < -SLACK)


def dominance(mixtures: Mixtures) -> Tensor:
    """First-order stochastic dominance of the reward, P_A(r ≥ t) ≥ P_U(r ≥ t) for all t [S]."""
    reaches = (mixtures.reward.unsqueeze(-2) >= mixtures.reward.unsqueeze(-1)).double()
    lead = (reaches * (mixtures.aligned - mixtures.unaligned).unsqueeze(-2)).sum(-1)
    return (lead >= -SLACK).all(-1)


def monotone_ratio(mixtures: Mixtures) -> Tensor:
    """a(y) non-decreasing in r, by Chebyshev's inequality for sums [S]."""
    higher = mixtures.reward.unsqueeze(-1) > mixtures.reward.unsqueeze(-2)
    responsibility = mixtures.responsibility
    less = responsibility.unsqueeze(-1) < responsibility.unsqueeze(-2)
    return ~(higher & less).any(-1).any(-1)


def large_beta(mixtures: Mixtures, betas: Tensor) -> Tensor:
    """s·(E_A[ρ] − E_U[ρ]) ≥ (e^s − 1 − s)·E_U[ρ²] with ρ = (r − min r)/R, R the range of r and s = R/β.

    From 1 + sρ ≤ e^{sρ} ≤ 1 + sρ + (e^s − 1 − s)·ρ² on [0, 1].
    """
    lowest = mixtures.reward.amin(-1, keepdim=True)
    extent = mixtures.reward.amax(-1) - lowest.squeeze(-1)
    share = (mixtures.reward - lowest) / extent.unsqueeze(-1)
    steepness = extent / betas.unsqueeze(-1)
    lead = (share * (mixtures.aligned - mixtures.unaligned)).sum(-1)
    excess = (steepness.expm1() - steepness) * (mixtures.unaligned * share.square()).sum(-1)
    return (lead > 0) & (steepness * lead >= excess)


def everywhere(mixtures: Mixtures) -> Tensor:
    """No condition but the law of the worlds [S]."""
    return torch.ones(len(mixtures), dtype=torch.bool)


def draw_monotone(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """Rewards moved between outputs so that the higher one has the higher p_A/p_U."""
    drawn = normal(worlds, outputs, generator)
    order = (drawn.aligned / drawn.unaligned).argsort(-1)
    return replace(drawn, reward=torch.empty_like(drawn.reward).scatter_(-1, order, drawn.reward.sort(-1).values))


def draw_two_values(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """Rewards of 0 or 1."""
    return random_mixtures(worlds, outputs, "binary", generator)


def draw_two_outputs(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """Two outputs, whatever `outputs` says."""
    return normal(worlds, 2, generator)


def draw_threshold(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """A = {r ≥ t} for a t that leaves outputs on both sides: the components are p_ref given A and given its complement."""
    drawn = normal(worlds, outputs, generator)
    return _split(drawn, _highest(drawn.reward, generator))


def draw_set(worlds: int, outputs: int, generator: Generator) -> Mixtures:
    """A is a set of outputs that has nothing to do with r, of 1 … n−1 of them, each number as likely."""
    drawn = normal(worlds, outputs, generator)
    return _split(drawn, _highest(torch.rand((worlds, outputs), generator=generator), generator))


def _highest(values: Tensor, generator: Generator) -> Tensor:
    """Whether an output is among the k highest, k uniform on 1 … n−1: [S, n]."""
    worlds, outputs = values.shape
    cut = torch.randint(1, outputs, (worlds, 1), generator=generator)
    return values.argsort(-1).argsort(-1) >= cut


def _split(mixtures: Mixtures, inside: Tensor) -> Mixtures:
    reference = mixtures.reference
    weight = (reference * inside).sum(-1)
    aligned = reference * inside / weight.unsqueeze(-1)
    unaligned = reference * ~inside / (1 - weight).unsqueeze(-1)
    return Mixtures(aligned, unaligned, mixtures.reward, weight)


_stated = at_every_beta(hypotheses)
CONDITIONS = (
    Condition("corr(r, p_A) > 0 > corr(r, p_U)", "as stated", _stated),
    Condition("the same, and A is a set that knows nothing of r", "as stated", _stated, draw_set),
    Condition("rank correlations", "another reading", at_every_beta(spearman)),
    Condition("both correlations", "another reading", at_every_beta(lambda drawn: hypotheses(drawn) & spearman(drawn))),
    Condition("E_A[r] > E_ref[r] > E_U[r]", "another reading", at_every_beta(expectations)),
    Condition("covariances under p_ref", "another reading", at_every_beta(reference_covariances)),
    Condition("E_A[e^{r/β}] ≥ E_U[e^{r/β}]", "corrected", expected_weights),
    Condition("corr(e^{r/β}, p_A) > 0 > corr(e^{r/β}, p_U)", "corrected", weight_correlations),
    Condition("r stochastically larger under p_A", "corrected", at_every_beta(dominance)),
    Condition("p_A/p_U non-decreasing in r", "corrected", at_every_beta(monotone_ratio), draw_monotone),
    Condition("as stated, and r has two values", "corrected", _stated, draw_two_values),
    Condition("as stated, and there are two outputs", "corrected", _stated, draw_two_outputs),
    Condition("β large for the range of r", "corrected", large_beta),
    Condition("A = {r ≥ t}", "corrected", at_every_beta(everywhere), draw_threshold),
)
