"""The order of an epoch as a pure function of (seed, epoch), so that a resumed run sees what an uninterrupted one saw."""

from functools import lru_cache

import numpy as np


@lru_cache(maxsize=2)
def epoch_order(n: int, seed: int, epoch: int) -> list[int]:
    """A permutation of range(n)."""
    return np.random.default_rng([seed, epoch]).permutation(n).tolist()


def batch_indices(n: int, batch_size: int, step: int, seed: int) -> list[int]:
    """The examples of optimiser step `step` (from 0): epochs follow one another without a ragged batch between them."""
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [epoch_order(n, seed, position // n)[position % n] for position in positions]
