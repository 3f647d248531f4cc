"""Does the optimum of each row of the objective table lie where its closed form says?

`train` follows the exact expectation of the project's own objective, over all pairs of responses, to a stationary
point; `solve_directly` finds the same point from formulas written down anew, for the rows without a closed form.
Left out: maximum likelihood, and PPO, whose clipping and whitening have no exact optimum (estimators.py checks its
gradient).
"""

from collections.abc import Mapping, Sequence
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
from prefdist.objectives.registry import ROWS_FOLDER, Objective, load, read_row
from prefdist.objectives.rows import LabelTarget, PolicyGradientRow, PreferenceRow

VARIANTS: tuple[Mapping[str, Any], ...] = (
    {"objective": "pmle", "parameters": {"beta": 0.0}},
    {"objective": "distill_kl_loss", "parameters": {"beta": 0.0}},
    {"objective": "dpo", "parameters": {"beta": 0.05}},
    {"objective": "simpo", "parameters": {"gamma": 0.0}},
)
"""Limits that have a closed form of their own: no regulariser, no margin, and DPO with β ≠ γ."""
EQUAL, DIFFERENT = 1e-6, 1e-3
"""Total variation up to which two optima are equal, and from which they are different; between them neither."""
MAX_STEPS = 100
LONGEST_STEP = 1.0
"""Nats a logit may move in one step: the linear model of the gradient is not trusted further."""
SMALLEST_STEP = 1e-9
"""Nats: a step this small leaves a total variation far below EQUAL."""
NEAR = 0.3
"""Nats of the last step: after a shorter one Newton's take over, which converge where samples depend on the policy."""
RESIDUAL = 1e-10
"""Of the equations solved directly, in nats: far below what EQUAL needs."""
DIFFERENCE = 1e-6
"""Of logits, for the Jacobian: errors of 1e-6 relative only slow the last steps down."""


def optima_table(
    *,
    worlds: int = 5,
    contexts: int = 10,
    actions: int = 10,
    sequence_contexts: int = 4,
    vocabulary: int = 3,
    length: int = 3,
    gamma: float = 0.1,
    spread: float = 1.0,
    objectives: Sequence[str] | None = None,
    variants: Sequence[Mapping[str, Any]] = VARIANTS,
) -> list[dict[str, Any]]:
    """A row for each objective and kind of world, "table" (contexts × actions) and "sequences" (V tokens, T at most).

    Seeds are 0 … worlds−1; `gamma` is that of P*, `spread` the standard deviation of all logits. `objectives` are names
    of rows with their own parameters, all that have an optimum unless given; `variants` override parameters.
    tv_max, tv_mean, tv_min: over the worlds, of the largest total variation over contexts; kl_max: KL(expected‖trained)
    in nats. A regulariser gives a second row, beside the closed form with the KL folded into the reward: it differs.
    RuntimeError where no optimum is found: PMLE's with KL is not convex, and large `spread`, or `gamma` far above the
    row's, push it to the border.
    """
    names = rows_with_an_optimum() if objectives is None else objectives
    entries: list[Mapping[str, Any]] = [{"objective": name, "parameters": {}} for name in names]
    entries += variants
    kinds = {
        "table": (enumerate_space(actions, 1), contexts),
        "sequences": (enumerate_space(vocabulary, length), sequence_contexts),
    }
    result = []
    for kind, (space, n_contexts) in kinds.items():
        drawn = random_worlds(space, contexts=n_contexts, seeds=range(worlds), gamma=gamma, spread=spread)
        for entry in entries:
            objective = load(entry["objective"], entry["parameters"])
            changed = ", ".join(f"{name}={value:g}" for name, value in entry["parameters"].items())
            labels = {"objective": entry["objective"], "changed": changed, "world": kind}
            result += [labels | row for row in _compare(objective, drawn)]
    return result


def rows_with_an_optimum() -> list[str]:
    """Names of the rows of the table that `train` can judge: RLOO's, and preference rows about pairs."""
    rows = {file.stem: read_row(file) for file in sorted(ROWS_FOLDER.glob("*.yaml"))}
    return [
        name
        for name, row in rows.items()
        if (isinstance(row, PreferenceRow) and row.model == "bradley_terry" and row.responses != "scored")
        or (isinstance(row, PolicyGradientRow) and row.algorithm == "rloo")
    ]


def _compare(objective: Objective, worlds: Worlds) -> list[dict[str, Any]]:
    trained = train(objective, worlds)
    equation = optimum(objective.row)
    if equation is not None:
        return [{"closed_form": equation.text(worlds.gamma)} | _deviation(trained, equation.solve(worlds), worlds, "equal")]
    other = folded_into_reward(objective.row)
    direct = solve_directly(objective.row, worlds)
    rows = [{"closed_form": "none: solved directly"} | _deviation(trained, direct, worlds, "equal")]
    if other is not None:
        rows.append({"closed_form": other.text(worlds.gamma)} | _deviation(trained, other.solve(worlds), worlds, "different"))
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


def _response_gradient(objective: Objective, worlds: Worlds, tokens: Tensor, log_law: Tensor) -> Tensor:
    """Exact expected loss, its regulariser included, differentiated by token log-probabilities [N, Y, T].

    Labelled pairs are two draws from μ and a label from P*; other pairs are two draws from `log_law` [N, Y], which is
    not differentiated through, as in training. `old` is the policy itself.
    """
    row = objective.row
    tokens = tokens.detach().requires_grad_()
    policy, reference = _pairs(tokens), _pairs(worlds.space.token_logps(worlds.reference))
    mask = worlds.space.mask[_pair_index(tokens.shape[1])].repeat(len(tokens), 1, 1)
    fresh, scores = _pair_weights(log_law), _pairs(worlds.reward)
    if isinstance(row, PolicyGradientRow):
        logps = {"policy": policy, "old": policy.detach(), "reference": reference}
        loss = fresh * objective(logps, {"mask": mask, "scores": scores})
    else:
        sums = {row.score.of: policy.sum(-1), "old": policy.detach().sum(-1), "reference": reference.sum(-1)}
        # The draws a, b and b, a both give the labelled pair "a beats b", hence the 2.
        labelled = 2 * _pair_weights(worlds.log_mu) * worlds.preference.flatten()
        weights = labelled if row.responses == "dataset" else fresh
        loss = weights * objective(sums, {"scores": scores, "n_tokens": mask.sum(-1)})
        if row.regulariser is not None:
            loss = loss + float(row.regulariser.kl) * fresh * kl_surrogate(policy, reference, mask)
    (gradient,) = torch.autograd.grad(loss.sum(), tokens)
    return gradient


def _pull_back(worlds: Worlds, logits: Tensor, by_tokens: Tensor) -> Tensor:
    """Chain rule from token log-probabilities [N, Y, T] to logits: [N, parameters]."""
    logits = logits.detach().requires_grad_()
    (gradient,) = torch.autograd.grad((worlds.space.token_logps(logits) * by_tokens).sum(), logits)
    return gradient.flatten(1)


def _pair_index(n_responses: int) -> Tensor:
    return torch.cartesian_prod(torch.arange(n_responses), torch.arange(n_responses))


def _pairs(values: Tensor) -> Tensor:
    """[N, Y, ...] -> [N·Y², 2, ...], all ordered pairs of responses."""
    return values[:, _pair_index(values.shape[1])].flatten(0, 1)


def _pair_weights(log_law: Tensor) -> Tensor:
    """Probability of each ordered pair of two draws: [N, Y] -> [N·Y²]."""
    return _pairs(log_law).sum(-1).exp()


class _Field:
    """The expected gradient at token logits [N, P, V], and its Jacobians by differences."""

    def __init__(self, objective: Objective, worlds: Worlds) -> None:
        self.objective, self.worlds = objective, worlds

    def __call__(self, logits: Tensor) -> Tensor:
        """[N, P·V]."""
        return self._at(logits, drawn_at=logits, chained_at=logits)

    def _at(self, logits: Tensor, *, drawn_at: Tensor, chained_at: Tensor) -> Tensor:
        space = self.worlds.space
        law = space.token_logps(drawn_at).sum(-1)
        by_tokens = _response_gradient(self.objective, self.worlds, space.token_logps(logits), law)
        return _pull_back(self.worlds, chained_at, by_tokens)

    def jacobian(self, logits: Tensor, *, frozen: Tensor) -> Tensor:
        """[N, P·V, P·V]. Where frozen [N], samples and chain rule stay those of `logits` (Gauss-Newton): definite."""
        gradient = self(logits)
        columns = []
        for unit in torch.eye(logits[0].numel(), dtype=logits.dtype):
            moved = logits + DIFFERENCE * unit.view_as(logits[0])
            kept = torch.where(frozen.view(-1, 1, 1), logits, moved)
            columns.append((self._at(moved, drawn_at=kept, chained_at=kept) - gradient) / DIFFERENCE)
        return torch.stack(columns, dim=-1)


def train(objective: Objective, worlds: Worlds) -> Tensor:
    """log π [N, Y] at the stationary point that gradient descent from π₀ on the token logits reaches.

    Implicit gradient steps, longer as the gradient falls: Gauss-Newton's, and Newton's at the end. Jacobians are by
    differences, so that what an objective detaches stays detached. RuntimeError when it does not settle.
    """
    field = _Field(objective, worlds)
    logits = worlds.reference.clone()
    n, vocabulary = len(logits), worlds.space.vocabulary
    # Adding a constant to a prefix's logits changes nothing: these directions, null in the Jacobian, get a slope.
    same = torch.full((vocabulary, vocabulary), 1 / vocabulary, dtype=logits.dtype)
    constants = torch.block_diag(*[same] * worlds.space.n_prefixes)
    gradient = field(logits)
    first = gradient.norm(dim=-1).clamp_min(torch.finfo(logits.dtype).tiny)
    longest = torch.full_like(first, LONGEST_STEP)
    for _ in range(MAX_STEPS):
        remaining = (gradient.norm(dim=-1) / first).clamp_max(1)
        jacobian = field.jacobian(logits, frozen=longest > NEAR)
        slope = jacobian.diagonal(dim1=-2, dim2=-1).abs().mean(-1).view(n, 1, 1)
        damping = remaining.view(n, 1, 1) * torch.eye(len(constants), dtype=logits.dtype)
        step = torch.linalg.solve(jacobian + slope * (constants + damping), gradient)
        longest = step.abs().amax(-1)
        logits = logits - (step / (longest / LONGEST_STEP).clamp_min(1).unsqueeze(-1)).view_as(logits)
        if bool((longest <= SMALLEST_STEP).all()):
            return worlds.space.token_logps(logits).sum(-1)
        gradient = field(logits)
    raise RuntimeError(f"{objective.row.title}: not settled after {MAX_STEPS} steps; the last was {longest.max():.1g}")


def solve_directly(row: PreferenceRow, worlds: Worlds) -> Tensor:
    """log π [N, Y] of a logistic row (label, or scores under kl) with a margin or a regulariser, or both.

    Stationarity in log π, derived by hand and solved per context in NumPy: nothing here is shared with `train`.
    """
    target = row.target
    if target.of == "constant" or row.divergence not in ("nll", "kl") or row.score.against == "old":
        raise ValueError(f"{row.title}: solved directly are label targets, and score targets under kl, not against old")
    solved = []
    arrays = (worlds.log_reference, worlds.log_mu, worlds.reward, _simplified(row, worlds))
    for log_reference, log_mu, reward, simplified in zip(*(array.numpy() for array in arrays), strict=True):
        system = _Stationarity(row, log_reference, np.exp(log_mu), reward, worlds.space.n_tokens.numpy())
        # Which start is near enough depends on how strong the regulariser and the margin are.
        starts = (log_reference, simplified, (log_reference + simplified) / 2)
        tries = (root(system, z - z.mean(), method=method, tol=1e-13) for z in starts for method in ("lm", "hybr"))
        # `success` is no criterion: it is also set at a smallest residual that is not zero.
        found = next((attempt.x for attempt in tries if np.abs(attempt.fun).max() <= RESIDUAL), None)
        if found is None:
            raise RuntimeError(f"{row.title}: SciPy found no stationary point")
        solved.append(log_softmax(found))
    return torch.from_numpy(np.stack(solved))


def _simplified(row: PreferenceRow, worlds: Worlds) -> Tensor:
    """The closed form of the row without its margin and regulariser, or π₀ where it has none."""
    target = LabelTarget(of="label") if row.target.of == "label" else row.target
    equation = optimum(row.model_copy(update={"target": target, "regulariser": None}))
    return worlds.log_reference if equation is None else equation.solve(worlds)


class _Stationarity:
    """d/dz of 2·E_{a,b}[−t(a,b)·ln σ(s(a) − s(b) − margin)] + kl·KL(π‖π₀) for log π = z − logsumexp(z).

    Divided by the law of the responses, so that no response with vanishing probability looks stationary.
    """

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

    def __call__(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        log_p = log_softmax(z)
        p = np.exp(log_p)
        law = p if self.mu is None else self.mu
        score = self.a * log_p + self.offset
        lost = self.wins * expit(self.margin - score[:, None] + score[None])
        by_log_p = 2 * law * self.a * ((lost.T - lost) @ law) + self.kl * p * (log_p - self.log_reference + 1)
        # z and z + constant are the same policy: the mean picks one of them.
        gradient: NDArray[np.float64] = (by_log_p - p * by_log_p.sum()) / law + z.mean()
        return gradient
