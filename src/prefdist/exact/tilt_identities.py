"""Identities of one family: a policy, an objective or a logit as two works write it, on random worlds.

One side is `tilt` or a first notation; the other is another work's own formula (notations.py), a numerical maximiser, or a
row of the objective table. Left out: sequences, and finite data.
"""

from collections.abc import Callable
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax
from torch import Tensor

from prefdist.exact import notations
from prefdist.exact.closed_forms import optimum, tilt
from prefdist.exact.temperatures import at_global_temperature
from prefdist.exact.worlds import Worlds, enumerate_space
from prefdist.objectives.registry import load

ROUNDING = 1e-10
"""Between two float64 formulas: logits of some tens of nats, divided by weights of 0.1 and more."""
MAXIMISED = 1e-6
"""Between a closed form and a maximiser that stops at gradients of 1e-10 nats: far above what it leaves."""
Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Draw:
    """S random worlds of Y responses with full support: probabilities [S, Y], weights [S, 1], reward [S, Y].

    π₀ = share·aligned + (1 − share)·unaligned; target is π*; policy is any other one.
    """

    aligned: Tensor
    unaligned: Tensor
    target: Tensor
    policy: Tensor
    reward: Tensor
    share: Tensor
    alpha: Tensor
    beta: Tensor
    gamma: Tensor

    @property
    def reference(self) -> Tensor:
        """π₀ = π_ref = p_ref [S, Y]."""
        return self.share * self.aligned + (1 - self.share) * self.unaligned

    def first(self, number: int) -> "Draw":
        """The first worlds."""
        return Draw(*(getattr(self, field.name)[:number] for field in fields(self)))


def draw(size: int, worlds: int, spread: float, weights: tuple[float, float]) -> Draw:
    """Logits and rewards N(0, spread²), share uniform, α, β and γ log-uniform in `weights`; a seed and a size are a world.

    ValueError: weights that are no range of positive numbers.
    """
    low, high = weights
    if not 0 < low <= high:
        raise ValueError(f"weights must be a range 0 < low ≤ high, got {low:g} to {high:g}")
    generators = [np.random.default_rng([seed, size]) for seed in range(worlds)]
    normal = torch.from_numpy(np.stack([g.normal(0, spread, (5, size)) for g in generators], axis=1))
    uniform = torch.from_numpy(np.stack([g.random((4, 1)) for g in generators], axis=1))
    aligned, unaligned, target, policy = normal[:4].softmax(-1)
    alpha, beta, gamma = low * (high / low) ** uniform[1:]
    return Draw(aligned, unaligned, target, policy, normal[4], uniform[0], alpha, beta, gamma)


@dataclass(frozen=True)
class Identity:
    """A quantity that two works write differently: `left` and `right` compute it, [S, ...] each, and `formula` says how."""

    name: str
    formula: str
    quantity: str
    source: str
    left: Callable[[Draw], Tensor]
    right: Callable[[Draw], Tensor]
    limit: float = ROUNDING

    def deviation(self, worlds: Draw) -> Tensor:
        """The largest absolute difference in each world [S]."""
        return (self.left(worlds) - self.right(worlds)).abs().flatten(1).amax(-1)


def _log_spl(w: Draw) -> Tensor:
    return tilt(w.reference.log(), w.reward, temperature=w.alpha, ref_power=w.beta / w.alpha)


def _log_dpo(w: Draw) -> Tensor:
    return tilt(w.reference.log(), w.reward, temperature=w.beta, ref_power=1)


def _spl(w: Draw) -> Tensor:
    return _log_spl(w).exp()


def _dpo(w: Draw) -> Tensor:
    return _log_dpo(w).exp()


def _reverse_kl(w: Draw) -> Tensor:
    total = w.beta + w.gamma
    return tilt(w.reference.log(), w.reward, temperature=total, ref_power=w.beta / total).exp()


def _without_prior(w: Draw) -> Tensor:
    """SPL at α = γ, β = 0 with the reward γ·ln π*, which is what ADL's preferences mean."""
    return tilt(w.reference.log(), w.gamma * w.target.log(), temperature=w.gamma, ref_power=0).exp()


def _differences(values: Tensor) -> Tensor:
    """[S, Y] -> [S, Y, Y], a less b."""
    return values.unsqueeze(-1) - values.unsqueeze(-2)


def _spl_logit(w: Draw) -> Tensor:
    return _differences(w.alpha * _log_spl(w) - w.beta * w.reference.log())


def _dpo_logit(w: Draw) -> Tensor:
    return _differences(w.beta * (_log_dpo(w) - w.reference.log()))


def _divergence(policy: Tensor, log_other: Tensor) -> Tensor:
    """KL(policy‖other) [S, 1] nats."""
    return (policy * (policy.log() - log_other)).sum(-1, keepdim=True)


def _regret(w: Draw) -> Tensor:
    best, other = (notations.spl_objective(p, w.reference, w.reward, w.alpha, w.beta) for p in (_spl(w), w.policy))
    return best - other


def _adl_difference(w: Draw) -> Tensor:
    """ADL's loss at π less that at π*: a constant of the loss drops out."""
    loss, other = (notations.adl_loss(p, w.reference, w.reward, w.beta, w.gamma) for p in (w.policy, w.target))
    return loss - other


def _smoothed_difference(w: Draw) -> Tensor:
    """The same of −E[r] + (β + γ)·KL(π‖π₀^a/Z), a = β/(β + γ)."""
    total = w.beta + w.gamma
    log_prior = at_global_temperature(w.reference.log(), total / w.beta)
    loss, other = (-(p * w.reward).sum(-1, keepdim=True) + total * _divergence(p, log_prior) for p in (w.policy, w.target))
    return loss - other


def _at_dpo_temperature(w: Draw) -> Tensor:
    return at_global_temperature(_written_dpo(w).log(), w.alpha / w.beta).exp()


def _written_spl(w: Draw) -> Tensor:
    return notations.spl_optimum(w.reference, w.reward, w.alpha, w.beta)


def _written_dpo(w: Draw) -> Tensor:
    return notations.rlhf_optimum(w.reference, w.reward, w.beta)


def _written_adl(w: Draw) -> Tensor:
    return notations.adl_optimum(w.reference, w.reward, w.beta, w.gamma)


def _written_huang(w: Draw) -> Tensor:
    return notations.huang_optimum(w.aligned, w.unaligned, w.share, w.reward, w.beta)


def _implied_target(w: Draw) -> Tensor:
    """π* ∝ e^{r/γ} (ADL, Eq. 8)."""
    return (w.reward / w.gamma).softmax(-1)


def _maximised(w: Draw) -> Tensor:
    """SPL's objective, maximised over logits by SciPy from the prior: [S, Y]."""
    found = []
    for arrays in zip(*(t.numpy() for t in (w.reference.log(), w.reward, w.alpha, w.beta)), strict=True):
        solution = minimize(_negative_spl, arrays[0], args=arrays, jac=True, method="BFGS", options={"gtol": 1e-10})
        found.append(np.exp(log_softmax(solution.x)))
    return torch.from_numpy(np.stack(found))


def _negative_spl(z: Vector, prior: Vector, reward: Vector, alpha: Vector, beta: Vector) -> tuple[float, Vector]:
    """−(E[r] + α·H(π) − β·H(π, π_ref)) and its gradient at logits z, by hand; prior is ln π_ref."""
    log_p = log_softmax(z)
    p, gain = np.exp(log_p), reward - alpha * log_p + beta * prior
    return -float(p @ gain), -p * (gain - p @ gain)


def _row(name: str, **weights: str) -> Callable[[Draw], Tensor]:
    """The closed form of a row of the objective table; `weights` names what gives each of its parameters ("0": zero)."""

    def solve(w: Draw) -> Tensor:
        space = enumerate_space(w.reward.shape[-1], 1)
        # γ·ln π* = r + c, so that preferences are those of the reward. μ is π₀: no row here depends on it.
        log_mu, log_target = w.reference.log(), _implied_target(w).log()
        found = []
        for s, gamma in enumerate(w.gamma.squeeze(-1).tolist()):
            parameters = {key: 0.0 if of == "0" else float(getattr(w, of)[s]) for key, of in weights.items()}
            equation = optimum(load(name, parameters).row)
            assert equation is not None  # whatever their weights, these rows have one
            here = slice(s, s + 1)
            world = Worlds(space, gamma, 1, log_mu[here].unsqueeze(-2), log_target[here], log_mu[here])
            found.append(equation.solve(world))
        return torch.cat(found).exp()

    return solve


_WRITTEN_SPL, _WRITTEN_DPO, _WRITTEN_ADL = "π_ref^{β/α}·e^{r/α}/Z", "π_ref·e^{r/β}/Z", "π₀^a·e^{r/(β+γ)}/Z, a = β/(β+γ)"
WRITTEN = (
    Identity("SPL", f"tilt(α, β/α) = {_WRITTEN_SPL}", "optimum", "SPL, Prop. 3.2", _spl, _written_spl),
    Identity("ADL's reverse KL", f"tilt(β+γ, β/(β+γ)) = {_WRITTEN_ADL}", "optimum", "ADL, App. B", _reverse_kl, _written_adl),
    Identity("RLHF and DPO", f"tilt(β, 1) = {_WRITTEN_DPO}", "optimum", "DPO, Eq. 4", _dpo, _written_dpo),
    Identity("Huang's lemma", "tilt(β, 1) = α_A(y)·p_A + α_U(y)·p_U", "optimum", "Huang, Lemma 1", _dpo, _written_huang),
    Identity("SPL of DPO", "tilt(α, β/α) = π_DPO^{β/α}/Z", "optimum", "SPL, global temperature", _spl, _at_dpo_temperature),
    Identity(
        "reverse KL without prior",
        "tilt(γ, 0) of r = γ·ln π* is π*",
        "optimum",
        "ADL, Eq. 14",
        _without_prior,
        lambda w: w.target,
    ),
    Identity(
        "PMLE's link",
        "SPL-DPO's σ(α·Δ ln π) at α = γ, β = 0 is π(a)^γ/(π(a)^γ + π(b)^γ)",
        "preference",
        "ADL, Eq. 2 and 4",
        lambda w: torch.sigmoid(_differences(w.gamma * w.policy.log())),
        lambda w: notations.adl_preference(w.policy, w.gamma),
    ),
    Identity(
        "SPL's logits",
        "α·Δ ln π − β·Δ ln π_ref = Δr at the optimum",
        "logit",
        "SPL, Prop. A.2",
        _spl_logit,
        lambda w: _differences(w.reward),
    ),
    Identity(
        "DPO's logits",
        "β·Δ ln(π/π_ref) = Δr at the optimum",
        "logit",
        "DPO, Eq. 5",
        _dpo_logit,
        lambda w: _differences(w.reward),
    ),
    Identity(
        "SPL's and ADL's objective",
        "E[r] + (β+γ)·H(π) − β·H(π, π_ref) = E[r] + γ·H(π) − β·KL(π‖π₀)",
        "objective",
        "SPL, objective; ADL, Eq. 15",
        lambda w: notations.spl_objective(w.policy, w.reference, w.reward, w.beta + w.gamma, w.beta),
        lambda w: -notations.adl_loss(w.policy, w.reference, w.reward, w.beta, w.gamma),
    ),
    Identity(
        "what SPL's objective loses",
        "J(π_SPL) − J(π) = α·KL(π‖π_SPL)",
        "objective",
        "SPL, Prop. 3.2",
        _regret,
        lambda w: w.alpha * _divergence(w.policy, _log_spl(w)),
    ),
    Identity(
        "ADL's smoothed prior",
        "loss = −E[r] + (β+γ)·KL(π‖π₀^a/Z) + c, a = β/(β+γ)",
        "objective",
        "ADL, App. B",
        _adl_difference,
        _smoothed_difference,
    ),
)
"""Formula against formula."""
SOLVED = (
    Identity(
        "SPL, maximised", "tilt(α, β/α) = argmax of SPL's J by SciPy", "optimum", "SPL, Prop. 3.2", _spl, _maximised, MAXIMISED
    ),
    Identity("row spl", _WRITTEN_SPL, "optimum", "SPL, Prop. 3.2", _row("spl", alpha="alpha", beta="beta"), _written_spl),
    Identity("row dpo", _WRITTEN_DPO, "optimum", "DPO, Eq. 4", _row("dpo", beta="beta"), _written_dpo),
    Identity("row rlhf_rloo", _WRITTEN_DPO, "optimum", "DPO, Eq. 4", _row("rlhf_rloo", beta="beta"), _written_dpo),
    Identity(
        "row reverse_kl_rloo",
        _WRITTEN_ADL,
        "optimum",
        "ADL, App. B",
        _row("reverse_kl_rloo", beta="beta", gamma="gamma"),
        _written_adl,
    ),
    Identity(
        "row pmle at β = 0", "π* = e^{r/γ}/Z", "optimum", "ADL, Eq. 8", _row("pmle", gamma="gamma", beta="0"), _implied_target
    ),
)
"""A loop over worlds each: a maximiser, and rows of the objective table. For a few worlds."""
