"""The statistics of the result tables: this is the module to import from.

Here: win rate by AlpacaEval's rules, unbiased pass@k, Cohen's kappa. Re-exported: the bootstrap over prompts and seeds
(`bootstrap.py`), calibration error and Brier score (`calibration.py`).
Left out: how preferences, correct answers or confidences come about; length-controlled win rates. Beside it: curves of
pass@k and best-of-N (`coverage.py`), multiple choice (`multiple_choice.py`), comparisons of runs (`significance.py`).
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.metrics import cohen_kappa_score

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import Estimate, MetricRow, paired_bootstrap
from prefdist.evaluation.calibration import (
    ReliabilityBins,
    brier_score,
    brier_scores,
    expected_calibration_error,
    reliability_bins,
)

__all__ = [
    "Estimate",
    "MetricRow",
    "ReliabilityBins",
    "WinRate",
    "brier_score",
    "brier_scores",
    "cohen_kappa",
    "expected_calibration_error",
    "paired_bootstrap",
    "pass_at_k",
    "reliability_bins",
    "win_rate",
]


@dataclass(frozen=True)
class WinRate:
    """Win rate of a model against a baseline over n_total prompts; estimate and standard error in percent."""

    estimate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    n_missing: int


def win_rate(preferences: Sequence[float | None] | npt.NDArray[np.floating]) -> WinRate:
    """Win rate of the model from AlpacaEval's column `preference`, one value a prompt.

    1 = the baseline wins, 2 = the model wins, in between = soft (a judge's probability that the model wins, plus 1);
    1.5 and 0 = draw, which counts one half; None and NaN = missing, dropped from n_total and counted. The estimate is the mean
    soft preference, the standard error is over prompts with ddof = 1 (NaN for one prompt). A soft preference above
    1.5 counts as a win. Source: `get_winrate` of tatsu-lab/alpaca_eval, metrics/winrate.py and helpers.py.

    One difference: a number that is no preference is dropped there and logged; here it raises.

    Raises:
        UserError: a value is neither 0 nor in [1, 2], or none is left.
    """
    values = np.array([math.nan if value is None else value for value in preferences], dtype=np.float64)
    missing = np.isnan(values)
    values = values[~missing]
    values[values == 0.0] = 1.5
    if values.size == 0:
        raise UserError("win rate: no preference is left after dropping the missing ones")
    wrong = values[(values < 1.0) | (values > 2.0)]
    if wrong.size:
        raise UserError(f"win rate: {wrong.size} preferences are neither 0 nor in [1, 2], the first is {wrong[0]}")
    soft = values - 1.0
    return WinRate(
        estimate=100.0 * float(soft.mean()),
        standard_error=100.0 * float(soft.std(ddof=1)) / math.sqrt(soft.size) if soft.size > 1 else math.nan,
        n_wins=int((soft > 0.5).sum()),
        n_wins_base=int((soft < 0.5).sum()),
        n_draws=int((soft == 0.5).sum()),
        n_total=soft.size,
        n_missing=int(missing.sum()),
    )


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate of the probability that at least one of k samples is correct, c of n samples being so.

    1 − C(n−c, k) / C(n, k), for one problem: average over problems. Source: Chen et al. 2021 (arXiv 2107.03374), Eq. 1.
    In exact integers, so no product form is needed. The plug-in 1 − (1 − c/n)^k is biased low.

    Raises:
        ValueError: unless 0 ≤ c ≤ n and 1 ≤ k ≤ n.
    """
    if not (0 <= c <= n and 1 <= k <= n):
        raise ValueError(f"pass@k needs 0 <= c <= n and 1 <= k <= n, got n={n}, c={c}, k={k}")
    return 1.0 - math.comb(n - c, k) / math.comb(n, k)


def cohen_kappa(a: Sequence[Hashable], b: Sequence[Hashable]) -> float:
    """Agreement of two raters on the same items beyond chance: (observed − expected) / (1 − expected), unweighted.

    Expected agreement is Σ_label P_a(label)·P_b(label) (Cohen 1960), over the labels of either: one rater may lack some.
    NaN where both raters use one and the same label throughout, because chance alone then explains everything.

    Raises:
        ValueError: the two differ in length or are empty.
    """
    if len(a) != len(b) or not a:
        raise ValueError(f"kappa needs two ratings of the same items, got {len(a)} and {len(b)}")
    codes = {label: code for code, label in enumerate(dict.fromkeys([*a, *b]))}
    if len(codes) == 1:
        return math.nan
    return float(cohen_kappa_score([codes[label] for label in a], [codes[label] for label in b]))
