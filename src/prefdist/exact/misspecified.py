"""Preferences that are not tilted Bradley-Terry, and what each method makes of infinitely many pairs labelled by them.

Bradley-Terry's maximum likelihood is fitted to the observed law; a method's closed form then takes the fitted reward, or the
observed win rate. Left out: finite data, and annotators whose faults depend on the text.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from prefdist.exact.bradley_terry import fit
from prefdist.exact.closed_forms import Equation, check_normalised, optimum, tilt
from prefdist.exact.worlds import Worlds
from prefdist.objectives.registry import load

METHODS: Mapping[str, tuple[str, Callable[[float], dict[str, float]]]] = {
    "PMLE": ("pmle", lambda gamma: {"gamma": gamma, "beta": 0.0}),
    "distillation": ("distill_kl_loss", lambda gamma: {"gamma": gamma, "beta": 0.0}),
    "reverse KL, β = 0": ("reverse_kl_rloo", lambda gamma: {"gamma": gamma, "beta": 0.0}),
    "reverse KL, β = γ": ("reverse_kl_rloo", lambda gamma: {"gamma": gamma, "beta": gamma}),
    "DPO": ("dpo", lambda gamma: {"beta": gamma}),
    "RLHF": ("rlhf_rloo", lambda gamma: {"beta": gamma}),
    "SPL": ("spl", lambda gamma: {"alpha": 1.5 * gamma, "beta": gamma}),
    "IPO": ("ipo", lambda gamma: {"margin": 2 / gamma}),
}
"""A row of the objective table, and its parameters for the γ that is assumed. IPO's τ is γ/4: P ≈ ½ + Δr/4 where Δr is small,
so that its optimum is DPO's in the limit of weak preferences."""
WITHOUT_PRIOR = ("PMLE", "distillation", "reverse KL, β = 0")
"""Whose optimum is π* where preferences are as assumed (ADL, Eq. 4, 11 and 14)."""
KINDS = {
    "position bias": "b of the first response (nats)",
    "intransitive": "c of σ(Δ + c·A) (nats)",
    "label noise": "share ε of labels turned round",
    "γ assumed too small": "ln γ/γ′",
    "γ assumed too large": "ln γ′/γ",
}
"""What may be misspecified, and the unit of its strength."""


@dataclass(frozen=True)
class Learned:
    """Bradley-Terry's reward and the observed win rate against μ, tables [..., Y]."""

    reward: Tensor
    win_rate: Tensor

    def policy(self, method: str, gamma: float, log_reference: Tensor) -> Tensor:
        """log π [..., Y] at the population optimum (or fixed point) of a method of METHODS that assumes `gamma`."""
        equation = equation_of(method, gamma)
        signal = self.reward if equation.signal == "reward" else self.win_rate
        log_reference = log_reference.expand_as(signal)
        return tilt(log_reference, equation.scale * signal, temperature=equation.a, ref_power=equation.b / equation.a)


def equation_of(method: str, gamma: float) -> Equation:
    """The closed form of a method of METHODS. ValueError names an unknown one, and γ ≤ 0."""
    if method not in METHODS:
        raise ValueError(f"method must be one of {'; '.join(METHODS)}: got {method}")
    if not gamma > 0:
        raise ValueError(f"gamma must be > 0, got {gamma:g}: at 0 all responses are equally good")
    row, parameters = METHODS[method]
    equation = optimum(load(row, parameters(gamma)).row)
    assert equation is not None  # without a regulariser in the loss, or a margin, every row has one
    return equation


def learn(preference: Tensor, log_mu: Tensor) -> Learned:
    """P(a beats b) [..., Y, Y] as observed, and log μ [..., Y] of both responses of a pair.

    ValueError: μ that does not sum to one or has zero support, P outside [0, 1] or not one with its opposite;
    RuntimeError (of `fit`) where the reward is not finite.
    """
    check_normalised(log_mu, "log_mu")
    if not bool(log_mu.isfinite().all()):
        raise ValueError("log_mu has zero support (log 0): a response that is never compared has no reward")
    off = float((preference + preference.mT - 1).abs().max())
    if not off <= 1e-9 or not bool(((preference >= 0) & (preference <= 1)).all()):
        raise ValueError(f"preference must be in [0, 1], P(a beats b) + P(b beats a) = 1: off by {off:.3g}, limit 1e-9")
    mu = log_mu.exp()
    weights = mu.unsqueeze(-1) * mu.unsqueeze(-2)
    return Learned(fit(weights * preference), (preference * mu.unsqueeze(-2)).sum(-1))


def position_bias(gap: Tensor, strength: float) -> Tensor:
    """The response shown first has `strength` nats more, and the order is drawn: ½·σ(Δ + b) + ½·σ(Δ − b)."""
    return (torch.sigmoid(gap + strength) + torch.sigmoid(gap - strength)) / 2


def intransitive(gap: Tensor, strength: float, cycles: Tensor) -> Tensor:
    """σ(Δ + c·A) with an antisymmetric A [..., Y, Y] that is a context's own."""
    return torch.sigmoid(gap + strength * cycles)


def label_noise(gap: Tensor, strength: float) -> Tensor:
    """Of the labels a share ε is turned round: ε + (1 − 2ε)·σ(Δ). ValueError: ε outside [0, ½)."""
    if not 0 <= strength < 0.5:
        raise ValueError(f"strength of label noise must lie in [0, 1/2), got {strength:g}: at 1/2 labels say nothing")
    return strength + (1 - 2 * strength) * torch.sigmoid(gap)


def antisymmetric(tables: int, responses: int, seed: int) -> Tensor:
    """A [tables, Y, Y] of N(0, 1) above the diagonal and its negative below."""
    generator = torch.Generator().manual_seed(seed)
    upper = torch.randn((tables, responses, responses), generator=generator, dtype=torch.float64).triu(1)
    return upper - upper.mT


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) [..., Y] -> [...] in nats, for full support."""
    # Rounding may leave a divergence of nothing at −1e-17.
    return (log_p.exp() * (log_p - log_q)).sum(-1).clamp_min(0)


@dataclass(frozen=True)
class Setting:
    """Worlds, their gaps Δr [N, Y, Y], antisymmetric A [N, Y, Y], and priors log π₀ [N, Y] by how much they know of π*."""

    worlds: Worlds
    gap: Tensor
    cycles: Tensor
    priors: Mapping[float, Tensor]

    @classmethod
    def of(cls, worlds: Worlds, knowledge: Sequence[float], seed: int) -> "Setting":
        """log π₀ ∝ κ·log π* + √(1−κ²)·log of the worlds' own prior. ValueError: κ outside [0, 1)."""
        if not 0 <= min(knowledge) <= max(knowledge) < 1:
            raise ValueError(f"knowledge must lie in [0, 1), got {list(knowledge)}: at 1 the prior is the target")
        gap = worlds.reward.unsqueeze(-1) - worlds.reward.unsqueeze(-2)
        own = {k: k * worlds.log_target + math.sqrt(1 - k**2) * worlds.log_reference for k in knowledge}
        priors = {k: log_p.log_softmax(-1) for k, log_p in own.items()}
        return cls(worlds, gap, antisymmetric(len(gap), gap.shape[-1], seed), priors)

    def divergences(self, kind: str, strengths: Sequence[float]) -> dict[tuple[str, float], tuple[Tensor, Tensor]]:
        """KL(π*‖π) and KL(π‖π*) [strengths, worlds], means over contexts, by method and prior."""
        sign = {"γ assumed too small": -1, "γ assumed too large": 1}.get(kind, 0)
        learned = [learn(self.observed(kind, strength), self.worlds.log_mu) for strength in strengths]
        gammas = [self.worlds.gamma * math.exp(sign * strength) for strength in strengths]
        found = {}
        for method in METHODS:
            for known, prior in self.priors.items():
                log_p = torch.stack([data.policy(method, gamma, prior) for data, gamma in zip(learned, gammas, strict=True)])
                target = self.worlds.log_target.expand_as(log_p)
                found[method, known] = (self._by_world(divergence(target, log_p)), self._by_world(divergence(log_p, target)))
        return found

    def observed(self, kind: str, strength: float) -> Tensor:
        """P(a beats b) [N, Y, Y] of a kind of KINDS; a wrong γ is the method's and leaves it alone."""
        if kind == "position bias":
            return position_bias(self.gap, strength)
        if kind == "intransitive":
            return intransitive(self.gap, strength, self.cycles)
        return label_noise(self.gap, strength if kind == "label noise" else 0.0)

    def _by_world(self, values: Tensor) -> Tensor:
        return values.unflatten(-1, (self.worlds.n_worlds, -1)).mean(-1)
