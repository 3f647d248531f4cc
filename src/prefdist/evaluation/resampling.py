"""The bootstrap over units: a statistic of prompts, problems or questions and its percentile interval.

The one loop over resamples, for any statistic of one sample of units. Left out: crossed prompts and seeds (`bootstrap.py`),
samples nested in them (`nested_bootstrap.py`), tests of hypotheses (`significance.py`).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
IndexArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A statistic and its percentile interval: arrays of the statistic's shape (0-d for a number), in its unit.

    units: how many were resampled. With one unit there is nothing to resample, and low and high are NaN.
    """

    value: FloatArray
    low: FloatArray
    high: FloatArray
    units: int


def bootstrap(
    statistic: Callable[[IndexArray], npt.ArrayLike],
    units: int,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """A statistic of `units` exchangeable units, and its percentile interval (Efron & Tibshirani 1993, chapter 13).

    Args:
        statistic: of the indices [units] of a resample (0 … units − 1, with repeats), a number or an array. What is
            computed in one call is resampled together: put what is to be compared, or paired, into one statistic.
        units: how many there are. Whatever is not independent (samples of one prompt, orders of one question) is one unit.
        resamples, confidence, seed: of the bootstrap; equal seeds and units draw the same resamples.

    Resamples in which an entry of the statistic is NaN do not count for this entry.

    Raises:
        ValueError: there are no units.
    """
    if units < 1:
        raise ValueError("the bootstrap needs at least one unit")
    value = np.asarray(statistic(np.arange(units)), dtype=np.float64)
    replicates = np.full((resamples, *value.shape), np.nan)
    rng = np.random.default_rng(seed)
    for resample in range(resamples if units > 1 else 0):
        replicates[resample] = statistic(rng.integers(units, size=units))
    return Interval(value, *percentile_interval(replicates, confidence), units)


def percentile_interval(replicates: FloatArray, confidence: float) -> tuple[FloatArray, FloatArray]:
    """(low, high) of replicates [resamples, ...] at equal tails; NaN replicates are left out, NaN where none is left."""
    tail = (1.0 - confidence) / 2.0
    some = np.isfinite(replicates).any(axis=0)
    # A column without values would warn; any number does for it, since it is NaN again in the end.
    low, high = np.nanquantile(np.where(some, replicates, 0.0), (tail, 1.0 - tail), axis=0)
    return np.where(some, low, np.nan), np.where(some, high, np.nan)


def draw_counts(size: int, items: int, rng: np.random.Generator) -> FloatArray:
    """[size, items]: how often each item comes up in `items` draws. Counting draws is faster than rng.multinomial."""
    draws = rng.integers(items, size=(size, items)) + items * np.arange(size)[:, None]
    return np.bincount(draws.ravel(), minlength=size * items).reshape(size, items).astype(np.float64)
