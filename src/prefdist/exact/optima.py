"""Does the optimum of each row of the objective table lie where its closed form says?

`train` follows the exact expectation of the project's own objective, over all pairs of responses, to a stationary point;
`solve_directly` finds the same point from formulas written down anew, for the rows without a closed form. Left out: PPO,
whose clipping and whitening have no exact optimum (estimators.py checks its gradient), and maximum likelihood.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import root
from scipy.special import expit, log_softmax
from torch import Tensor

from prefdist.exact.closed_forms import folded_into_reward, optimum
from prefdist.exact.worlds import Worlds, enumerate_space, random_worlds
from prefdist.objectives.policy_gradient import kl_surrogate
from prefdist.objectives.registry import Objective, load
from prefdist.objectives.rows import PolicyGradientRow, PreferenceRow

EQUAL, DIFFERENT = 1e-6, 1e-3
"""Total variation up to which two optima are equal, and from which they are different; between them neither."""
MAX_STEPS = 100
LONGEST_STEP = 1.0
"""Nats a logit may move in one step: the linear model of the gradient is not trusted further."""
SMALLEST_STEP = 1e-9
"""Nats: a step this small leaves a total variation far below EQUAL."""
DIFFERENCE = 1e-6
"""Of logits, for the Jacobian: errors of 1e-6 relative only slow the last steps down."""


def optima_table(
    *,
    objectives: Sequence[dict[str, Any]],
    seeds: Sequence[int],
    gamma: float,
    spread: float,
    table_contexts: int,
    table_actions: int,
    sequence_contexts: int,
    sequence_vocabulary: int,
    sequence_length: int,
) -> list[dict[str, Any]]:
    """A row for each objective ({"objective": name or mapping, "parameters": overrides}) and kind of world.

    tv_max, tv_mean, tv_min: over the worlds, of the largest total variation over contexts; kl_max: KL(expected‖trained)
    in nats. A regulariser gives a second row, beside the closed form with the KL folded into the reward: it differs.
    """
    kinds = {
        "table": (enumerate_space(table_actions, 1), table_contexts),
        "sequences": (enumerate_space(sequence_vocabulary, sequence_length), sequence_contexts),
    }
    result = []
    for kind, (space, contexts) in kinds.items():
        worlds = random_worlds(space, contexts=contexts, seeds=seeds, gamma=gamma, spread=spread)
        for entry in objectives:
            objective = load(entry["objective"], entry.get("parameters"))
            parameters = ", ".join(f"{name}={value:g}" for name, value in objective.row.parameters.items())
            labels = {"method": objective.row.title, "parameters": parameters, "world": kind}
            result += [labels | row for row in _compare(objective, worlds)]
    return result


def _compare(objective: Objective, worlds: Worlds) -> list[dict[str, Any]]:
    trained = train(objective, worlds)
    equation = optimum(objective.row)
    if equation is not None:
        return [{"closed_form": str(equation)} | _deviation(trained, equation.solve(worlds), worlds, "equal")]
    other = folded_into_reward(objective.row)
    rows = [{"closed_form": "none: solved directly"} | _deviation(trained, solve_directly(objective.row, worlds), worlds, "equal")]
    if other is not None:
        rows.append({"closed_form": str(other)} | _deviation(trained, other.solve(worlds), worlds, "different"))
    return rows


def _deviation(trained: Tensor, expected: Tensor, worlds: Worlds, verdict: str) -> dict[str, Any]:
    by_world = (worlds.n_worlds, -1)
    tv = (trained.exp() - expected.exp()).abs().sum(-1).div(2).view(by_world).amax(-1)
    kl = (expected.exp() * (expected - trained)).sum(-1).view(by_world).amax(-1)
    found = "equal" if tv.max() <= EQUAL else "different" if tv.min() >= DIFFERENT else "neither"
    return {
        "n": worlds.n_worlds,
        "tv_max": float(tv.max()),
        "tv_mean": float(tv.mean()),
        "tv_min": float(tv.min()),
        "kl_max": float(kl.max()),
        "expected": verdict,
        "verdict": found,
    }


def population_gradient(objective: Objective, worlds: Worlds, logits: Tensor, law: Tensor | None = None) -> Tensor:
    """Exact expected gradient [N, parameters] of an objective, its regulariser included, at token logits [N, P, V].

    Labelled pairs are two draws from μ and a label from P*; other pairs are two draws from the policy, which is not
    differentiated through, as in training. `old` is the policy itself.
    """
    logits = logits.detach().requires_grad_()
    row = objective.row
    space = worlds.space
    with torch.enable_grad():
        tokens = _pairs(space.token_logps(logits))
        fresh = _pair_weights(space.token_logps(logits.detach() if law is None else law).sum(-1))
        reference = _pairs(space.token_logps(worlds.reference))
        mask = space.mask[_pair_index(len(space.mask))].repeat(len(logits), 1, 1)
        scores = _pairs(worlds.reward)
        if isinstance(row, PolicyGradientRow):
            logps = {"policy": tokens, "old": tokens.detach(), "reference": reference}
            loss = fresh * objective(logps, {"mask": mask, "scores": scores})
        else:
            sums = {"old": tokens.detach().sum(-1), "reference": reference.sum(-1), row.score.of: tokens.sum(-1)}
            weights = fresh
            if row.responses == "dataset":
                weights = 2 * _pair_weights(worlds.log_mu) * worlds.preference.flatten()
            loss = weights * objective(sums, {"scores": scores, "n_tokens": mask.sum(-1)})
            if row.regulariser is not None:
                loss = loss + float(row.regulariser.kl) * fresh * kl_surrogate(tokens, reference, mask)
        (gradient,) = torch.autograd.grad(loss.sum(), logits)
    return gradient.flatten(1)


def _pair_index(n_responses: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(n_responses), torch.arange(n_responses))


def _pairs(values: Tensor) -> Tensor:
    """[N, Y, ...] -> [N·Y², 2, ...], all ordered pairs of responses."""
    return values[:, _pair_index(values.shape[1])].flatten(0, 1)


def _pair_weights(log_law: Tensor) -> Tensor:
    """Probability of each ordered pair of two draws: [N, Y] -> [N·Y²]."""
    return _pairs(log_law).sum(-1).exp()


def train(objective: Objective, worlds: Worlds) -> Tensor:
    """log π [N, Y] at the stationary point that gradient descent from π₀ on the token logits reaches.

    Implicit (backward Euler) steps of the gradient flow, longer as the gradient falls, up to Newton's. The Jacobian is by
    differences, so that what an objective detaches stays detached. RuntimeError when it does not settle.
    """
    logits = worlds.reference.clone()
    n, size = len(logits), logits[0].numel()
    units = torch.eye(size, dtype=logits.dtype)
    vocabulary = worlds.space.vocabulary
    # Adding a constant to a prefix's logits changes nothing: these directions, null in the Jacobian, get a slope.
    constants = torch.block_diag(*[torch.full((vocabulary, vocabulary), 1 / vocabulary)] * (size // vocabulary))
    gradient = population_gradient(objective, worlds, logits)
    first = gradient.norm(dim=-1).clamp_min(torch.finfo(logits.dtype).tiny)
    FROZEN=True
    import os
    FRO=True
    for _ in range(MAX_STEPS):
        moved = [logits + DIFFERENCE * unit.view_as(logits[0]) for unit in units]
        columns = [(population_gradient(objective, worlds, at, logits if FROZEN else None) - gradient) / DIFFERENCE for at in moved]
        FROZEN = FRO if (gradient.norm(dim=-1)/first).max()>1e-2 else not FRO
        jacobian = torch.stack(columns, dim=-1)
        slope = jacobian.diagonal(dim1=-2, dim2=-1).abs().mean(-1)
        damping = slope * (gradient.norm(dim=-1) / first).clamp_max(1)
        system = jacobian + slope.view(n, 1, 1) * constants + damping.view(n, 1, 1) * units
        step = torch.linalg.solve(system, gradient)
        longest = step.abs().amax(-1, keepdim=True)
        logits = logits - (step / (longest / LONGEST_STEP).clamp_min(1)).view_as(logits)
        if bool((longest <= SMALLEST_STEP).all()):
            return worlds.space.token_logps(logits).sum(-1)
        gradient = population_gradient(objective, worlds, logits)
    raise RuntimeError(f"{objective.row.title}: no stationary point in {MAX_STEPS} steps; the last was {longest.max():.1g}")


def solve_directly(row: PreferenceRow, worlds: Worlds) -> Tensor:
    """log π [N, Y] of a logistic row (label, or scores under kl) with a margin or a regulariser, or both.

    Stationarity in log π, derived by hand and solved per context in NumPy: nothing here is shared with `train`.
    """
    target = row.target
    if target.of == "constant" or row.divergence not in ("nll", "kl") or row.score.against == "old":
        raise ValueError(f"{row.title}: solved directly are label targets, and score targets under kl, not against old")
    solved = []
    arrays = (worlds.log_reference, worlds.log_mu, worlds.reward)
    for log_reference, log_mu, reward in zip(*(array.numpy() for array in arrays), strict=True):
        system = _Stationarity(row, log_reference, np.exp(log_mu), reward, worlds.space.n_tokens.numpy())
        solution = root(system, log_reference[1:] - log_reference[0], tol=1e-13)
        solved.append(log_softmax(np.append(0.0, solution.x)))
    return torch.from_numpy(np.stack(solved))


class _Stationarity:
    """d/dz of E_{a,b}[−t(a,b)·ln σ(s(a) − s(b) − margin)]·2 + kl·KL(π‖π₀) with log π = z − logsumexp(z) and z₀ = 0."""

    def __init__(
        self,
        row: PreferenceRow,
        log_reference: NDArray[np.float64],
        mu: NDArray[np.float64],
        reward: NDArray[np.float64],
        n_tokens: NDArray[np.int64],
    ) -> None:
        per = n_tokens if row.score.length == "mean" else np.ones_like(n_tokens)
        self.a = float(row.score.a) / per
        self.offset = -float(row.score.b) * log_reference / per if row.score.against == "reference" else 0.0
        scale = float(row.target.scale) if row.target.of == "scores" else 1.0
        self.margin = float(row.target.margin) if row.target.of == "label" else 0.0
        self.wins = expit(scale * (reward[:, None] - reward[None]))
        self.mu = mu if row.responses == "dataset" else None
        self.kl = float(row.regulariser.kl) if row.regulariser is not None else 0.0
        self.log_reference = log_reference

    def __call__(self, free: NDArray[np.float64]) -> NDArray[np.float64]:
        log_p = log_softmax(np.append(0.0, free))
        p = np.exp(log_p)
        law = p if self.mu is None else self.mu
        score = self.a * log_p + self.offset
        lost = self.wins * expit(self.margin - score[:, None] + score[None])
        pairs = 2 * law * self.a * ((lost.T - lost) @ law)
        by_log_p = pairs + self.kl * p * (log_p - self.log_reference + 1)
        by_z: NDArray[np.float64] = by_log_p - p * by_log_p.sum()
        return by_z[1:]
