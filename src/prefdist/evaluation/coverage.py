"""Best-of-N on problems with a right answer: coverage (pass@k), best-of-N by a reward, difficulty, sample efficiency.

Curves are made for each problem, [problems, n], and then averaged with an interval over problems. All are unbiased: they
average over every subset of the n samples, none is drawn. Left out: majority vote, and how answers are judged.
"""

import math

import numpy as np
import numpy.typing as npt

from prefdist.evaluation.resampling import FloatArray, IndexArray, Interval, bootstrap

BoolArray = npt.NDArray[np.bool_]
Labels = npt.NDArray[np.str_]

DIFFICULTIES = ("easy", "medium", "hard")
_ROUNDING = 1e-12
"""Of a mean over problems, whose order of summation is the library's own: a curve reaches its own values."""


def pass_at_each_k(correct: npt.ArrayLike) -> FloatArray:
    """Probability that at least one of k samples is correct, for k = 1 … n: [problems, n], column k − 1.

    correct: [problems, n], True where a sample is right. 1 − C(n−c, k)/C(n, k), as `statistics.pass_at_k` for one k (Chen et
    al. 2021, arXiv 2107.03374, Eq. 1); SPL (arXiv 2511.08594) calls it best-of-N. At k = n it only says whether any is.

    Raises:
        ValueError: `correct` is not [problems, n] of booleans, or is empty.
    """
    hit = _samples(correct)
    n = hit.shape[1]
    return 1.0 - _share_inside(n - hit.sum(axis=1), n)[:, 1:]


def best_of_each_n(rewards: npt.ArrayLike, correct: npt.ArrayLike) -> FloatArray:
    """Probability that the sample of highest reward among N is correct, for N = 1 … n: [problems, n], column N − 1.

    rewards, correct: [problems, n], of the same samples. The N are drawn from the n without replacement; of samples that
    share the highest reward each is taken as often. In order of reward the i-th of n (i = 0 … n − 1) is the best of N with
    probability C(i, N−1)/C(n, N), and by symmetry a tie is worth its mean correctness.

    Raises:
        ValueError: shapes differ or are not [problems, n], or a reward is NaN.
    """
    hit, reward = _samples(correct), np.asarray(rewards, dtype=np.float64)
    if reward.shape != hit.shape:
        raise ValueError(f"rewards and correct must be of the same samples, got {reward.shape} and {hit.shape}")
    if np.isnan(reward).any():
        raise ValueError(f"{int(np.isnan(reward).sum())} rewards are NaN; every sample needs one")
    n = hit.shape[1]
    order = np.argsort(reward, axis=1)
    reward, hit = np.take_along_axis(reward, order, axis=1), np.take_along_axis(hit, order, axis=1)
    starts = np.ones(hit.shape, dtype=bool)  # of runs of equal rewards; a problem starts one
    starts[:, 1:] = reward[:, 1:] != reward[:, :-1]
    run = np.cumsum(starts.ravel()) - 1
    value = (np.bincount(run, weights=hit.ravel()) / np.bincount(run))[run].reshape(hit.shape)
    # C(i, N−1)/C(n, N) = (N/n)·C(i, N−1)/C(n−1, N−1)
    weights = _share_inside(np.arange(n), n - 1) * np.arange(1, n + 1) / n
    curves: FloatArray = value @ weights
    return curves


def mean_curve(curves: FloatArray, *, resamples: int = 2000, confidence: float = 0.95, seed: int = 0) -> Interval:
    """Mean [n] over problems of curves [problems, n], with pointwise intervals over problems."""
    return bootstrap(
        lambda problems: curves[problems].mean(axis=0), len(curves), resamples=resamples, confidence=confidence, seed=seed
    )


def difficulty(others: npt.ArrayLike, *, easy: int = 4, medium: int = 64) -> Labels:
    """ "easy", "medium" or "hard" for each problem, by the first of its samples that is correct: [problems].

    others: [problems, m], in the order drawn, of samples (or a model) that are not scored: had the scored ones defined it, the
    hard problems would be those that they happened to miss, and their coverage too low. Easy: solved within `easy`
    samples; medium: within `medium`; hard: later or never. The defaults are SPL's for GSM8K (arXiv 2511.08594).

    Raises:
        ValueError: m < medium, so that medium and hard cannot be told apart; or not 1 ≤ easy ≤ medium; or no booleans.
    """
    hit = _samples(others)
    if not 1 <= easy <= medium <= hit.shape[1]:
        raise ValueError(f"difficulty needs 1 <= easy <= medium <= samples, got {easy}, {medium} and {hit.shape[1]}")
    first = np.where(hit.any(axis=1), hit.argmax(axis=1) + 1, hit.shape[1] + 1)
    return np.array(DIFFICULTIES)[np.searchsorted([easy, medium], first)]


def samples_to_reach(curve: FloatArray, value: float) -> float:
    """Smallest number of samples at which a curve [n] over 1 … n reaches a value, linear between integers; inf if never.

    1 where one sample is enough: the curve does not go below.
    """
    reached = np.flatnonzero(curve >= value - _ROUNDING)
    if reached.size == 0:
        return math.inf
    at = int(reached[0])
    return 1.0 if at == 0 else at + min(1.0, float((value - curve[at - 1]) / (curve[at] - curve[at - 1])))


def sample_efficiency(
    curves_a: FloatArray,
    curves_b: FloatArray,
    n: int,
    *,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """How many samples policy a needs for what policy b reaches with n: a number, with an interval over problems.

    curves_a [problems, n_a], curves_b [problems, n_b]: of `pass_at_each_k` or `best_of_each_n`, row by row of the same
    problems, which are resampled together. Infinite where the mean curve of a does not reach b's within its n_a samples,
    for the value as for either end. SPL (arXiv 2511.08594, Fig. 9) reads such numbers off the curves, without interval.

    Raises:
        ValueError: the two differ in problems, or b has no n samples.
    """
    if len(curves_a) != len(curves_b) or not 1 <= n <= curves_b.shape[1]:
        raise ValueError(f"need curves of the same problems and 1 <= n = {n}, got {curves_a.shape} and {curves_b.shape}")

    def speed(problems: IndexArray) -> float:
        return 1.0 / samples_to_reach(curves_a[problems].mean(axis=0), float(curves_b[problems, n - 1].mean()))

    # Percentiles of 1/N, which is finite where N is not.
    found = bootstrap(speed, len(curves_a), resamples=resamples, confidence=confidence, seed=seed)
    with np.errstate(divide="ignore"):
        value, low, high = (np.divide(1.0, end) for end in (found.value, found.high, found.low))
    return Interval(np.asarray(value), np.asarray(low), np.asarray(high), found.units)


def _share_inside(inside: IndexArray, n: int) -> FloatArray:
    """C(a, k)/C(n, k) for each a of `inside` and k = 0 … n: the share of k-subsets of n that lie in a given a-subset.

    A running product of (a − i)/(n − i): no factorial, so nothing overflows.
    """
    step = np.arange(n)
    ratios = np.maximum(inside[:, None] - step, 0) / (n - step)
    return np.cumprod(np.concatenate([np.ones((len(inside), 1)), ratios], axis=1), axis=1)


def _samples(correct: npt.ArrayLike) -> BoolArray:
    hit = np.asarray(correct)
    if hit.ndim != 2 or hit.size == 0 or hit.dtype != np.bool_:
        raise ValueError(f"correct must be [problems, n] of booleans, got {hit.shape} of {hit.dtype}")
    return hit
