"""Which power of x a mean over worlds grows with, and a bootstrap's interval. Left out: whether a power law fits at all."""

import numpy as np
from numpy.typing import ArrayLike

RESAMPLES = 1000


def fitted_power(x: ArrayLike, y: ArrayLike, seed: int) -> dict[str, float]:
    """Least squares slope of ln mean(y) on ln mean(x) over C cells: [C, S], [C, S] -> estimate, low, high (95 %), n = S.

    Worlds are resampled, the same ones in all cells. ValueError: fewer than two cells, or a mean ≤ 0, which has no logarithm.
    """
    tables = np.asarray(x, float), np.asarray(y, float)
    cells, n = tables[0].shape
    if cells < 2:
        raise ValueError(f"a slope needs two cells or more, got {cells}")
    resampled = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    counts = np.concatenate([np.ones((1, n)), resampled])  # the first is the estimate
    means = [table @ counts.T / n for table in tables]
    least = min(mean.min() for mean in means)
    if not least > 0:
        raise ValueError(f"means must be > 0, got {least:g}: a power is fitted to logarithms")
    log_x, log_y = (np.log(mean) for mean in means)
    log_x -= log_x.mean(0)
    slopes = (log_x * log_y).sum(0) / np.square(log_x).sum(0)
    low, high = np.quantile(slopes[1:], (0.025, 0.975))
    return {"estimate": float(slopes[0]), "low": float(low), "high": float(high), "n": n}
