"""prefdist.exact.coverage, finite_classes, powers and the study `coverage`: fractions, secular equation, brute force."""

import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq, minimize
from studies import SHAPE, logs, written_again

from prefdist.exact.coverage import between, bound, coverages, linear_coverage, log_constant
from prefdist.exact.coverage_cells import simulate
from prefdist.exact.finite_classes import draw_wins, random_classes
from prefdist.exact.powers import fitted_power
from prefdist.exact.studies.coverage import coverage, run
from prefdist.exact.study import write
from prefdist.style import RC

SMALL: dict[str, Any] = SHAPE | {
    "worlds": 30,
    "gamma": 0.5,
    "gammas": [0.5, 1.0],
    "shifts": [0.0, 1.0],
    "pairs": [16, 64],
    "delta": 0.1,
}


def laws(seed: int, size: int, spread: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    target, mu = (spread * torch.randn((2, size), generator=generator, dtype=torch.float64)).log_softmax(-1)
    return target, mu


def test_two_responses_in_fractions() -> None:
    """One direction up to scale: d = (1, 0), under μ = (¼, ¾) centred (¾, −¼); E_π* with π* = (¾, ¼), over E_μ."""
    expected = (Fraction(3, 4) * Fraction(9, 16) + Fraction(1, 4) * Fraction(1, 16)) / (Fraction(1, 4) * Fraction(3, 4))
    assert expected == Fraction(7, 3)
    direction = torch.tensor([[1.0, 0.0], [-3.0, 7.0], [2.0, 2.0]], dtype=torch.float64)
    found = coverages(direction, logs(0.75, 0.25), logs(0.25, 0.75)).tolist()
    assert found == pytest.approx([7 / 3, 7 / 3, 0], abs=1e-14)  # a dozen operations on numbers of order 1
    assert float(linear_coverage(logs(0.75, 0.25), logs(0.25, 0.75))) == pytest.approx(7 / 3, abs=1e-14)


@settings(deadline=None)
@given(seed=st.integers(0, 10_000), size=st.integers(3, 8), spread=st.floats(0.3, 2))
def test_linear_class_by_the_secular_equation(seed: int, size: int, spread: float) -> None:
    """Lagrange: π*_a·d_a = λ·μ_a·d_a + κ·μ_a with μ·d = 0, so that Σ μ²/(π* − λ·μ) = 0; λ below the largest π*/μ."""
    log_target, log_mu = laws(seed, size, spread)
    target, mu = log_target.exp().numpy(), log_mu.exp().numpy()
    second, largest = np.sort(target / mu)[-2:]
    gap = largest - second
    root = brentq(lambda c: float((mu**2 / (target - c * mu)).sum()), second + 1e-9 * gap, largest - 1e-9 * gap, xtol=1e-13)
    # Eigenvalues of a symmetric matrix are known to 1e-16 of its norm, the largest ratio; the root to the excluded ends.
    assert float(linear_coverage(log_target, log_mu)) == pytest.approx(root, rel=1e-8)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), spread=st.floats(0.3, 2))
def test_linear_class_bounds_random_search_and_is_reached(seed: int, spread: float) -> None:
    log_target, log_mu = laws(seed, 5, spread)
    most = float(linear_coverage(log_target, log_mu))
    directions = torch.randn((2000, 5), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = coverages(directions, log_target, log_mu)
    assert float(found.max()) <= most * (1 + 1e-9)  # rounding

    def loss(d: np.ndarray) -> float:
        return -float(coverages(torch.from_numpy(d)[None], log_target, log_mu))

    start = directions[found.argmax()].numpy()
    climbed = -minimize(loss, start, method="BFGS").fun
    # Near its top the ratio is quadratic, and gradients by differences of 1e-8 leave it that near.
    assert climbed == pytest.approx(most, rel=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000), scale=st.floats(0.1, 10), shift=st.floats(-5, 5))
def test_coverage_knows_neither_scale_nor_constant(seed: int, scale: float, shift: float) -> None:
    log_target, log_mu = laws(seed, 6, 1.0)
    directions = torch.randn((4, 6), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = coverages(directions, log_target, log_mu)
    # A constant of 5 beside differences of 0.1 costs two digits.
    torch.testing.assert_close(coverages(scale * directions + shift, log_target, log_mu), expected, rtol=1e-9, atol=0)
    torch.testing.assert_close(coverages(directions, log_mu, log_mu), torch.ones_like(expected), rtol=1e-12, atol=0)


def test_policies_have_the_coverage_of_their_direction() -> None:
    """The normaliser of π ∝ π*·e^{s·d} is a constant, and so is not seen."""
    classes = random_classes(worlds=6, **SHAPE)
    log_mu = between(classes.log_target, classes.log_far, 0.7)
    of_policies = coverages(classes.log_policies - classes.log_target.unsqueeze(1), classes.log_target, log_mu)
    of_directions = coverages(classes.directions, classes.log_target, log_mu).repeat_interleave(4, dim=1)
    # Differences of ln π of at least 0.1 are left of logarithms of order 10.
    torch.testing.assert_close(of_policies[:, :-1], of_directions, rtol=1e-10, atol=0)


def test_path_of_mu() -> None:
    target, far = logs(0.8, 0.2), logs(0.2, 0.8)
    np.testing.assert_allclose(between(target, far, 0.5).exp(), [0.5, 0.5], atol=1e-15)
    np.testing.assert_allclose(between(target, far, 0.0).exp(), [0.8, 0.2], atol=1e-15)
    np.testing.assert_allclose(between(target, far, 1.0).exp(), [0.2, 0.8], atol=1e-15)


def test_bound_and_constant_by_hand() -> None:
    found = bound(torch.tensor(3.0, dtype=torch.float64), 20, gamma=0.5, pairs=100, delta=0.2)
    assert float(found) == pytest.approx(3 * math.log(100) / 25, abs=1e-15)
    for radius in (0.1, 1.0, 5.0):
        z = math.exp(4 * radius)
        psi = (z - 1 - math.log(z)) / math.log(z) ** 2
        constant = max(0.5, psi) * 16 * (2 * radius**2 * z + 3) * math.exp(4 * 0.3 * radius)
        found = log_constant(torch.tensor(radius, dtype=torch.float64), 0.3)
        assert float(found) == pytest.approx(math.log(constant), abs=1e-12)  # ψ at R = 0.1 loses two digits


def test_power_of_a_power_law() -> None:
    """y = 3·x^{−2} in every world, whichever are resampled; with noise the interval holds it and is not empty."""
    x = np.array([1.0, 2.0, 8.0])[:, None] * np.ones((3, 40))
    exact = fitted_power(x, 3 * x**-2, seed=0)
    assert exact == pytest.approx({"estimate": -2, "low": -2, "high": -2, "n": 40}, abs=1e-12)  # a dozen operations
    noisy = fitted_power(x, 3 * x**-2 * np.random.default_rng(1).exponential(size=x.shape), seed=0)
    assert noisy["low"] < -2 < noisy["high"]
    # Relative errors of 40^{−½} each, x from 1 to 8: sd of a slope is 40^{−½} over the root of Σ (ln x − mean)², 1.4.
    assert 2 * 1.96 * 0.158 / 1.5 / 2 < noisy["high"] - noisy["low"] < 2 * 1.96 * 0.158 / 1.5 * 2


def test_refused() -> None:
    direction, half = torch.zeros((1, 2), dtype=torch.float64), logs(0.5, 0.5)
    with pytest.raises(ValueError, match=r"log_target must sum to one .*limit 1e-05"):
        coverages(direction, half - 1, half)
    with pytest.raises(ValueError, match=r"log_mu must sum to one .*limit 1e-05"):
        linear_coverage(half, half + 1)
    with pytest.raises(ValueError, match="log_mu has zero support"):
        coverages(direction, half, logs(1.0, 0.0))
    with pytest.raises(ValueError, match=r"shift must lie in \[0, 1\], got 1\.1"):
        between(half, half, 1.1)
    with pytest.raises(ValueError, match=r"delta must lie in \(0, 1\), got 1"):
        bound(torch.ones(1), 5, gamma=1.0, pairs=5, delta=1.0)
    with pytest.raises(ValueError, match="gamma must be > 0 and pairs ≥ 1, got 0 and 5"):
        bound(torch.ones(1), 5, gamma=0.0, pairs=5, delta=0.1)
    with pytest.raises(ValueError, match="radius must be > 0, got 0"):
        log_constant(torch.zeros(1), 0.5)
    with pytest.raises(ValueError, match="pairs must be ≥ 1, got 0"):
        draw_wins(half[None], half[None], 0, np.random.default_rng(0))
    with pytest.raises(ValueError, match=r"outputs must be 2 … 1000, got 1001"):
        random_classes(worlds=1, **SHAPE | {"actions": 1001})
    with pytest.raises(ValueError, match="two cells or more, got 1"):
        fitted_power([[1.0]], [[1.0]], seed=0)
    with pytest.raises(ValueError, match="means must be > 0, got 0"):
        fitted_power([[1.0], [2.0]], [[1.0], [0.0]], seed=0)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"shifts": [0.5, 1.0]}, r"shifts must hold 0 and a larger one, got \[0\.5, 1\.0\]"),
        ({"shifts": [0.0]}, r"shifts must hold 0 and a larger one, got \[0\.0\]"),
        ({"directions": 6}, "directions must be a multiple of 4, got 6"),
    ],
)
def test_study_refuses_what_its_claims_need(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        coverage(**SMALL | changed)


def test_study_on_a_small_scale(tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        study = coverage(**SMALL)
        write(study, tmp_path)
    assert study.claims[0].verdict == "holds"
    classes = random_classes(worlds=30, **SHAPE)
    first, *_ = study.tables["coverage"]
    cell = simulate(classes, 0.0, 16, 0.5, [0, 0])
    learned = cell.pmle["all"]
    assert first["estimate"] == pytest.approx(float(learned.error.mean()), abs=1e-14)
    # C is 1 where μ = π*; 33 policies, δ = 0.1, γ²·n = 4.
    assert first["mean bound"] == pytest.approx(math.log(330) / 4, abs=1e-12)
    share = learned.error.numpy() / (math.log(330) / 4)
    assert first["constant needed"] == pytest.approx(np.quantile(share, 0.9), abs=1e-12)
    for row in study.tables["coverage_rewards"]:
        if (row["rewards"], row["t"]) == ("of the best covered quarter of directions", 0.0):
            # ln(33/δ)/n of prompts, and ln(9/δ)/(γ²·n) of 9 rewards with C_R = 1.
            expected = math.log(330) / row["pairs"] + math.log(90) / (row["pairs"] / 4)
            assert row["mean bound"] == pytest.approx(expected, abs=1e-12)
    written_again(run, SMALL, tmp_path)
