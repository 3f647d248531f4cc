"""How much mass a tuned language model moves from "unaligned" to "aligned" outputs, on samples (Huang's note).

A mixture p_ref = α·p_A + (1 − α)·p_U is given by its responsibility a(y) = α·p_A(y)/p_ref(y) in [0, 1]: TPM(A) = E_tuned[a] and
α = E_ref[a], whatever a is. Which mixture is meant cannot be told from p_ref. Here are

- a soft posterior: any score in [0, 1] (`mass_shift`), and what a known reward predicts for it (`tilted_mass`);
- three fine-tuned models: p_A on chosen, p_U on rejected, p_ref on both responses (`responsibility`, `mixture_fit`);
- chosen against rejected responses of a known preference, where TPM(A) is the win rate (`borda_win_rates`);
- "shrunk, not truncated": log π − log π₀ against r/β (`log_ratio_slope`), and the tail of log π (`tail`).

Everything is a list of one array a prompt. The reward must not be DPO's implicit β·log(π/π₀), for which all of this is true by
definition. Left out: enumerable worlds (exact/), rewards and judges.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import expit, log_softmax
from statsmodels.regression.linear_model import OLS

from prefdist.evaluation.bootstrap import Estimate, paired_bootstrap

FloatArray = npt.NDArray[np.float64]
Groups = Sequence[npt.ArrayLike]
"""One array [n_i] of numbers a prompt: its samples."""
QUANTILES = (0.001, 0.01, 0.05, 0.25, 0.5)


@dataclass(frozen=True)
class MassShift:
    """TPM(A) and α of each prompt [P], in [0, 1]."""

    tpm: FloatArray
    alpha: FloatArray

    def gain(self, *, confidence: float = 0.95, seed: int = 0) -> Estimate:
        """Mean of TPM(A) − α with a bootstrap interval over prompts: above 0, mass has moved to A."""
        return paired_bootstrap(self.tpm[None], self.alpha[None], confidence=confidence, seed=seed)


def mass_shift(tuned: Groups, reference: Groups) -> MassShift:
    """Responsibilities a(y) of samples of the tuned model and of p_ref on the same prompts -> their means, prompt by prompt.

    ValueError: a(y) outside [0, 1], other numbers of prompts, or one without samples.
    """
    of_tuned, of_reference = _groups(tuned=tuned, reference=reference, same_sizes=False)
    for values in (*of_tuned, *of_reference):
        _check_responsibility(values)
    return MassShift(*(np.array([values.mean() for values in groups]) for groups in (of_tuned, of_reference)))


@dataclass(frozen=True)
class TiltedMass:
    """What p_ref·e^{r/β}/Z would have, estimated from samples of p_ref, [P] each.

    shift.tpm is Σ w·a/Σ w with w = e^{r/β}. covariance: Cov_ref(w, a)/E_ref[w], which is TPM(A) − α. effective_sample_size:
    (Σ w)²/Σ w², of n_i samples; the bias is of the order of its inverse, and where it is near 1 a single sample decides.
    """

    shift: MassShift
    covariance: FloatArray
    effective_sample_size: FloatArray


def tilted_mass(reward: Groups, responsibilities: Groups, *, beta: float) -> TiltedMass:
    """r(y) and a(y) of samples of p_ref -> the prediction of Huang's Lemma 1 for TPM(A), by self-normalised weights.

    To be held against E_tuned[a] of `mass_shift`. ValueError: β ≤ 0, a(y) outside [0, 1], infinite rewards, other groups.
    """
    if not beta > 0:
        raise ValueError(f"beta must be > 0, got {beta:g}")
    rewards, posteriors = _groups(reward=reward, responsibilities=responsibilities)
    tpm, alpha, covariance, size = [], [], [], []
    for r, a in zip(rewards, posteriors, strict=True):
        _check_responsibility(a)
        if not np.isfinite(r).all():
            raise ValueError("reward must be finite")
        share = np.exp(log_softmax(r / beta))
        tpm.append(share @ a)
        alpha.append(a.mean())
        covariance.append(len(a) * np.mean((share - share.mean()) * (a - a.mean())))
        size.append(1 / (share @ share))
    return TiltedMass(MassShift(np.array(tpm), np.array(alpha)), np.array(covariance), np.array(size))


def responsibility(log_aligned: Groups, log_unaligned: Groups) -> list[FloatArray]:
    """a(y) = p_A/(p_A + p_U), α = ½, from log-probabilities of whole responses under SFT(chosen) and SFT(rejected).

    Over many tokens the two differ by many nats, and a is 0 or 1: take short responses, and report their length.
    """
    return [expit(a - u) for a, u in zip(*_groups(log_aligned=log_aligned, log_unaligned=log_unaligned), strict=True)]


def mixture_fit(log_reference: Groups, log_aligned: Groups, log_unaligned: Groups) -> FloatArray:
    """Mean of log p_ref − log[(p_A + p_U)/2] of each prompt [P], nats.

    On samples of p_ref its expectation is KL(p_ref‖mixture) ≥ 0; on other held-out responses it should be near 0, too.
    """
    groups = _groups(log_reference=log_reference, log_aligned=log_aligned, log_unaligned=log_unaligned)
    return np.array([np.mean(r - np.logaddexp(a, u) + np.log(2)) for r, a, u in zip(*groups, strict=True)])


def borda_win_rates(scores: Groups, opponents: Groups | None = None, *, gamma: float) -> list[FloatArray]:
    """a(y) = E_{y'~p_ref} P(y beats y'), P = σ(γ·(s(y) − s(y'))), the responsibility of the chosen response of a pair.

    Pairs of samples of p_ref, labelled with P, give p_ref = ½·p_A + ½·p_U with p_A the law of the chosen and p_U that of the
    rejected response. Then TPM(A) = E_tuned[a] is the win rate of the tuned model against p_ref, and α = ½.

    Args:
        scores: s(y) of each response, log π* in the testbed (ADL, arXiv 2506.01523, Eq. 2).
        opponents: s(y') of samples of p_ref. None: `scores` are themselves of p_ref; each meets the others, not itself.
        gamma: γ.

    Raises:
        ValueError: groups that differ, or a single sample of p_ref that meets no other.
    """
    if opponents is not None:
        return [
            expit(gamma * np.subtract.outer(own, other)).mean(-1)
            for own, other in zip(*_groups(scores=scores, opponents=opponents, same_sizes=False), strict=True)
        ]
    (groups,) = _groups(scores=scores)
    if min(map(len, groups)) < 2:
        raise ValueError("a prompt has one sample of p_ref, which meets no other: draw two or more")
    # Against itself a response wins one half of the time, which is taken out of its row.
    return [(expit(gamma * np.subtract.outer(own, own)).sum(-1) - 0.5) / (len(own) - 1) for own in groups]


@dataclass(frozen=True)
class Slope:
    """Least squares of log π − log π₀ on r/β with an intercept a prompt; standard error clustered by prompt.

    value is 1 for p_ref·e^{r/β}/Z, and each intercept [P] is then −log Z. low, high: the interval at the asked confidence, by
    Student's t with P − 1 degrees of freedom. r_squared: within prompts.
    """

    value: float
    standard_error: float
    low: float
    high: float
    intercepts: FloatArray
    r_squared: float


def log_ratio_slope(log_ratio: Groups, scaled_reward: Groups, *, confidence: float = 0.95) -> Slope:
    """log π − log π₀ and r/β of the same responses, nats; log Z(x) is another one for every prompt and is fitted.

    Noise in the reward alone makes the slope smaller than 1. ValueError: groups that differ, numbers that are not finite (see
    `tail`), fewer than two prompts, or rewards that do not vary within prompts.
    """
    ys, xs = _groups(log_ratio=log_ratio, scaled_reward=scaled_reward)
    if len(ys) < 2:
        raise ValueError("a clustered standard error needs two prompts or more")
    if not all(np.isfinite(values).all() for values in (*ys, *xs)):
        raise ValueError("log-ratios and rewards must be finite: count the infinite ones apart")
    centred_y, centred_x = (np.concatenate([values - values.mean() for values in groups]) for groups in (ys, xs))
    if not centred_x.any():
        raise ValueError("the reward does not vary within any prompt, so there is no slope")
    prompts = np.repeat(np.arange(len(ys)), [len(values) for values in ys])
    fit = OLS(centred_y, centred_x).fit(cov_type="cluster", cov_kwds={"groups": prompts}, use_t=True)
    ((low, high),) = fit.conf_int(alpha=1 - confidence)
    (value,), (error,) = fit.params, fit.bse
    intercepts = np.array([y.mean() - value * x.mean() for y, x in zip(ys, xs, strict=True)])
    return Slope(float(value), float(error), float(low), float(high), intercepts, float(fit.rsquared))


@dataclass(frozen=True)
class Tail:
    """Log-probabilities in nats, for instance of rejected responses: shrunk, not truncated, if none is infinite.

    n_not_finite: of n. minimum: of all, minus infinity where there is one. quantiles: of the finite ones, at QUANTILES.
    """

    n: int
    n_not_finite: int
    minimum: float
    quantiles: dict[float, float]


def tail(log_probabilities: Groups) -> Tail:
    """The lower tail of log π(y), prompts together. ValueError: none is finite, or one is NaN."""
    (groups,) = _groups(log_probabilities=log_probabilities)
    values = np.concatenate(groups)
    finite = values[np.isfinite(values)]
    if np.isnan(values).any() or not finite.size:
        raise ValueError("log-probabilities must not be NaN, and at least one must be finite")
    quantiles = dict(zip(QUANTILES, np.quantile(finite, QUANTILES).tolist(), strict=True))
    return Tail(values.size, values.size - finite.size, float(values.min()), quantiles)


def _groups(*, same_sizes: bool = True, **named: Groups) -> list[list[FloatArray]]:
    """The same prompts in all groups, each with samples, and with the same number of them where they are of one sample."""
    arrays = {name: [np.asarray(values, dtype=np.float64) for values in groups] for name, groups in named.items()}
    counts = {name: len(groups) for name, groups in arrays.items()}
    if len(set(counts.values())) != 1 or 0 in counts.values():
        raise ValueError(f"groups must be of the same prompts, got {counts}")
    for i, row in enumerate(zip(*arrays.values(), strict=True)):
        shapes = dict(zip(arrays, (values.shape for values in row), strict=True))
        if any(values.ndim != 1 or not values.size for values in row) or (same_sizes and len(set(shapes.values())) != 1):
            raise ValueError(f"prompt {i}: samples must be [n], n ≥ 1{' and the same' if same_sizes else ''}, got {shapes}")
    return list(arrays.values())


def _check_responsibility(values: FloatArray) -> None:
    if not ((values >= 0) & (values <= 1)).all():
        raise ValueError("responsibilities must lie in [0, 1]: a(y) = α·p_A(y)/p_ref(y)")
