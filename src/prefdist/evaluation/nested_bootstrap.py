"""Intervals over prompts × seeds with several samples a cell: seeds and prompts crossed, samples nested in their cells.

For a mean, averaging the samples first (`bootstrap.py`) is the better interval wherever there are several prompts: see
`nested_bootstrap`. This one is for few cells with many samples, where cells alone say little, and for showing how
much the sampling adds. Left out: statistics of a cell other than its mean, more levels.
"""

import math

import numpy as np
import numpy.typing as npt

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import Estimate, stretch_seed_effects
from prefdist.evaluation.resampling import FloatArray, IndexArray, percentile_interval


def nested_bootstrap(
    values_a: npt.NDArray[np.floating],
    values_b: npt.NDArray[np.floating] | None = None,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Estimate:
    """Mean of the cells' means, or of their paired difference a − b, with a percentile interval.

    Args:
        values_a, values_b: [seeds, prompts, samples], NaN (or anything not finite) = no sample. Cell (s, p) of a is paired
            with that of b; their samples are drawn apart and their numbers may differ. Where sample m of a and of b share
            their random numbers, give a − b as `values_a` instead.
        resamples, confidence, seed: of the bootstrap; the same seed gives the same interval.

    Method: seeds and prompts are drawn with replacement, independently, and seed effects are stretched, both as in
    `bootstrap.paired_bootstrap`; each cell so drawn, also one that comes up again, draws its samples anew. Cells weigh alike.

    Beside averaging first: the value is the same, and the bootstrap's variance is larger by the mean over cells of v/m,
    divided by S·P (exactly, where no cell is missing): v is the variance, ddof 0, of a cell's m samples. The noise of samples
    is in the cells' means already: counted once over one seed, up to three times over many (Owen 2007), and here once more.
    So this is too wide where samples dominate, and differs little elsewhere (Davison & Hinkley 1997, section 3.8: do not
    resample the lowest level). With one prompt and one seed it is the only interval there is.

    Coverage of the 0.95 interval, averaged first / nested, in 1000 simulated data sets of 50 prompts and 8 samples, by what
    dominates (standard deviations of the normal effects of prompt, seed and single sample):

        seeds                        1              3
        prompts   (1, 0, 1)     0.93 / 0.94    0.95 / 0.96
        samples   (0.1, 0, 3)   0.95 / 0.99    0.99 / 1.00
        seeds     (0.1, 1, 1)   0.07 / 0.09    0.77 / 0.77    too narrow: few seeds say little

    Returns:
        n and n_missing count cells with and without a sample. low and high are NaN where there is nothing to resample.

    Raises:
        UserError: a and b have no cell in common.
        ValueError: an array is not [seeds, prompts, samples], or a and b differ in seeds or prompts.
    """
    runs = [np.asarray(values, dtype=np.float64) for values in (values_a, values_b) if values is not None]
    if any(values.ndim != 3 for values in runs) or len({values.shape[:2] for values in runs}) > 1:
        shapes = " and ".join(str(values.shape) for values in runs)
        raise ValueError(f"samples must be [seeds, prompts, samples], a and b with the same seeds and prompts; got {shapes}")
    cells = _cell_means(runs)
    present = np.isfinite(cells)
    n = int(present.sum())
    if n == 0 and len(runs) == 2:
        raise UserError("a paired difference needs cells with samples of both; these two have none in common")
    seeds, prompts = present.any(axis=1), present.any(axis=0)
    low = high = math.nan
    if n > 1 or (n == 1 and max(int(np.isfinite(values[present]).sum()) for values in runs) > 1):
        kept = [values[seeds][:, prompts] for values in runs]
        means = _resampled_means(kept, resamples, np.random.default_rng(seed))
        low, high = map(float, percentile_interval(means, confidence))
    return Estimate(
        value=float(cells[present].mean()) if n else math.nan,
        low=low,
        high=high,
        n_prompts=int(prompts.sum()),
        n_seeds=int(seeds.sum()),
        n=n,
        n_missing=cells.size - n,
    )


def _cell_means(runs: list[FloatArray]) -> FloatArray:
    """Mean over samples of the only run, or that of the first less that of the second; NaN where one has none."""
    means = [_mean_over_samples(values) for values in runs]
    return means[0] if len(means) == 1 else means[0] - means[1]


def _mean_over_samples(values: FloatArray) -> FloatArray:
    present = np.isfinite(values)
    count = present.sum(axis=-1)
    total = np.where(present, values, 0.0).sum(axis=-1)
    mean: FloatArray = np.divide(total, count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean


def _resampled_means(runs: list[FloatArray], resamples: int, rng: np.random.Generator) -> FloatArray:
    """Means [resamples] over cells of seeds, prompts and samples drawn with replacement; NaN where a draw has no cell."""
    cells = _cell_means(runs)
    shift = stretch_seed_effects(cells) - cells
    packed = [(np.sort(np.where(np.isfinite(v), v, np.nan), axis=-1), np.isfinite(v).sum(axis=-1)) for v in runs]
    n_seeds, n_prompts = cells.shape
    means = np.full(resamples, np.nan)
    for resample in range(resamples):
        drawn = np.ix_(rng.integers(n_seeds, size=n_seeds), rng.integers(n_prompts, size=n_prompts))
        of_cells = _cell_means([_redraw(samples[drawn], count[drawn], rng) for samples, count in packed]) + shift[drawn]
        present = np.isfinite(of_cells)
        if present.any():
            means[resample] = of_cells[present].mean()
    return means


def _redraw(samples: FloatArray, count: IndexArray, rng: np.random.Generator) -> FloatArray:
    """As many draws as each cell has samples, with replacement; samples [S, P, M] stand before the NaN, `count` [S, P]."""
    index = (rng.random(samples.shape) * count[..., None]).astype(np.int64)
    redrawn = np.take_along_axis(samples, index, axis=-1)
    redrawn[np.arange(samples.shape[-1]) >= count[..., None]] = np.nan
    return redrawn
