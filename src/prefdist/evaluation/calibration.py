"""Calibration of stated probabilities: reliability bins, expected calibration error (ECE), Brier score.

Left out: where confidences come from, recalibration (temperature scaling), intervals (bootstrap the per-item values).
ECE depends on the bins, so every report names their number and scheme.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
Scheme = Literal["width", "mass"]


@dataclass(frozen=True)
class ReliabilityBins:
    """What a reliability diagram shows. Arrays of one entry a bin; `edges` has one more. Empty bins: count 0, NaN."""

    edges: FloatArray
    count: npt.NDArray[np.int64]
    confidence: FloatArray  # mean confidence in the bin
    accuracy: FloatArray  # share correct in the bin

    @property
    def ece(self) -> float:
        """Σ_b (n_b / n)·|accuracy_b − confidence_b| over the bins that hold something."""
        full = self.count > 0
        gap = np.abs(self.accuracy[full] - self.confidence[full])
        return float((self.count[full] * gap).sum() / self.count.sum())


def reliability_bins(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = 15, scheme: Scheme = "width"
) -> ReliabilityBins:
    """Sort items into bins of confidence.

    Args:
        confidence: [N], probabilities in [0, 1] given to the answer (top label), or to the event.
        correct: [N], 1 or True where the answer was right or the event happened.
        bins: how many; 15 is the default of torchmetrics and of Guo et al. 2017.
        scheme: "width" cuts [0, 1] evenly; "mass" cuts at quantiles of the confidence. Equal confidences never part,
            so with ties equal mass holds only roughly and some bins can be empty.

    A bin is [low, high), the last one [low, high].

    Raises:
        ValueError: shapes differ or are not [N] with N ≥ 1, or a confidence is outside [0, 1] or NaN.
    """
    p, hit = np.asarray(confidence, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if p.ndim != 1 or p.shape != hit.shape or p.size == 0:
        raise ValueError(f"confidence and correct must both be [N], N >= 1; got {p.shape} and {hit.shape}")
    _check_probabilities(p)
    if not np.isin(hit, (0.0, 1.0)).all():
        raise ValueError("correct must hold 0 and 1 only")
    edges = np.linspace(0.0, 1.0, bins + 1) if scheme == "width" else np.quantile(p, np.linspace(0.0, 1.0, bins + 1))
    index = np.clip(np.searchsorted(edges, p, side="right") - 1, 0, bins - 1)
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0/0 in an empty bin is the NaN that we want
        mean_confidence = np.bincount(index, weights=p, minlength=bins) / count
        accuracy = np.bincount(index, weights=hit, minlength=bins) / count
    return ReliabilityBins(edges, count.astype(np.int64), mean_confidence, accuracy)


def expected_calibration_error(
    confidence: npt.ArrayLike, correct: npt.ArrayLike, *, bins: int = 15, scheme: Scheme = "width"
) -> float:
    """ECE in [0, 1] with the L1 norm (Naeini et al. 2015; Guo et al. 2017). Arguments and errors: `reliability_bins`.

    Biased upwards in small samples: a perfectly calibrated forecaster has ECE > 0, more so with more bins.
    """
    return reliability_bins(confidence, correct, bins=bins, scheme=scheme).ece


def brier_score(probabilities: npt.ArrayLike, outcome: npt.ArrayLike) -> float:
    """Mean squared error of stated probabilities (Brier 1950): the mean of `brier_scores`, arguments and errors there."""
    return float(brier_scores(probabilities, outcome).mean())


def brier_scores(probabilities: npt.ArrayLike, outcome: npt.ArrayLike) -> FloatArray:
    """Squared error of each item's stated probabilities: [N].

    Args:
        probabilities: [N, K], each row sums to 1: multiclass sum form Σ_k (p_ik − 1[k = y_i])², range [0, 2].
            Or [N], the probability of the event: (p_i − y_i)², range [0, 1]: half of the form with K = 2.
        outcome: [N], the class index y_i, or 1 where the event happened and 0 elsewhere.

    Raises:
        ValueError: shapes, probabilities or class indices that do not fit this.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(outcome).astype(np.int64)
    if p.ndim not in (1, 2) or y.shape != p.shape[:1] or p.size == 0:
        raise ValueError(f"probabilities must be [N, K] or [N] and outcome [N]; got {p.shape} and {y.shape}")
    _check_probabilities(p)
    if y.min() < 0 or y.max() >= (2 if p.ndim == 1 else p.shape[1]):
        raise ValueError(f"outcome has class indices from {y.min()} to {y.max()}, which the probabilities lack")
    if p.ndim == 1:
        return np.square(p - y)
    if not np.allclose(p.sum(axis=1), 1.0, atol=1e-4):
        raise ValueError("each row of probabilities must sum to 1")
    squares: FloatArray = np.square(p - np.eye(p.shape[1])[y]).sum(axis=1)
    return squares


def _check_probabilities(p: FloatArray) -> None:
    if not ((p >= 0.0) & (p <= 1.0)).all():
        raise ValueError("probabilities must be in [0, 1]; are these logits or log-probabilities?")
