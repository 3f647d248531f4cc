"""How well pairs from μ tell policies from π*: coverage (ADL, arXiv 2506.01523, Def. 3), and the bound of Theorem 4 with it.

A reward counts up to a constant, so differences are centred under μ: ΔR̄ = γ·(Δ ln π − E_μ[Δ ln π]) with Δ ln π = ln π/π*. For
π ∝ π*·e^{s·d} that is γ·s·(d − E_μ[d]): coverage knows the direction d, not the distance s. Left out: several contexts.
"""

import math

import torch
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised


def coverages(directions: Tensor, log_target: Tensor, log_mu: Tensor) -> Tensor:
    """E_π*[ΔR̄²]/E_μ[ΔR̄²] of each ΔR [..., M, K]: [..., M]; 0 where ΔR is constant, which is π* itself.

    log_target, log_mu [..., K]. C of a class is their maximum. ValueError: a law that is not normalised, or μ = 0 somewhere.
    """
    _check(log_target, log_mu)
    target, mu = log_target.exp().unsqueeze(-2), log_mu.exp().unsqueeze(-2)
    squared = (directions - (mu * directions).sum(-1, keepdim=True)).square()
    seen = (mu * squared).sum(-1)
    same = directions.amax(-1) == directions.amin(-1)
    return torch.where(same, 0.0, (target * squared).sum(-1) / torch.where(same, 1.0, seen))


def linear_coverage(log_target: Tensor, log_mu: Tensor) -> Tensor:
    """C of all rewards on K responses, the largest of `coverages`: [..., K], [..., K] -> [...].

    With x = √μ·ΔR̄, which is orthogonal to √μ, it is the largest eigenvalue of P·diag(π*/μ)·P, P the projection along √μ.
    ValueError as in `coverages`.
    """
    _check(log_target, log_mu)
    root = (log_mu / 2).exp()
    projection = torch.eye(root.shape[-1], dtype=root.dtype) - root.unsqueeze(-1) * root.unsqueeze(-2)
    ratio = torch.diag_embed((log_target - log_mu).exp())
    return torch.linalg.eigvalsh(projection @ ratio @ projection)[..., -1]


def _check(log_target: Tensor, log_mu: Tensor) -> None:
    check_normalised(log_target, "log_target")
    check_normalised(log_mu, "log_mu")
    if not bool(log_mu.isfinite().all()):
        raise ValueError("log_mu has zero support (log 0): no pairs show what is never drawn, and coverage is infinite")


def between(log_target: Tensor, log_far: Tensor, shift: float) -> Tensor:
    """log μ ∝ (1−t)·log π* + t·log ν, t = `shift`: π* at 0, ν at 1. ValueError: t outside [0, 1]."""
    if not 0 <= shift <= 1:
        raise ValueError(f"shift must lie in [0, 1], got {shift:g}: 0 is π*, 1 is ν")
    return ((1 - shift) * log_target + shift * log_far).log_softmax(-1)


def bound(coverage: Tensor, size: int, *, gamma: float, pairs: int, delta: float) -> Tensor:
    """C·ln(|Π|/δ)/(γ²·n) in nats: with probability 1−δ no less than PMLE's KL(π*‖π̂), up to a constant (ADL, Theorem 4).

    ValueError: δ outside (0, 1), γ ≤ 0, or n < 1.
    """
    if not 0 < delta < 1:
        raise ValueError(f"delta must lie in (0, 1), got {delta:g}: the bound holds with probability 1−δ")
    if not (gamma > 0 and pairs >= 1):
        raise ValueError(f"gamma must be > 0 and pairs ≥ 1, got {gamma:g} and {pairs}")
    return coverage * math.log(size / delta) / (gamma**2 * pairs)


def log_constant(radius: Tensor, gamma: float) -> Tensor:
    """ln of the constant of ADL's Theorem 4, (½ ∨ ψ(e^{4R}))·16·(2R²e^{4R}+3)·e^{4γR}, ψ(z) = (z−1−ln z)/(ln z)²; |R̄| ≤ γR.

    R [...] > 0 in nats; a logarithm because the constant passes float64's largest number at R ≈ 80. ValueError: R ≤ 0.
    """
    if not bool((radius > 0).all()):
        raise ValueError(f"radius must be > 0, got {float(radius.min()):g}: ψ is not defined at one reward")
    four = 4 * radius
    log_psi = four + (1 - (1 + four) * (-four).exp()).log() - 2 * four.log()
    log_loss = math.log(16) + four + (2 * radius.square() + 3 * (-four).exp()).log()
    return log_psi.clamp_min(math.log(0.5)) + log_loss + gamma * four
