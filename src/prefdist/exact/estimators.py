"""Which estimators of policy gradients are right? Their exact expectations, beside autograd of the exact sums.

Estimators are losses of one response, as they are written in training code; their expected gradient is a sum over all
responses of a small autoregressive world. The project's own functions are rows among the others. Left out: variance.
Source of the kinds: adl.md 4.2; arXiv 2506.09477 and 2510.01555 say the same of k1 and k3 losses.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefdist.exact.worlds import Space, enumerate_space, random_worlds
from prefdist.objectives.policy_gradient import Ppo, advantages, kl_surrogate, token_rewards
from prefdist.objectives.registry import load

EXACT = 1e-9
"""Relative error up to which an estimator is exact: float64 rounding of a few hundred terms is far below."""
KL_COEFFICIENT, ENTROPY_COEFFICIENT = 0.3, 0.2
"""β and γ of the policy-gradient rows: large enough that a wrong KL or entropy shows."""


@dataclass(frozen=True)
class Point:
    """One policy π against π₀ on a space. policy, reference [Y, T]: token log-probabilities, policy differentiable.

    weights [Y] = π(y), constant; log_dists, log_dists_reference [Y, T, V]: the distributions each token was drawn from.
    """

    space: Space
    policy: Tensor
    reference: Tensor
    weights: Tensor
    log_dists: Tensor
    log_dists_reference: Tensor
    reward: Tensor

    @property
    def n_tokens(self) -> Tensor:
        return self.space.n_tokens

    @property
    def log_ratio(self) -> Tensor:
        return self.policy - self.reference

    def exact_kl(self) -> Tensor:
        policy, reference = self.policy.sum(-1), self.reference.sum(-1)
        return (policy.exp() * (policy - reference)).sum()

    def exact_entropy(self) -> Tensor:
        policy = self.policy.sum(-1)
        return -(policy.exp() * policy).sum()

    def exact_return(self) -> Tensor:
        """E[r] + γ·H − β·KL."""
        reward = (self.policy.sum(-1).exp() * self.reward).sum()
        return reward + ENTROPY_COEFFICIENT * self.exact_entropy() - KL_COEFFICIENT * self.exact_kl()


Estimator = Callable[[Point], Tensor]
"""The expectation of a loss under π, constant weights: its gradient is the estimator's expected gradient."""


def estimators_table(*, worlds: int = 5, vocabulary: int = 3, length: int = 3, spread: float = 1.0) -> list[dict[str, Any]]:
    """A row for each estimator: relative errors and cosine of its gradient over worlds of seeds 0 … worlds−1, verdicts.

    Verdicts: exact; direction (parallel, another length); zero (the gradient vanishes); biased.
    """
    space = enumerate_space(vocabulary, length)
    # Two contexts: the first gives π₀ and the reward, the second the policy.
    drawn = random_worlds(space, contexts=2, seeds=range(worlds), gamma=1.0, spread=spread)
    result = []
    for quantity, name, expected, estimator in _rows():
        errors, cosines = [], []
        for first in range(0, 2 * worlds, 2):
            logits = drawn.reference[first + 1].clone().requires_grad_()
            point = _point(space, logits, drawn.reference[first], drawn.reward[first])
            true = _gradient(TARGETS[quantity](point), logits)
            found = _gradient(estimator(point), logits)
            errors.append(float((found - true).norm() / true.norm()))
            # Rounding leaves a vanishing gradient a direction, which means nothing.
            vanishes = found.norm() <= EXACT * true.norm()
            cosines.append(0.0 if vanishes else float(found @ true / (found.norm() * true.norm())))
        result.append(
            {
                "quantity": quantity,
                "estimator": name,
                "n": worlds,
                "error_max": max(errors),
                "error_mean": sum(errors) / len(errors),
                "error_min": min(errors),
                "cosine_min": min(cosines),
                "expected": expected,
                "verdict": _verdict(errors, cosines),
            }
        )
    return result


def _verdict(errors: Sequence[float], cosines: Sequence[float]) -> str:
    if max(errors) <= EXACT:
        return "exact"
    if min(cosines) >= 1 - EXACT:
        return "direction"
    return "zero" if not any(cosines) else "biased"


def _gradient(value: Tensor, logits: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, logits, retain_graph=True)
    return gradient.flatten()


def _point(space: Space, logits: Tensor, reference: Tensor, reward: Tensor) -> Point:
    policy = space.token_logps(logits)
    return Point(
        space=space,
        policy=policy,
        reference=space.token_logps(reference),
        weights=policy.sum(-1).exp().detach(),
        log_dists=logits.log_softmax(-1)[space.prefixes],
        log_dists_reference=reference.log_softmax(-1)[space.prefixes],
        reward=reward,
    )


TARGETS: dict[str, Estimator] = {
    "KL": Point.exact_kl,
    "entropy": Point.exact_entropy,
    "return": Point.exact_return,
}


def _rows() -> Iterable[tuple[str, str, str, Estimator]]:
    """(quantity, estimator, expected verdict, function); "as a loss" means that the term itself is differentiated."""
    yield "KL", "k1 = ln π − ln π₀ as a loss", "zero", lambda p: _mean(p, p.log_ratio.sum(-1))
    yield "KL", "score function, full return", "exact", lambda p: _mean(p, _sum(p.log_ratio) * p.policy.sum(-1))
    yield "KL", "score function, reward-to-go", "exact", lambda p: _mean(p, (_to_go(p.log_ratio) * p.policy).sum(-1))
    yield "KL", "kl_surrogate (prefdist)", "exact", _project_kl_surrogate
    yield "KL", "k2 per sequence as a loss", "exact", lambda p: _mean(p, p.log_ratio.sum(-1).square() / 2)
    yield "KL", "score function, same-t reward only", "biased", lambda p: _mean(p, _same_t(p))
    yield "KL", "k2 per token as a loss", "biased", lambda p: _mean(p, (p.log_ratio.square() / 2).sum(-1))
    yield "KL", "per-token categorical KL as a loss", "biased", lambda p: _mean(p, _categorical_kl(p))
    yield "KL", "k3 per token as a loss", "biased", lambda p: _mean(p, _k3(p.log_ratio).sum(-1))
    yield "KL", "k3 per sequence as a loss", "biased", lambda p: _mean(p, _k3(p.log_ratio.sum(-1)))
    yield "entropy", "−ln π as the reward", "exact", lambda p: _mean(p, -_sum(p.policy) * p.policy.sum(-1))
    yield "entropy", "token_rewards and RLOO (prefdist)", "exact", _project_entropy
    yield "entropy", "token entropy, sum, as a loss", "biased", lambda p: _mean(p, _token_entropy(p))
    yield "entropy", "token entropy, mean, as a loss", "biased", lambda p: _mean(p, _token_entropy(p) / p.n_tokens)
    yield "return", "RLOO (prefdist)", "exact", _project_rloo
    yield "return", "PPO, λ = 1, raw advantages (prefdist)", "exact", lambda p: _project_ppo(p, 1.0)
    yield "return", "PPO, λ = 1, whitened (prefdist)", "direction", lambda p: _project_ppo(p, 1.0, whitened=True)
    yield "return", "PPO, λ = 0.95, raw advantages (prefdist)", "biased", lambda p: _project_ppo(p, 0.95)


def _mean(point: Point, losses: Tensor) -> Tensor:
    return (point.weights * losses).sum()


def _sum(tokens: Tensor) -> Tensor:
    return tokens.detach().sum(-1)


def _to_go(tokens: Tensor) -> Tensor:
    return tokens.detach().flip(-1).cumsum(-1).flip(-1)


def _same_t(point: Point) -> Tensor:
    return (point.log_ratio.detach() * point.policy).sum(-1)


def _k3(log_ratio: Tensor) -> Tensor:
    """π₀/π − 1 + ln(π/π₀): unbiased for the value of the KL."""
    return torch.exp(-log_ratio) - 1 + log_ratio


def _categorical_kl(point: Point) -> Tensor:
    per_token = (point.log_dists.exp() * (point.log_dists - point.log_dists_reference)).sum(-1)
    return (per_token * point.space.mask).sum(-1)


def _token_entropy(point: Point) -> Tensor:
    return (-(point.log_dists.exp() * point.log_dists).sum(-1) * point.space.mask).sum(-1)


def _pairs(values: Tensor) -> Tensor:
    """[Y, ...] -> [Y², 2, ...], all ordered pairs: two samples of one prompt."""
    index = torch.arange(len(values))
    return values[torch.cartesian_prod(index, index)]


def _project_kl_surrogate(point: Point) -> Tensor:
    losses = kl_surrogate(_pairs(point.policy), _pairs(point.reference), _pairs(point.space.mask))
    return (_pairs(point.weights).prod(-1) * losses).sum()


def _project_rloo(
    point: Point, *, kl: float = KL_COEFFICIENT, entropy: float = ENTROPY_COEFFICIENT, reward: float = 1.0
) -> Tensor:
    row = {"title": "RLOO", "source": "", "family": "policy_gradient", "algorithm": "rloo"}
    logps = {"policy": _pairs(point.policy), "old": _pairs(point.policy.detach()), "reference": _pairs(point.reference)}
    columns = {"mask": _pairs(point.space.mask), "scores": reward * _pairs(point.reward)}
    return -(_pairs(point.weights).prod(-1) * load(row | {"kl": kl, "entropy": entropy})(logps, columns)).sum()


def _project_entropy(point: Point) -> Tensor:
    return _project_rloo(point, kl=0.0, entropy=1.0, reward=0.0)


def _project_ppo(point: Point, gae_lambda: float, *, whitened: bool = False) -> Tensor:
    """The first step of PPO (ratio 1) with a zero critic and one sample a prompt."""
    row = {"title": "PPO", "source": "", "family": "policy_gradient", "algorithm": "ppo", "gae_lambda": gae_lambda}
    objective = load(row | {"kl": KL_COEFFICIENT, "entropy": ENTROPY_COEFFICIENT})
    assert isinstance(objective, Ppo)
    mask, policy, reference = (value.unsqueeze(1) for value in (point.space.mask, point.policy, point.reference))
    logps = {"policy": policy, "old": policy.detach(), "reference": reference}
    columns = {"mask": mask, "scores": point.reward.unsqueeze(1), "values": torch.zeros_like(reference)}
    columns |= objective.prepare(logps, columns)
    if not whitened:
        rewards = token_rewards(
            logps["old"], reference, mask, columns["scores"], kl=KL_COEFFICIENT, entropy=ENTROPY_COEFFICIENT
        )
        columns["advantages"] = advantages(rewards, columns["values"], mask, gae_lambda)
    # `weight` turns the mean over sequences into one over tokens; the return is a mean over sequences.
    columns["weight"] = torch.ones_like(columns["weight"])
    return -(point.weights * objective(logps, columns)).sum()
