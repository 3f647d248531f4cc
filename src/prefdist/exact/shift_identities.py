"""Identities of a tilted mixture (Huang's note, Lemma 1 and what follows from it): how far float64 is from each."""

from collections.abc import Mapping

import torch
from torch import Tensor

from prefdist.exact.closed_forms import tilt, tpm
from prefdist.exact.mixtures import Mixtures

COLD, HOT = 1e-8, 1e6
"""β at which the limits are taken: far below the gap between the two best rewards, far above any reward."""


def identities(mixtures: Mixtures, beta: float) -> Mapping[str, Tensor]:
    """Absolute deviation of each identity [S], the largest over outputs; e^{r/β} is scaled to at most 1."""
    reference, responsibility = mixtures.reference, mixtures.responsibility
    alpha = mixtures.weight
    tilted = tilt(reference.log(), mixtures.reward, temperature=beta, ref_power=1).exp()
    weights = mixtures.weights(torch.tensor([beta], dtype=torch.float64)).squeeze(0)
    by_aligned, by_unaligned = mixtures.aligned * weights, mixtures.unaligned * weights
    total = (reference * weights).sum(-1, keepdim=True)
    parts = (alpha.unsqueeze(-1) * by_aligned / total, (1 - alpha).unsqueeze(-1) * by_unaligned / total)
    mass = parts[0].sum(-1)
    means = (by_aligned.sum(-1), by_unaligned.sum(-1))
    components = (by_aligned / means[0].unsqueeze(-1), by_unaligned / means[1].unsqueeze(-1))
    proper = mass.unsqueeze(-1) * components[0] + (1 - mass).unsqueeze(-1) * components[1]
    covariance = (reference * weights * responsibility).sum(-1) - total.squeeze(-1) * (reference * responsibility).sum(-1)
    gain = mixtures.gain(torch.tensor([beta], dtype=torch.float64)).squeeze(0)
    return {
        "p_θ = α_A(y)·p_A + α_U(y)·p_U": (tilted - parts[0] - parts[1]).abs().amax(-1),
        "p_θ = TPM(A)·p̃_A + TPM(U)·p̃_U": (tilted - proper).abs().amax(-1),
        "TPM(A) = E_θ[a]": (mass - mixtures.aligned_mass(beta)).abs(),
        "α = E_ref[a]": (alpha - (reference * responsibility).sum(-1)).abs(),
        "logit TPM(A) = logit α + log E_A[e^{r/β}] − log E_U[e^{r/β}]": (mass - (alpha.logit() + gain).sigmoid()).abs(),
        "Cov_ref(e^{r/β}, a) = α(1−α)·(E_A[e^{r/β}] − E_U[e^{r/β}])": (
            covariance - alpha * (1 - alpha) * (means[0] - means[1])
        ).abs(),
        "d logit TPM(A)/d(1/β) = E_Ã[r] − E_Ũ[r], times TPM(A)·TPM(U)": (
            _slope(mixtures, beta) - mass * (1 - mass) * ((components[0] - components[1]) * mixtures.reward).sum(-1)
        ).abs(),
    }


def limits(mixtures: Mixtures) -> Mapping[str, Tensor]:
    """Absolute deviation from each limit [S], at COLD and HOT; rewards without ties at the top."""
    best = mixtures.reward.argmax(-1, keepdim=True)
    lead = ((mixtures.aligned - mixtures.unaligned) * mixtures.reward).sum(-1)
    gain = mixtures.gain(torch.tensor([HOT], dtype=torch.float64)).squeeze(0)
    return {
        "β → 0: TPM(A) → a(y), y the best output": (
            mixtures.aligned_mass(COLD) - mixtures.responsibility.gather(-1, best).squeeze(-1)
        ).abs(),
        "β → ∞: β·(logit TPM(A) − logit α) → E_A[r] − E_U[r]": (HOT * gain - lead).abs(),
    }


def _slope(mixtures: Mixtures, beta: float) -> Tensor:
    """d TPM(A)/d(1/β) by automatic differentiation [S]."""
    inverse = torch.full((len(mixtures), 1), 1 / beta, dtype=torch.float64, requires_grad=True)
    log_reference = mixtures.reference.log()
    tilted = tilt(log_reference, inverse * mixtures.reward, temperature=1, ref_power=1)
    (slope,) = torch.autograd.grad(tpm(tilted, log_reference, mixtures.responsibility).sum(), inverse)
    return slope.squeeze(-1)
