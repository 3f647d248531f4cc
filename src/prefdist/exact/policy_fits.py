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
NO_MINIMUM = "no minimum of the likelihood with KL found"
AT_ONCE = 4096
"""Tables of one batch: larger ones leave the processor's cache, and take twice the time."""


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
    blocks = torch.arange(len(flat.kl)).split(AT_ONCE)
    return torch.cat([_descend(flat[block]) for block in blocks]).log_softmax(-1).view(shape)


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
        behind = self.gamma * (logits.unsqueeze(-2) - logits.unsqueeze(-1))
        kl = (log_p.exp() * (log_p - self.log_ref)).sum(-1)
        implied = self.gamma * (logits - logits.mean(-1, keepdim=True))
        return (self.wins * softplus(behind)).sum((-1, -2)) + self.kl * kl + self.ridge / 2 * implied.square().sum(-1)

    def derivatives(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient [P, Y] and Hessian [P, Y, Y]."""
        p, excess = self._kl_terms(logits)
        met, won = self._met(), self._won(logits)
        implied = self.gamma * (logits - logits.mean(-1, keepdim=True))
        pairs = self.gamma * ((met * won - self.wins).sum(-1) + self.ridge * implied)
        weighted = self.kl.unsqueeze(-1) * p
        bend = weighted.unsqueeze(-1) * p.unsqueeze(-2) * (excess.unsqueeze(-1) + (1 + excess).unsqueeze(-2))
        hessian = self._of_pairs(met, won) - bend
        hessian.diagonal(dim1=-2, dim2=-1).add_(weighted * (1 + excess))
        return pairs + weighted * excess, hessian

    def gauss_newton(self, logits: Tensor) -> Tensor:
        """The Hessian without the curvature of ln π/π₀ [P, Y, Y]: definite, but for a constant."""
        p, _ = self._kl_terms(logits)
        weighted = self.kl.unsqueeze(-1) * p
        hessian = self._of_pairs(self._met(), self._won(logits)) - weighted.unsqueeze(-1) * p.unsqueeze(-2)
        hessian.diagonal(dim1=-2, dim2=-1).add_(weighted)
        return hessian

    def _met(self) -> Tensor:
        return self.wins + self.wins.mT

    def _won(self, logits: Tensor) -> Tensor:
        return (self.gamma * (logits.unsqueeze(-1) - logits.unsqueeze(-2))).sigmoid_()

    def _kl_terms(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """p, and by how much ln p/π₀ exceeds its mean under p, the KL."""
        log_p = logits.log_softmax(-1)
        p, ratio = log_p.exp(), log_p - self.log_ref
        return p, ratio - (p * ratio).sum(-1, keepdim=True)

    def _of_pairs(self, met: Tensor, won: Tensor) -> Tensor:
        """Hessian of the likelihood and the ridge [P, Y, Y]."""
        curvature = met * won * (1 - won)
        diagonal = curvature.sum(-1) + self.ridge
        hessian = curvature.add_(self.ridge / met.shape[-1]).mul_(-(self.gamma**2))
        hessian.diagonal(dim1=-2, dim2=-1).add_(self.gamma**2 * diagonal)
        return hessian


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
    raise RuntimeError(f"{NO_MINIMUM}: {len(open_)} of {len(logits)} after {MAX_STEPS} steps")


def _step(losses: _Losses, logits: Tensor) -> tuple[Tensor, Tensor]:
    """A direction of ascent [P, Y], and where it is Newton's [P]."""
    gradient, hessian = losses.derivatives(logits)
    factor, failed = torch.linalg.cholesky_ex(_grounded(hessian))
    definite = failed == 0
    if not bool(definite.all()):
        bent = ~definite
        factor[bent], flat = torch.linalg.cholesky_ex(_grounded(losses[bent].gauss_newton(logits[bent])))
        if bool(flat.any()):
            raise RuntimeError(f"{NO_MINIMUM}: some responses always win or meet no other, use a kl or a ridge > 0")
    return torch.cholesky_solve(gradient.unsqueeze(-1), factor).squeeze(-1), definite


def _grounded(hessian: Tensor) -> Tensor:
    """With a slope for constants, which change nothing, of the size of the others."""
    scale = hessian.diagonal(dim1=-2, dim2=-1).abs().mean(-1).clamp_min(torch.finfo(hessian.dtype).tiny)
    return hessian + (scale / hessian.shape[-1])[:, None, None]


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
