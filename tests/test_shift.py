"""Mass moved to "aligned" outputs: samples that are exact copies of small laws, so that expectations are known numbers."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from prefdist.evaluation.shift import (
    QUANTILES,
    borda_win_rates,
    log_ratio_slope,
    mass_shift,
    mixture_fit,
    responsibility,
    tail,
    tilted_mass,
)

# Huang's note, first counterexample to Theorem 2: 20 samples in the shares .35, .45, .20 of p_ref are its law.
COUNTS = [7, 9, 4]
REWARD = np.repeat([0.0, 2.0, 3.0], COUNTS)
POSTERIOR = np.repeat([0.0, 1.0, 0.25], COUNTS)  # α·p_A/p_ref with α = ½, p_A = (0, .9, .1)


def test_means_by_hand() -> None:
    found = mass_shift([[1.0, 0.5], [0.25]], [[0.0, 0.5, 1.0], [0.5, 0.5]])
    assert found.tpm.tolist() == [0.75, 0.25]
    assert found.alpha.tolist() == [0.5, 0.5]
    gain = found.gain()
    assert (gain.value, gain.n_prompts) == (0.0, 2)
    assert (gain.low, gain.high) == (-0.25, 0.25)  # two prompts: resampled means are −¼, 0 and ¼


def test_gain_has_the_interval_of_its_prompts() -> None:
    """400 prompts, true gain .1: inside, and the interval is 2·1.96 standard errors wide (to 10 %, of 2000 resamples)."""
    rng = np.random.default_rng(0)
    alpha = rng.uniform(0.2, 0.6, 400)
    tuned = alpha + 0.1 + rng.uniform(-0.1, 0.1, 400)
    gain = mass_shift(tuned[:, None], alpha[:, None]).gain()
    assert gain.low < 0.1 < gain.high
    width = 2 * 1.96 * np.std(tuned - alpha, ddof=1) / math.sqrt(400)
    assert gain.high - gain.low == pytest.approx(width, rel=0.1)


@pytest.mark.parametrize(
    ("beta", "expected"), [(0.1, 0.2501), (0.2, 0.2612), (0.5, 0.4237), (1.0, 0.5628), (2.0, 0.5861), (5.0, 0.5502)]
)
def test_huangs_counterexample(beta: float, expected: float) -> None:
    """TPM(A) falls below α = ½ at small β; four digits are published."""
    found = tilted_mass([REWARD], [POSTERIOR], beta=beta)
    assert found.shift.alpha[0] == pytest.approx(0.5, abs=1e-15)
    assert found.shift.tpm[0] == pytest.approx(expected, abs=5e-5)


def test_the_counterexample_in_fractions() -> None:
    """e^{r/β} = 1, 256, 4096: TPM(A) = 1280/3739, Cov/E[w] = that less ½, and the effective sample size."""
    beta = 1 / (4 * math.log(2))
    found = tilted_mass([REWARD], [POSTERIOR], beta=beta)
    weights = [Fraction(w) for w, count in zip((1, 256, 4096), COUNTS, strict=True) for _ in range(count)]
    posterior = [Fraction(a) for a in POSTERIOR]
    mean = sum(weights) / 20
    covariance = sum(w * a for w, a in zip(weights, posterior, strict=True)) / 20 - mean * sum(posterior) / 20
    assert found.shift.tpm[0] == pytest.approx(1280 / 3739, abs=1e-13)
    assert found.covariance[0] == pytest.approx(float(covariance / mean), abs=1e-13)
    assert float(covariance / mean) == pytest.approx(1280 / 3739 - 0.5, abs=1e-15)
    size = sum(weights) ** 2 / sum(w * w for w in weights)
    assert found.effective_sample_size[0] == pytest.approx(float(size), rel=1e-13)


def test_prediction_and_samples_of_a_tilted_model_agree() -> None:
    """Two estimates of one number, from 40 000 samples of p_ref and of p_θ: each has a standard error below .01."""
    rng = np.random.default_rng(1)
    logits, reward, posterior = rng.normal(size=8), rng.normal(size=8), rng.uniform(size=8)
    posterior = (posterior + expit(2 * reward)) / 2
    reference = np.exp(logits - logsumexp(logits))
    tuned = reference * np.exp(reward / 0.7)
    tuned /= tuned.sum()
    of_reference, of_tuned = (rng.choice(8, 40_000, p=p) for p in (reference, tuned))
    predicted = tilted_mass([reward[of_reference]], [posterior[of_reference]], beta=0.7)
    direct = mass_shift([posterior[of_tuned]], [posterior[of_reference]])
    assert predicted.shift.tpm[0] == pytest.approx(tuned @ posterior, abs=0.02)
    assert direct.tpm[0] == pytest.approx(tuned @ posterior, abs=0.02)
    assert direct.alpha[0] == predicted.shift.alpha[0] == pytest.approx(reference @ posterior, abs=0.02)
    assert direct.tpm[0] - direct.alpha[0] > 0.05, "there must be something to agree on"


def test_effective_sample_size_has_its_ends() -> None:
    equal = tilted_mass([[3.0] * 5], [[0.1] * 5], beta=1.0)
    assert equal.effective_sample_size[0] == pytest.approx(5)
    assert tilted_mass([[0.0, 0.0, 1000.0]], [[0.1, 0.2, 0.7]], beta=0.1).effective_sample_size[0] == pytest.approx(1)


def copies(law: Sequence[int]) -> list[int]:
    return [y for y, count in enumerate(law) for _ in range(count)]


def test_three_fine_tuned_models() -> None:
    """p_A = (6, 3, 1)/10, p_U = (2, 3, 5)/10, p_ref their mean: a = (.75, .5, 1/6), fit 0, E_ref[a] = ½."""
    aligned, unaligned = np.log([0.6, 0.3, 0.1]), np.log([0.2, 0.3, 0.5])
    reference = np.log([0.4, 0.3, 0.3])
    y = copies([4, 3, 3])
    (posterior,) = responsibility([aligned[y]], [unaligned[y]])
    assert posterior == pytest.approx(np.array([0.75, 0.5, 1 / 6])[y], abs=1e-15)
    assert posterior.mean() == pytest.approx(0.5, abs=1e-15)
    assert mixture_fit([reference[y]], [aligned[y]], [unaligned[y]]) == pytest.approx([0.0], abs=1e-15)
    # Another reference, (.5, .3, .2): KL to the mixture, from its own samples.
    other, z = np.log([0.5, 0.3, 0.2]), copies([5, 3, 2])
    kl = 0.5 * math.log(0.5 / 0.4) + 0.2 * math.log(0.2 / 0.3)
    assert kl > 0
    assert mixture_fit([other[z]], [aligned[z]], [unaligned[z]]) == pytest.approx([kl], abs=1e-15)


def test_long_responses_do_not_overflow() -> None:
    (posterior,) = responsibility([[-2000.0, -900.0]], [[-900.0, -2000.0]])
    assert posterior.tolist() == [0.0, 1.0]
    assert mixture_fit([[-900.0]], [[-900.0]], [[-2000.0]]) == pytest.approx([math.log(2)], abs=1e-9)


def test_win_rates_against_a_double_loop() -> None:
    rng = np.random.default_rng(0)
    own, other = [rng.normal(size=n) for n in (3, 5)], [rng.normal(size=n) for n in (4, 2)]
    found = borda_win_rates(own, other, gamma=0.7)
    for mine, theirs, rates in zip(own, other, found, strict=True):
        for s, rate in zip(mine, rates, strict=True):
            assert rate == pytest.approx(sum(1 / (1 + math.exp(-0.7 * (s - t))) for t in theirs) / len(theirs), abs=1e-14)
    for mine, rates in zip(own, borda_win_rates(own, gamma=0.7), strict=True):
        for i, rate in enumerate(rates):
            rest = [1 / (1 + math.exp(-0.7 * (mine[i] - t))) for j, t in enumerate(mine) if j != i]
            assert rate == pytest.approx(sum(rest) / len(rest), abs=1e-14)


def test_chosen_and_rejected_responses() -> None:
    """Pairs of p_ref, labelled by P: a(y) = α·p_A/p_ref is y's win rate, and E_tuned[a] that of the tuned model."""
    scores, reference = np.array([-1.0, 0.3, 0.9, 2.0]), np.array([0.4, 0.3, 0.2, 0.1])
    beats = expit(scores[:, None] - scores[None, :])
    chosen = reference * (beats @ reference) * 2  # y is chosen first and wins, or second and wins
    drawn = copies([4, 3, 2, 1])
    (rates,) = borda_win_rates([scores], [scores[drawn]], gamma=1.0)
    assert rates == pytest.approx(0.5 * chosen / reference, abs=1e-14)
    tuned = copies([1, 2, 3, 4])
    (of_tuned,) = borda_win_rates([scores[tuned]], [scores[drawn]], gamma=1.0)
    win_rate = np.mean([beats[y, z] for y in tuned for z in drawn])
    assert mass_shift([of_tuned], borda_win_rates([scores[drawn]], gamma=1.0)).tpm[0] == pytest.approx(win_rate, abs=1e-14)


@pytest.mark.parametrize("beta", [0.05, 0.3, 1.0, 10.0])
def test_the_win_rate_of_a_tilted_model_is_at_least_one_half(beta: float) -> None:
    """With the Bradley-Terry reward of the preference; α = ½ exactly, because every loss is another sample's win."""
    rng = np.random.default_rng(1)
    scores = [rng.normal(0, 3, 20) for _ in range(30)]
    found = tilted_mass([0.4 * s for s in scores], borda_win_rates(scores, gamma=0.4), beta=beta)
    assert found.shift.alpha == pytest.approx(np.full(30, 0.5), abs=1e-14)
    assert (found.shift.tpm > 0.5).all()


def test_the_slope_of_a_tilted_law_is_one() -> None:
    """Enumerated: every intercept is −log Z."""
    rng = np.random.default_rng(0)
    ratios, rewards, normalisers = [], [], []
    for size in (4, 7, 5):
        log_p = rng.normal(size=size)
        log_p -= logsumexp(log_p)
        scaled = rng.normal(0, 2, size)
        normaliser = logsumexp(log_p + scaled)
        ratios.append((log_p + scaled - normaliser) - log_p)
        rewards.append(scaled)
        normalisers.append(normaliser)
    found = log_ratio_slope(ratios, rewards)
    assert found.value == pytest.approx(1, abs=1e-12)
    assert found.intercepts == pytest.approx(-np.array(normalisers), abs=1e-12)
    assert found.standard_error == pytest.approx(0, abs=1e-12)
    assert found.r_squared == pytest.approx(1, abs=1e-12)


def noisy(seed: int, prompts: int = 25, samples: int = 6) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Slope .8, an intercept a prompt that goes with the reward's level, and noise whose size goes with the prompt."""
    rng = np.random.default_rng(seed)
    levels = rng.normal(0, 3, prompts)
    xs = [level + rng.normal(size=samples) for level in levels]
    return [0.8 * x - 2 * level + rng.normal(0, rng.uniform(0.2, 1), samples) for x, level in zip(xs, levels, strict=True)], xs


def test_slope_and_error_by_linear_algebra() -> None:
    """The slope of a regression with a dummy a prompt; the sandwich of Σ_prompt (Σ x·e)², times G/(G − 1)."""
    ys, xs = noisy(0)
    found = log_ratio_slope(ys, xs)
    design = np.zeros((150, 26))
    design[:, 0] = np.concatenate(xs)
    design[np.arange(150), 1 + np.arange(150) // 6] = 1
    coefficients = np.linalg.lstsq(design, np.concatenate(ys), rcond=None)[0]
    assert found.value == pytest.approx(coefficients[0], abs=1e-10)
    assert found.intercepts == pytest.approx(coefficients[1:], abs=1e-9)
    centred = [x - x.mean() for x in xs]
    residuals = [y - y.mean() - found.value * x for y, x in zip(ys, centred, strict=True)]
    meat = sum(float(x @ e) ** 2 for x, e in zip(centred, residuals, strict=True))
    bread = sum(float(x @ x) for x in centred)
    assert found.standard_error == pytest.approx(math.sqrt(25 / 24 * meat) / bread, rel=1e-10)
    quantile = 2.063899  # of Student's t, 24 degrees of freedom, .975
    assert (found.high - found.low) / 2 == pytest.approx(quantile * found.standard_error, rel=1e-6)
    # Without an intercept a prompt the levels would turn the slope round.
    assert np.polyfit(np.concatenate(xs), np.concatenate(ys), 1)[0] < 0


def test_coverage_of_the_slope() -> None:
    """300 data sets: the 95 % interval holds .8 in 95 % of them, to 4 standard errors of 1.3 points."""
    found = [log_ratio_slope(*noisy(seed)) for seed in range(300)]
    assert np.mean([f.low < 0.8 < f.high for f in found]) == pytest.approx(0.95, abs=0.05)


def test_tail() -> None:
    values = [-float(i) for i in range(1001)]
    found = tail([values[:500], values[500:]])
    assert (found.n, found.n_not_finite, found.minimum) == (1001, 0, -1000.0)
    assert found.quantiles == {q: pytest.approx(-1000 * (1 - q), abs=1e-9) for q in QUANTILES}
    truncated = tail([[-math.inf, -3.0], [-1.0]])
    assert (truncated.n, truncated.n_not_finite, truncated.minimum) == (3, 1, -math.inf)
    assert truncated.quantiles[0.5] == -2.0


def test_refused() -> None:
    with pytest.raises(ValueError, match=r"responsibilities must lie in \[0, 1\]"):
        mass_shift([[1.2]], [[0.5]])
    with pytest.raises(ValueError, match=r"responsibilities must lie in \[0, 1\]"):
        mass_shift([[math.nan]], [[0.5]])
    with pytest.raises(ValueError, match=r"groups must be of the same prompts, got \{'tuned': 1, 'reference': 2\}"):
        mass_shift([[0.5]], [[0.5], [0.5]])
    with pytest.raises(ValueError, match=r"prompt 1: samples must be \[n\], n ≥ 1, got"):
        mass_shift([[0.5], []], [[0.5], [0.5]])
    with pytest.raises(ValueError, match=r"prompt 0: samples must be \[n\], n ≥ 1 and the same, got"):
        tilted_mass([[0.5, 1.0]], [[0.5]], beta=1.0)
    with pytest.raises(ValueError, match="beta must be > 0, got 0"):
        tilted_mass([[0.5]], [[0.5]], beta=0.0)
    with pytest.raises(ValueError, match="reward must be finite"):
        tilted_mass([[math.inf]], [[0.5]], beta=1.0)
    with pytest.raises(ValueError, match="one sample of p_ref, which meets no other"):
        borda_win_rates([[1.0]], gamma=1.0)
    with pytest.raises(ValueError, match="two prompts or more"):
        log_ratio_slope([[1.0, 2.0]], [[1.0, 2.0]])
    with pytest.raises(ValueError, match="does not vary within any prompt"):
        log_ratio_slope([[1.0, 2.0], [0.0]], [[1.0, 1.0], [5.0]])
    with pytest.raises(ValueError, match="must be finite: count"):
        log_ratio_slope([[1.0, -math.inf], [0.0]], [[1.0, 2.0], [5.0]])
    with pytest.raises(ValueError, match="must not be NaN"):
        tail([[math.nan, 0.0]])
    with pytest.raises(ValueError, match="at least one must be finite"):
        tail([[-math.inf]])
