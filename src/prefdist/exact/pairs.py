"""Labelled pairs as counts of wins: n pairs and twice as many cost the same, and fewer pairs are a prefix of more.

Left out: sampling one pair at a time, and annotators other than Bradley-Terry's (annotators.py).
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from prefdist.exact.closed_forms import check_normalised


def law_of_wins(log_mu: Tensor, reward: Tensor) -> Tensor:
    """P(context, winner, loser) of one pair: [..., X, Y] twice -> [..., X, Y, Y], which sums to one over the last three.

    The context is uniform, both responses are drawn from μ, and P(a beats b) = σ(r(a) − r(b)). A response that is drawn
    twice beats itself: such a pair counts and tells nothing. ValueError: μ that is not normalised, rewards not finite.
    """
    check_normalised(log_mu, "log_mu")
    if not bool(reward.isfinite().all()):
        raise ValueError("reward must be finite: its differences are the logits of the labels")
    drawn = (log_mu.unsqueeze(-1) + log_mu.unsqueeze(-2)).exp()
    # Of the two orders of a draw, either may come first: hence the 2, which makes ½·2 = 1 of a response and itself.
    return drawn * 2 * torch.sigmoid(reward.unsqueeze(-1) - reward.unsqueeze(-2)) / log_mu.shape[-2]


def count_wins(law: Tensor, sizes: Sequence[int], seeds: Sequence[tuple[int, int]]) -> Tensor:
    """Wins among the first n pairs, for every n of `sizes`: law [S, X, Y, Y] -> [N, S, X, Y, Y], float64.

    A seed draws for one of the S laws; the pairs of a smaller size are the first of those of a larger one. ValueError:
    sizes that do not rise, or seeds that are not S.
    """
    if any(a > b for a, b in zip([0, *sizes], sizes, strict=False)):
        raise ValueError(f"sizes must be ≥ 0 and must not fall, got {list(sizes)}: fewer pairs are a prefix of more")
    if len(seeds) != len(law):
        raise ValueError(f"seeds must be as many as laws, got {len(seeds)} for {len(law)}")
    steps = np.diff([0, *sizes])
    counts = [_nested(one.numpy(), steps, np.random.default_rng(seed)) for one, seed in zip(law, seeds, strict=True)]
    return torch.from_numpy(np.stack(counts, axis=1))


def _nested(law: NDArray[np.float64], steps: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.float64]:
    cells = law.ravel() / law.sum()  # exactly one, as NumPy asks
    drawn = generator.multinomial(steps, cells)
    counts: NDArray[np.float64] = drawn.cumsum(axis=0).reshape(-1, *law.shape).astype(np.float64)
    return counts
