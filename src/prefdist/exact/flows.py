"""Gradient flow of a loss in logits, dz/dt = −∇L(z), to times that no training reaches.

Gradient descent at learning rate η is its Euler scheme: t = η·steps. Integrated implicitly in ln(1 + t).
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy.integrate import solve_ivp
from scipy.sparse import block_diag, csc_matrix
from torch import Tensor

TOLERANCE = 1e-5
"""Of a logit, relative and in nats, that one step may be off. Below 1e-7 rounding, times 1 + t, makes steps tiny."""
LONGEST = 1e12
"""Above it 1 + t times the rounding of a gradient of order one is no longer small."""
Vector = npt.NDArray[np.float64]


def follow(loss: Callable[[Tensor], Tensor], start: Tensor, times: Sequence[float]) -> Tensor:
    """Logits at the increasing times: losses [S, Y] -> [S] of independent worlds, start [S, Y] at t = 0 -> [T, S, Y].

    ValueError: times that do not increase within 0 … LONGEST; RuntimeError where the solver gives up.
    """
    if list(times) != sorted(set(times)) or not 0 <= times[0] <= times[-1] <= LONGEST:
        raise ValueError(f"times must increase within 0 … {LONGEST:g}, got {list(times)}")
    shape = start.shape

    def velocity(u: float, z: Vector) -> Vector:
        slope, _ = _gradient(loss, torch.from_numpy(z).view(shape))
        return -np.exp(u) * slope.detach().numpy().ravel()

    def jacobian(u: float, z: Vector) -> csc_matrix:
        slope, logits = _gradient(loss, torch.from_numpy(z).view(shape), twice=True)
        columns = [torch.autograd.grad(slope[:, y].sum(), logits, retain_graph=True)[0] for y in range(shape[1])]
        return csc_matrix(-np.exp(u) * block_diag(list(torch.stack(columns, 1).numpy())))

    moments = np.log1p(times)
    found = solve_ivp(
        velocity,
        (0.0, moments[-1]),
        start.numpy().ravel(),
        method="Radau",
        t_eval=moments,
        jac=jacobian,
        rtol=TOLERANCE,
        atol=TOLERANCE,
    )
    if not found.success:
        raise RuntimeError(
            f"the flow was followed to t = {np.expm1(found.t[-1]) if len(found.t) else 0:.3g} only: {found.message}"
        )
    return torch.from_numpy(np.ascontiguousarray(found.y.T)).view(len(times), *shape)


def _gradient(loss: Callable[[Tensor], Tensor], logits: Tensor, *, twice: bool = False) -> tuple[Tensor, Tensor]:
    logits = logits.detach().requires_grad_()
    (slope,) = torch.autograd.grad(loss(logits).sum(), logits, create_graph=twice)
    return slope, logits
