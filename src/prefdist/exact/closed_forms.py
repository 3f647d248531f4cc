"""Closed forms on enumerated responses: the tilted reference, total probability mass, and the optimum of a row.

Every method of the objective table has, where it has a closed form at all, the same one: at the optimum

    a·log π(y) − b·log π₀(y) = signal(y) + c        hence π ∝ π₀^{b/a}·exp(signal/a)

(ADL, arXiv 2506.01523, App. B; SPL, arXiv 2511.08594, Prop. 3.2). Left out: rows without one (optima.py solves those).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from prefdist.exact.worlds import Worlds
from prefdist.objectives.rows import PolicyGradientRow, PreferenceRow

NORMALISATION_LIMIT = 1e-5
"""How far a sum of probabilities may be from one: float32 sums over 10⁵ responses stay within it."""


def tilt(log_ref: Tensor, reward: Tensor, *, temperature: float | Tensor, ref_power: float | Tensor) -> Tensor:
    """log of π ∝ π_ref^ref_power·exp(reward/temperature): [..., Y], [..., Y] -> [..., Y], normalised over Y.

    RLHF and DPO: ref_power 1; ADL's reverse KL: temperature β+γ, ref_power β/(β+γ); SPL: temperature α, ref_power β/α.
    Either is one number, or [..., 1]: one a world. ValueError: temperature ≤ 0, log_ref not normalised, a reward that is
    not finite, or log 0 in log_ref at ref_power ≤ 0 (at a positive power a response that π_ref excludes stays excluded).
    """
    coldest, weakest = (float(torch.as_tensor(value).min()) for value in (temperature, ref_power))
    if not coldest > 0:
        raise ValueError(f"temperature must be > 0, got {coldest:g}: at 0 the optimum is no tilt")
    check_normalised(log_ref, "log_ref")
    if not bool(reward.isfinite().all()):
        raise ValueError("reward must be finite: a reward of minus infinity belongs into log_ref as zero support")
    if weakest <= 0 and not bool(log_ref.isfinite().all()):
        raise ValueError(f"log_ref has zero support (log 0), which ref_power {weakest:g} ≤ 0 cannot raise: use > 0")
    return (ref_power * log_ref + reward / temperature).log_softmax(-1)


def tpm(log_policy: Tensor, log_ref: Tensor, responsibility: Tensor) -> Tensor:
    """Total probability mass of the aligned component, E_π[a(y)]: all [..., Y] -> [...], in [0, 1].

    Huang's note, Theorem 2, in the identity TPM(A) = Σ_y π(y)·a(y) with the responsibility a(y) = α·p_A(y)/π_ref(y) of
    the mixture π_ref = α·p_A + (1−α)·p_U. ValueError: a distribution that is not normalised, a(y) outside [0, 1], or a
    policy with mass where π_ref has none (a is not defined there).
    """
    check_normalised(log_policy, "log_policy")
    check_normalised(log_ref, "log_ref")
    slack = NORMALISATION_LIMIT
    if not bool(((responsibility >= -slack) & (responsibility <= 1 + slack)).all()):
        raise ValueError("responsibility must lie in [0, 1]: it is α·p_A(y)/π_ref(y)")
    if bool((log_ref.isneginf() & ~log_policy.isneginf()).any()):
        raise ValueError("log_policy has mass where log_ref has zero support (log 0): it has no responsibility there")
    return (log_policy.exp() * responsibility).sum(-1)


def check_normalised(log_p: Tensor, name: str) -> None:
    """ValueError names log-probabilities [..., Y] that do not sum to one over Y."""
    off = (log_p.exp().sum(-1) - 1).abs().max()
    if not bool(off <= NORMALISATION_LIMIT):
        raise ValueError(f"{name} must sum to one over its last axis: off by {off:.3g}, limit {NORMALISATION_LIMIT}")


@dataclass(frozen=True)
class Equation:
    """a·log π − b·log π₀ = scale·signal + c at the optimum, on means over tokens where `mean` is set.

    signal: "reward" is r(y); "win_rate" is P*(y beats y′), y′ ~ μ.
    """

    a: float
    b: float
    scale: float
    signal: str
    mean: bool

    def text(self, gamma: float) -> str:
        """The equation for a reader, with r = gamma·log π*."""
        if self.mean:
            left = f"({self.a:g}·log π − {self.b:g}·log π₀)/|y|" if self.b else f"{self.a:g}·log π/|y|"
            right = f"{self.scale * gamma:.3g}·log π*" if self.signal == "reward" else f"{self.scale:g}·P*(y≻μ)"
            return f"{left} = {right} + c"
        tilted = f"exp({self.scale / self.a:.3g}·P*(y≻μ))"
        if self.signal == "reward":
            tilted = _power("π*", self.scale * gamma / self.a)
        return "π ∝ " + "·".join(filter(None, (_power("π₀", self.b / self.a), tilted)))

    def solve(self, worlds: Worlds) -> Tensor:
        """log π [N, Y]."""
        signal = worlds.reward
        if self.signal == "win_rate":
            signal = (worlds.preference * worlds.log_mu.exp().unsqueeze(-2)).sum(-1)
        signal = self.scale * signal
        if not self.mean:
            return tilt(worlds.log_reference, signal, temperature=self.a, ref_power=self.b / self.a)
        if not self.a > 0:
            raise ValueError(f"a must be > 0, got {self.a}: there is no optimum of this form")
        n_tokens = worlds.space.n_tokens
        unnormalised = (self.b * worlds.log_reference + n_tokens * signal) / self.a
        return _normalised_by_rate(unnormalised, n_tokens / self.a)


def _power(name: str, power: float) -> str:
    rounded = f"{power:.3g}"
    return {"0": "", "1": name}.get(rounded, f"{name}^{rounded}")


def optimum(row: PreferenceRow | PolicyGradientRow) -> Equation | None:
    """The equation of a row's population optimum or on-policy fixed point, or None where there is none.

    Label targets give Δs = Δr for all pairs at once (Bradley-Terry is well specified); a constant target gives the
    least squares fit s(y) = 2·value·P*(y≻μ) + c (IPO, arXiv 2310.12036, Theorem 1). Where a row
    looks at the old policy, that is the policy itself at the fixed point. No closed form: a margin or a regulariser in
    the loss, whose pairwise optima contradict each other on three responses or more.
    """
    if isinstance(row, PolicyGradientRow):
        kl = float(row.kl)
        return Equation(kl + float(row.entropy), kl, 1.0, "reward", mean=False)
    mean = row.score.length == "mean"
    a, b = float(row.score.a), float(row.score.b)
    if row.score.against == "old":
        a, b = a - b, 0.0
    if row.regulariser is not None and row.regulariser.kl != 0:
        return None
    if row.target.of == "constant":
        return Equation(a, b, 2 * float(row.target.value), "win_rate", mean)
    if row.target.of == "label":
        return None if row.target.margin != 0 else Equation(a, b, 1.0, "reward", mean)
    scale = float(row.target.scale)
    kl = scale * float(row.target.kl)
    if mean and kl != 0:
        return None
    return Equation(a + kl, b + kl, scale, "reward", mean)


def folded_into_reward(row: PreferenceRow) -> Equation | None:
    """The optimum if a row's regulariser stood in its reward, not its loss (distillation: ADL's reverse KL)."""
    if row.regulariser is None or row.regulariser.kl == 0:
        return None
    bare = optimum(row.model_copy(update={"regulariser": None}))
    kl = float(row.regulariser.kl)
    return None if bare is None else replace(bare, a=bare.a + kl, b=bare.b + kl)


def _normalised_by_rate(log_p: Tensor, weight: Tensor) -> Tensor:
    """log_p + c·weight with the c [N, 1] that normalises it; weight [Y] > 0, so that the sum grows with c."""
    low, high = (torch.full_like(log_p[:, :1], bound) for bound in (-1e3, 1e3))
    for _ in range(80):  # 2000/2⁸⁰ is below the spacing of float64
        middle = (low + high) / 2
        too_large = (log_p + middle * weight).logsumexp(-1, keepdim=True) > 0
        low, high = torch.where(too_large, low, middle), torch.where(too_large, middle, high)
    return (log_p + high * weight).log_softmax(-1)
