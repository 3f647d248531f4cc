"""The methods of ADL's toy world as functions of counts of wins: what each makes of n pairs at β.

In a full table of contexts × responses several coincide. DPO's likelihood is that of r̂ = β·ln π/π₀, so it is RLHF at every β;
distillation with the KL in its reward is reverse KL; and at β = 0 PMLE, distillation and reverse KL all have γ·ln π = r̂.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from prefdist.exact.bradley_terry import fit
from prefdist.exact.closed_forms import tilt
from prefdist.exact.learning_curves import Learner, Toy
from prefdist.exact.policy_fits import fit_policy

PMLE, DISTILLED, ON_FRESH = "PMLE", "distillation", "distillation, fresh pairs"
REVERSE_KL, DPO = "reverse KL", "DPO, RLHF"
LEARN_TARGET = (PMLE, DISTILLED, ON_FRESH, REVERSE_KL)
"""By ADL's theorems, without a regulariser."""


def learners(toy: Toy, ridge: float, alphas: Sequence[float]) -> dict[str, Learner]:
    """All methods by name; SPL at each of its weights of the entropy, `alphas`."""
    gamma = toy.gamma

    def spl(alpha: float) -> Learner:
        return tilted(toy, ridge, lambda beta: (torch.full_like(beta, alpha), beta / alpha))

    return {
        PMLE: likelihood(toy, ridge),
        DISTILLED: distilled(toy, ridge, on_fresh=False),
        ON_FRESH: distilled(toy, ridge, on_fresh=True),
        REVERSE_KL: tilted(toy, ridge, lambda beta: (beta + gamma, beta / (beta + gamma))),
        DPO: tilted(toy, ridge, lambda beta: (beta, torch.ones_like(beta))),
        **{f"SPL, α = {alpha:g}": spl(alpha) for alpha in alphas},
    }


def tilted(toy: Toy, ridge: float, powers: Callable[[Tensor], tuple[Tensor, Tensor]]) -> Learner:
    """π ∝ π₀^power·exp(r̂/temperature) for the temperature and power of β that `powers` gives."""

    def learn(wins: Tensor, fresh: Tensor, beta: Tensor) -> Tensor:
        temperature, power = powers(beta.unsqueeze(-1))
        return tilt(toy.log_reference, fit(wins, ridge), temperature=temperature, ref_power=power)

    return learn


def likelihood(toy: Toy, ridge: float) -> Learner:
    """PMLE with β·KL in the loss (ADL, Eq. 5)."""

    def learn(wins: Tensor, fresh: Tensor, beta: Tensor) -> Tensor:
        return _with_kl(toy, wins, beta, ridge)

    return learn


def distilled(toy: Toy, ridge: float, *, on_fresh: bool) -> Learner:
    """Distillation of r̂ with β·KL in the loss (ADL, Eq. 12): on the labelled pairs themselves, or on as many fresh ones."""

    def learn(wins: Tensor, fresh: Tensor, beta: Tensor) -> Tensor:
        reward = fit(wins, ridge)
        seen = fresh if on_fresh else wins
        soft = (seen + seen.mT) * torch.sigmoid(reward.unsqueeze(-1) - reward.unsqueeze(-2))
        return _with_kl(toy, soft, beta, ridge)

    return learn


def _with_kl(toy: Toy, wins: Tensor, beta: Tensor, ridge: float) -> Tensor:
    """β·KL is a mean over contexts beside a mean over pairs; beside the sum over one context's pairs it is β·n/X."""
    kl = beta * wins.sum((-1, -2)).mean(-1, keepdim=True)
    shape = torch.broadcast_shapes(kl.shape, wins.shape[:-2])
    return fit_policy(wins, toy.log_reference, gamma=toy.gamma, kl=kl.expand(shape), ridge=ridge)
