"""Is a difference between runs more than chance: paired sign-flip tests over prompts, and corrections for many of them.

Left out: unpaired tests, tests over training seeds (with the few that there are, none has power: read the intervals of
`bootstrap.paired_bootstrap`, which cover them), equivalence tests.
"""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy.stats import permutation_test
from statsmodels.stats.multitest import multipletests

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import Estimate, FloatArray, MetricRow, paired_bootstrap, paired_differences

Correction = Literal["holm", "benjamini_hochberg"]
_STATSMODELS: dict[Correction, str] = {"holm": "holm", "benjamini_hochberg": "fdr_bh"}
_BATCH_CELLS = 1 << 20  # signs held at once: 8 MiB


@dataclass(frozen=True)
class Comparison:
    """Run a less run b: the difference with its interval over prompts × seeds, the p-value of it alone and corrected."""

    a: str
    b: str
    difference: Estimate
    p_value: float
    p_corrected: float


def corrected(p_values: npt.ArrayLike, method: Correction = "holm") -> FloatArray:
    """p-values [m] corrected for being m: reject where one is at most the level.

    holm: the probability of any false rejection is at most the level, whatever the dependence (Holm 1979).
    benjamini_hochberg: the expected share of false ones among the rejections is at most the level, for tests that are
    independent or positively dependent (Benjamini & Hochberg 1995). All pairs of a few runs are not independent: use Holm.

    Raises:
        ValueError: a p-value is NaN or outside [0, 1], or there is none.
    """
    p = np.asarray(p_values, dtype=np.float64)
    if p.ndim != 1 or p.size == 0 or not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError(f"p-values must be [m], m >= 1, in [0, 1]; got {p}")
    return np.asarray(multipletests(p, method=_STATSMODELS[method])[1], dtype=np.float64)


def sign_flip_p_value(differences: npt.ArrayLike, *, permutations: int = 9999, seed: int = 0) -> float:
    """Two-sided p-value that the mean of paired differences [P] is zero, by flipping the sign of each (Fisher 1935).

    Exact under the hypothesis that a and b are exchangeable within a prompt: all 2^P flips where these are at most
    `permutations`, else that many random ones, and then at least 2/(permutations + 1). NaN differences are left out.

    Raises:
        ValueError: no difference is left, or they are not [P].
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[~np.isnan(d)]
    if np.ndim(differences) != 1 or d.size == 0:
        raise ValueError(f"a paired test needs differences [P] with a value, got shape {np.shape(differences)}")
    result = permutation_test(
        (d,),
        np.mean,
        permutation_type="samples",
        vectorized=True,
        n_resamples=permutations,
        batch=max(1, _BATCH_CELLS // d.size),
        rng=np.random.default_rng(seed),
    )
    return float(result.pvalue)


def compare_all(
    runs: Mapping[str, npt.NDArray[np.floating] | Iterable[MetricRow]],
    *,
    against: str | None = None,
    correction: Correction = "holm",
    permutations: int = 9999,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> list[Comparison]:
    """Every pair of runs, a before b in the order of `runs`, on the cells that both have; or each run less `against`.

    runs: by name, [seeds, prompts] values or rows (seed, prompt_id, value) of one metric, paired as in `paired_bootstrap`.
    The p-value flips the signs of prompts, on differences averaged over seeds: it is about the policies that were trained,
    while the interval covers new seeds too. Where there is more than one seed the two can disagree.

    Raises:
        UserError: fewer than two runs, or two without a value in common; further as `paired_bootstrap`.
    """
    if len(runs) < 2:
        raise UserError(f"a comparison needs two runs, got {len(runs)}")
    values = {name: run if isinstance(run, np.ndarray) else list(run) for name, run in runs.items()}
    if against is None:
        pairs = list(itertools.combinations(values, 2))
    else:
        pairs = [(name, against) for name in values if name != against]
    differences, p_values = [], []
    for a, b in pairs:
        cells = paired_differences(values[a], values[b])
        of_prompts = _means_over_seeds(cells)
        if of_prompts.size == 0:
            raise UserError(f"runs {a!r} and {b!r} have no cell with a value of both")
        differences.append(paired_bootstrap(cells, resamples=resamples, confidence=confidence, seed=seed))
        p_values.append(sign_flip_p_value(of_prompts, permutations=permutations, seed=seed))
    adjusted = corrected(p_values, correction)
    return [
        Comparison(a, b, difference, p_value, float(p_corrected))
        for (a, b), difference, p_value, p_corrected in zip(pairs, differences, p_values, adjusted, strict=True)
    ]


def _means_over_seeds(cells: FloatArray) -> FloatArray:
    """Mean of each prompt [prompts with a value] over the seeds that have one."""
    finite = np.where(np.isfinite(cells), cells, np.nan)
    means: FloatArray = np.nanmean(finite[:, np.isfinite(cells).any(axis=0)], axis=0)
    return means
