"""Finite preference data that some policy explains perfectly: random ones, their loss, and where gradient flow on it ends.

Responses are rows of a table of logits, one prompt a world. Left out: following the flow (flows.py), contradictory labels.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize, nnls
from scipy.special import expit, log_softmax
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised
from prefdist.objectives.registry import Objective

Vector = npt.NDArray[np.float64]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Separable:
    """S worlds of Y responses: log π₀ [S, Y], and m pairs [S, m, 2] in which the first response beat the second.

    ValueError: π₀ that does not sum to one or has zero support; a cycle among the pairs of a world.
    """

    log_reference: Tensor
    pairs: Tensor

    def __post_init__(self) -> None:
        check_normalised(self.log_reference, "log_reference")
        if not bool(self.log_reference.isfinite().all()):
            raise ValueError("log_reference has zero support (log 0): a response that is never drawn has no log-ratio")
        beaten = self._marks(self.pairs[..., 0] * self.size + self.pairs[..., 1], self.size**2).double()
        walks = torch.linalg.matrix_power(beaten.unflatten(-1, (self.size, self.size)), self.size)
        if bool(walks.any()):
            raise ValueError("pairs of a world hold a cycle: no scores explain that a response beats itself")

    @property
    def size(self) -> int:
        """Y."""
        return self.log_reference.shape[-1]

    @property
    def on_data(self) -> Tensor:
        """Whether a response is in some pair [S, Y]."""
        return self._marks(self.pairs.flatten(1), self.size)

    @property
    def lost(self) -> Tensor:
        """Whether a response lost some pair [S, Y]."""
        return self._marks(self.pairs[..., 1], self.size)

    def _marks(self, places: Tensor, width: int) -> Tensor:
        return torch.zeros(len(places), width, dtype=torch.bool).scatter(-1, places, value=True)

    def loss(self, objective: Objective, logits: Tensor) -> Tensor:
        """Mean loss of the pairs under an objective of the table, and its regulariser's exact KL(π‖π₀): [S, Y] -> [S]."""
        log_p = logits.log_softmax(-1)
        drawn = {"policy": log_p, "reference": self.log_reference}
        by_pair = {name: values.gather(-1, self.pairs.flatten(1)).view(-1, 2) for name, values in drawn.items()}
        losses = objective(by_pair, {}).view(self.pairs.shape[:2]).mean(-1)
        if objective.row.regulariser is None:
            return losses
        # Not `divergence`: its ln p has no derivative where p underflows to 0.
        divergence = (log_p.exp() * (log_p - self.log_reference)).sum(-1)
        return losses + float(objective.row.regulariser.kl) * divergence

    def without_lost(self) -> Tensor:
        """log of π₀ given that the response lost no pair [S, Y], −∞ for those that did."""
        return self.log_reference.masked_fill(self.lost, -torch.inf).log_softmax(-1)

    def squared_optimum(self, margin: float) -> Tensor:
        """log of IPO's optimum that is nearest to π₀ in logits [S, Y]: gradient flow moves in the span of the pairs only.

        Least squares in all h(a) − h(b) = margin, h = ln π/π₀ (IPO, arXiv 2310.12036, Eq. 17); exact where pairs form a
        forest.
        """
        moved = torch.linalg.pinv(self._incidence()) @ torch.full((*self.pairs.shape[:2], 1), margin, dtype=torch.float64)
        return (self.log_reference + moved.squeeze(-1)).log_softmax(-1)

    def directions(self, tied: Tensor) -> Tensor:
        """w [S, Y] of least norm with w(a) − w(b) ≥ 1 for every pair, and equal where tied [S, Y].

        Logits go to w·ln t under a logistic loss of unit scale (Soudry et al., arXiv 1710.10345, Theorem 3). A regulariser
        that holds some responses in proportion to each other ties them; a pair of two tied ones asks for nothing.
        """
        alone = torch.diag_embed((~tied).double())
        together = tied.double() / tied.sum(-1, keepdim=True).clamp_min(1).sqrt()
        rows = (self._incidence() @ (alone + together.unsqueeze(-1) * together.unsqueeze(-2))).numpy()
        return torch.from_numpy(np.stack([_least_distance(each) for each in rows]))

    def descend(self, gamma: float, kl: float) -> Tensor:
        """log π [S, Y] where SciPy's descent from π₀ ends on PMLE's loss with KL, −ln σ(γ·Δ ln π) + kl·KL(π‖π₀)."""
        ends = []
        for prior, pairs in zip(self.log_reference.numpy(), self.pairs.numpy(), strict=True):
            arguments = (prior, pairs, gamma, kl)
            found = minimize(_regularised, prior, args=arguments, jac=True, method="BFGS", options={"gtol": 1e-10})
            ends.append(log_softmax(found.x))
        return torch.from_numpy(np.stack(ends))

    def _incidence(self) -> Tensor:
        """[S, m, Y]: 1 at the response that won, −1 at the one that lost."""
        first, second = torch.nn.functional.one_hot(self.pairs, self.size).double().unbind(-2)
        return first - second


def _least_distance(rows: Vector) -> Vector:
    """The shortest x with row·x ≥ 1 for each row that is not zero (Lawson and Hanson 1974, problem LDP)."""
    stacked = np.vstack([rows.T, rows.any(1)])
    target = np.eye(len(stacked))[-1]
    residual = stacked @ nnls(stacked, target)[0] - target
    return np.asarray(-residual[:-1] / residual[-1], dtype=np.float64)


def _regularised(z: Vector, prior: Vector, pairs: Index, gamma: float, kl: float) -> tuple[float, Vector]:
    """The loss of `Separable.descend` and its gradient at logits z, by hand; prior is ln π₀."""
    log_p = log_softmax(z)
    p, ratio = np.exp(log_p), log_p - prior
    margins = gamma * (log_p[pairs[:, 0]] - log_p[pairs[:, 1]])
    gradient = kl * p * (ratio - p @ ratio)
    force = gamma * expit(-margins) / len(pairs)
    np.subtract.at(gradient, pairs[:, 0], force)
    np.add.at(gradient, pairs[:, 1], force)
    return float(np.logaddexp(0, -margins).mean() + kl * p @ ratio), gradient


def random_separable(worlds: int, responses: int, pairs: int, spread: float, seed: int) -> Separable:
    """Logits of π₀ from N(0, spread²); so many different pairs, uniformly; a random order of the responses labels them.

    ValueError: pairs that leave no response off the data.
    """
    if not 1 <= pairs < responses / 2:
        raise ValueError(
            f"pairs must be 1 … {(responses - 1) // 2} with {responses} responses, got {pairs}: some lie off the data"
        )
    generator = torch.Generator().manual_seed(seed)
    reference = (spread * torch.randn((worlds, responses), generator=generator, dtype=torch.float64)).log_softmax(-1)
    every = torch.combinations(torch.arange(responses))
    taken = torch.rand((worlds, len(every)), generator=generator).argsort(-1)[:, :pairs]
    better = torch.rand((worlds, responses), generator=generator).argsort(-1)
    # Pairs of places in the order, the better place first, become pairs of responses.
    return Separable(reference, better.gather(-1, every[taken].flatten(1)).view(worlds, pairs, 2))
