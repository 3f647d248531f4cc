"""Maximum likelihood of policies with the KL in the loss, thousands of tables at once (ADL, arXiv 2506.01523, Eq. 5 and 12).

The KL makes it non-convex: Newton's steps where the Hessian is definite, Gauss-Newton's elsewhere, and none that climbs.
What is found is the minimum that descent from π₀ reaches. Left out: sequences, and the closed forms (closed_forms.py).
"""

import torch
from torch import Tensor
from torch.nn.functional import softplus

from prefdist.exact.closed_forms import check_normalised

MAX_STEPS = 300
LONGEST_STEP = 2.0
"""Nats a logit may move in one step: the quadratic model is good no further."""
SHORT_STEP = 1e-5
"""Nats: whether so short a step climbs drowns in the rounding of the loss, and there Newton's converge anyway."""
SETTLED = 1e-9
"""Nats of the last step."""
STATIONARY = 1e-9
"""Gradient by logits at the end, as a share of all weights in the loss."""
HALVINGS = 40


def fit_policy(wins: Tensor, log_ref: Tensor, *, gamma: float, kl: Tensor, ridge: float = 0.0) -> Tensor:
    """log π that minimises −Σ wins[a, b]·ln σ(γ·ln π_a/π_b) + kl·KL(π‖π₀) + ridge/2·Σ (γ·ln π, centred)².

    wins [..., Y, Y] are counts of hard labels, or sums of soft ones; log_ref [..., Y]; kl [...] ≥ 0 stands beside the sum
    of wins, as the ridge does: all broadcast, -> [..., Y]. ValueError: wins or kl negative or not finite, log_ref with
    zero support or not normalised, gamma ≤ 0. RuntimeError: no minimum was found.
    """
    for name, value in (("wins", wins), ("kl", kl)):
        if not bool((value.isfinite() & (value >= 0)).all()):
            raise ValueError(f"{name} must be finite and ≥ 0, got {float(value.min()):g} … {float(value.max()):g}")
    if not gamma > 0:
        raise ValueError(f"gamma must be > 0, got {gamma:g}")
    check_normalised(log_ref, "log_ref")
    if not bool(log_ref.isfinite().all()):
        raise ValueError("log_ref has zero support (log 0): the KL needs every response in it")
    shape = torch.broadcast_shapes(wins.shape[:-1], log_ref.shape, (*kl.shape, 1))
    size = shape[-1]
    flat = _Losses(
        wins.expand(*shape, size).reshape(-1, size, size),
        log_ref.expand(shape).reshape(-1, size),
        kl.expand(shape[:-1]).reshape(-1),
        gamma,
        ridge,
    )
    return _descend(flat).log_softmax(-1).view(shape)


class _Losses:
    """P losses of Y logits each: values, gradients and Hessians."""

    def __init__(self, wins: Tensor, log_ref: Tensor, kl: Tensor, gamma: float, ridge: float) -> None:
        self.wins, self.log_ref, self.kl, self.gamma, self.ridge = wins, log_ref, kl, gamma, ridge

    def __getitem__(self, index: Tensor) -> "_Losses":
        return _Losses(self.wins[index], self.log_ref[index], self.kl[index], self.gamma, self.ridge)

    @property
    def weight(self) -> Tensor:
        """[P], of all terms."""
        return self.wins.sum((-1, -2)) + self.kl + self.ridge

    def value(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1)
        lead = self.gamma * (logits.unsqueeze(-1) - logits.unsqueeze(-2))
        kl = (log_p.exp() * (log_p - self.log_ref)).sum(-1)
        implied = self.gamma * (logits - logits.mean(-1, keepdim=True))
        return (self.wins * softplus(-lead)).sum((-1, -2)) + self.kl * kl + self.ridge / 2 * implied.square().sum(-1)

    def derivatives(self, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient [P, Y]; Hessian and its Gauss-Newton part [P, Y, Y], which is definite but for a constant."""
        log_p = logits.log_softmax(-1)
        p = log_p.exp()
        ratio = log_p - self.log_ref
        excess = ratio - (p * ratio).sum(-1, keepdim=True)
        met = self.wins + self.wins.mT
        won = torch.sigmoid(self.gamma * (logits.unsqueeze(-1) - logits.unsqueeze(-2)))
        implied = self.gamma * (logits - logits.mean(-1, keepdim=True))
        gradient = self.gamma * ((met * won - self.wins).sum(-1) + self.ridge * implied) + self.kl.unsqueeze(-1) * p * excess
        curvature = met * won * (1 - won)
        identity = torch.eye(logits.shape[-1], dtype=logits.dtype)
        centring = identity - 1 / logits.shape[-1]
        fixed = self.gamma**2 * (torch.diag_embed(curvature.sum(-1)) - curvature + self.ridge * centring)
        outer = p.unsqueeze(-1) * p.unsqueeze(-2)
        fisher = torch.diag_embed(p) - outer
        bent = torch.diag_embed(p * excess) - outer * (excess.unsqueeze(-1) + excess.unsqueeze(-2))
        weight = self.kl[:, None, None]
        return gradient, fixed + weight * (fisher + bent), fixed + weight * fisher


def _descend(losses: _Losses) -> Tensor:
    logits = losses.log_ref.clone()
    open_ = torch.arange(len(logits))
    for _ in range(MAX_STEPS):
        mine = losses[open_]
        here = logits[open_]
        step, definite = _step(mine, here)
        longest = step.abs().amax(-1)
        step = step / (longest / LONGEST_STEP).clamp_min(1).unsqueeze(-1)
        logits[open_] = here - _shortened(mine, here, step) * step
        open_ = open_[(longest > SETTLED) | ~definite]
        if not len(open_):
            slope = losses.derivatives(logits)[0].abs().amax(-1) / losses.weight.clamp_min(torch.finfo(logits.dtype).tiny)
            if bool((slope <= STATIONARY).all()):
                return logits
            break
    raise RuntimeError(f"no minimum of the likelihood with KL found: {len(open_)} of {len(logits)} after {MAX_STEPS} steps")


def _step(losses: _Losses, logits: Tensor) -> tuple[Tensor, Tensor]:
    """A direction of ascent [P, Y], and where it is Newton's [P]."""
    gradient, hessian, gauss_newton = losses.derivatives(logits)
    size = logits.shape[-1]
    scale = gauss_newton.diagonal(dim1=-2, dim2=-1).mean(-1)[:, None, None].clamp_min(torch.finfo(logits.dtype).tiny)
    constants = scale / size * torch.ones(size, size, dtype=logits.dtype)  # a constant changes nothing: give it a slope
    factor, failed = torch.linalg.cholesky_ex(hessian + constants)
    definite = failed == 0
    if not bool(definite.all()):
        factor[~definite] = torch.linalg.cholesky((gauss_newton + constants)[~definite])
    return torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1), definite


def _shortened(losses: _Losses, logits: Tensor, step: Tensor) -> Tensor:
    """The largest of 1, ½, ¼ … [P, 1] with which a step does not climb."""
    length = torch.ones(len(step), 1, dtype=step.dtype)
    before = losses.value(logits)
    long = step.abs().amax(-1) > SHORT_STEP
    for _ in range(HALVINGS):
        climbs = long & (losses.value(logits - length * step) > before)
        if not bool(climbs.any()):
            break
        length[climbs] /= 2
    return length
