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
    """`name` and `other` name two ways to write a quantity; `left` and `right` compute them, [S, ...] each."""

    name: str
    other: str
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


WRITTEN = (
    Identity("tilt(α, β/α)", "SPL: π_ref^{β/α}·e^{r/α}/Z", "optimum", "SPL, Prop. 3.2", _spl, _written_spl),
    Identity("SPL at α = β + γ", "ADL: π₀^a·e^{r/(β+γ)}/Z, a = β/(β+γ)", "optimum", "ADL, App. B", _reverse_kl, _written_adl),
    Identity("SPL at α = β", "DPO: π_ref·e^{r/β}/Z", "optimum", "DPO, Eq. 4", _dpo, _written_dpo),
    Identity("SPL at α = β", "Huang: α_A(y)·p_A + α_U(y)·p_U", "optimum", "Huang, Lemma 1", _dpo, _written_huang),
    Identity("SPL", "DPO^{β/α}/Z", "optimum", "SPL, Sec. 3", _spl, _at_dpo_temperature),
    Identity("SPL at α = γ, β = 0, r = γ·ln π*", "π*", "optimum", "ADL, Eq. 14", _without_prior, lambda w: w.target),
    Identity(
        "SPL-DPO's σ(γ·Δ ln π) at α = γ, β = 0",
        "PMLE: π(a)^γ/(π(a)^γ + π(b)^γ)",
        "preference",
        "ADL, Eq. 2 and 4",
        lambda w: torch.sigmoid(_differences(w.gamma * w.policy.log())),
        lambda w: notations.adl_preference(w.policy, w.gamma),
    ),
    Identity(
        "α·Δ ln π − β·Δ ln π_ref at SPL's optimum",
        "Δr",
        "logit",
        "SPL, Prop. A.2",
        _spl_logit,
        lambda w: _differences(w.reward),
    ),
    Identity("β·Δ ln(π/π_ref) at DPO's optimum", "Δr", "logit", "DPO, Eq. 5", _dpo_logit, lambda w: _differences(w.reward)),
    Identity(
        "SPL at α = β + γ: E[r] + α·H(π) − β·H(π, π_ref)",
        "ADL: E[r] + γ·H(π) − β·KL(π‖π₀)",
        "objective",
        "SPL, Sec. 3; ADL, Eq. 15",
        lambda w: notations.spl_objective(w.policy, w.reference, w.reward, w.beta + w.gamma, w.beta),
        lambda w: -notations.adl_loss(w.policy, w.reference, w.reward, w.beta, w.gamma),
    ),
    Identity(
        "SPL's J(π_SPL) − J(π)",
        "α·KL(π‖π_SPL)",
        "objective",
        "SPL, Prop. 3.2",
        _regret,
        lambda w: w.alpha * _divergence(w.policy, _log_spl(w)),
    ),
    Identity("ADL's loss", "−E[r] + (β+γ)·KL(π‖π₀^a/Z) + c", "objective", "ADL, App. B", _adl_difference, _smoothed_difference),
)
"""Formula against formula."""
SOLVED = (
    Identity("tilt(α, β/α)", "SPL's J, maximised by SciPy", "optimum", "SPL, Prop. 3.2", _spl, _maximised, MAXIMISED),
    Identity(
        "row spl",
        "SPL: π_ref^{β/α}·e^{r/α}/Z",
        "optimum",
        "SPL, Prop. 3.2",
        _row("spl", alpha="alpha", beta="beta"),
        _written_spl,
    ),
    Identity("row dpo", "DPO: π_ref·e^{r/β}/Z", "optimum", "DPO, Eq. 4", _row("dpo", beta="beta"), _written_dpo),
    Identity("row rlhf_rloo", "DPO: π_ref·e^{r/β}/Z", "optimum", "DPO, Eq. 4", _row("rlhf_rloo", beta="beta"), _written_dpo),
    Identity(
        "row reverse_kl_rloo",
        "ADL: π₀^a·e^{r/(β+γ)}/Z",
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
