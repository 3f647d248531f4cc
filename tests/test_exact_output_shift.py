"""prefdist.exact: mixtures tilted by a reward, counterexamples in fractions, conditions against loops in plain Python."""

import math
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from studies import written_again

from prefdist.exact.closed_forms import tilt
from prefdist.exact.counterexamples import COUNTEREXAMPLES
from prefdist.exact.mixtures import MOST_OUTPUTS, Mixtures, chunks, correlation, hypotheses, normal, random_mixtures
from prefdist.exact.shift_conditions import CONDITIONS, dominance, draw_monotone, draw_set, draw_threshold, spearman
from prefdist.exact.shift_identities import identities, limits
from prefdist.exact.shift_rates import measure
from prefdist.exact.studies.output_shift import output_shift, run

CE1, _, CE2, CE3 = COUNTEREXAMPLES
EPS = 1e-13  # of sums over a few outputs in float64


def tensor(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# ---- counterexamples -------------------------------------------------------------------------------------------------


def test_first_counterexample_in_whole_numbers() -> None:
    # Weights 2^{4r} = 1, 256, 4096: E_A = 0.9·256 + 0.1·4096 = 640, E_U = 0.7 + 0.3·4096 = 1229.5.
    exact = Fraction(640) / (640 + Fraction(2459, 2))
    assert CE1.rational_mass(16) == exact == Fraction(1280, 3739) < CE1.weight
    assert float(CE1.mixtures.aligned_mass(1 / (4 * math.log(2)))) == pytest.approx(float(exact), abs=EPS)


@pytest.mark.parametrize("example", COUNTEREXAMPLES, ids=lambda example: example.name)
def test_counterexamples_meet_the_hypotheses_of_numpy_and_lose_below_their_threshold(example) -> None:
    for component, sign in ((example.aligned, 1), (example.unaligned, -1)):
        assert sign * np.corrcoef(np.array(example.reward, float), np.array(component, float))[0, 1] > 0
    threshold = example.threshold()
    for step, sign in ((0.99, -1), (1.01, 1)):
        weights = np.exp(np.array(example.reward) / (step * threshold))
        assert sign * (np.array(example.aligned, float) - np.array(example.unaligned, float)) @ weights > 0


def test_first_threshold_by_hand() -> None:
    # 0.9x² + 0.1x³ = 0.7 + 0.3x³ with x = e^{1/β}: roots of 0.2x³ − 0.9x² + 0.7, of which 1 is β = ∞.
    root = max(np.roots([0.2, -0.9, 0, 0.7]).real)
    assert CE1.threshold() == pytest.approx(1 / math.log(root), abs=1e-11)  # of the root finder


def test_every_reading_of_the_hypotheses_holds_in_the_first_and_third() -> None:
    readings = [condition for condition in CONDITIONS if condition.kind == "another reading"]
    for example in (CE1, CE3):
        assert all(bool(reading.test(example.mixtures, tensor(0.1)).all()) for reading in readings)
    assert not bool(spearman(CE2.mixtures))  # ranks of p_A = (0, 1, 0) are tied


# ---- mixtures --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10**6), outputs=st.integers(2, 8), beta=st.sampled_from([0.01, 0.1, 1.0, 10.0]))
def test_tilted_mixture_against_loops(seed: int, outputs: int, beta: float) -> None:
    world = normal(1, outputs, generator(seed))
    aligned, unaligned, reward = (row[0].tolist() for row in (world.aligned, world.unaligned, world.reward))
    alpha = float(world.weight)
    best = max(reward)
    parts = [0.0, 0.0]
    for p_a, p_u, r in zip(aligned, unaligned, reward, strict=True):
        weight = math.exp((r - best) / beta)
        parts[0] += alpha * p_a * weight
        parts[1] += (1 - alpha) * p_u * weight
    # r/β reaches 400, whose rounding alone is 6e-14.
    assert float(world.aligned_mass(beta)) == pytest.approx(parts[0] / sum(parts), abs=1e-12)
    by_odds = math.log(parts[0] / parts[1]) - math.log(alpha / (1 - alpha))
    assert float(world.gain(tensor(beta))) == pytest.approx(by_odds, abs=1e-11, rel=1e-11)


def test_identities_hold_for_the_tilt_and_not_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = normal(200, 5, generator())
    assert all(float(deviation.max()) < 1e-12 for deviation in identities(drawn, 0.3).values())
    assert all(float(deviation.max()) < 1e-4 for deviation in limits(drawn).values())  # Var(r)/HOT, and rounding

    def hotter(*args: torch.Tensor, temperature: float, ref_power: float) -> torch.Tensor:
        return tilt(*args, temperature=2 * temperature, ref_power=ref_power)

    monkeypatch.setattr("prefdist.exact.shift_identities.tilt", hotter)
    lemma, proper, *_, slope = identities(drawn, 0.3).values()
    assert min(float(deviation.max()) for deviation in (lemma, proper, slope)) > 0.01


def test_smallest_temperatures_do_not_overflow() -> None:
    drawn = normal(50, 100, generator())
    best = drawn.responsibility.gather(-1, drawn.reward.argmax(-1, keepdim=True)).squeeze(-1)
    torch.testing.assert_close(drawn.aligned_mass(1e-9), best, atol=1e-6, rtol=0)  # r/β = 1e9 rounds to 1e-7
    assert bool(drawn.gain(tensor(1e-9)).isfinite().all())


def test_correlations_against_scipy() -> None:
    drawn = random_mixtures(40, 5, "integers", generator(3))
    varies = drawn.reward.std(-1) > 0
    drawn = drawn[varies]
    pearson = [stats.pearsonr(r, p).statistic for r, p in zip(drawn.reward, drawn.aligned, strict=True)]
    torch.testing.assert_close(correlation(drawn.reward, drawn.aligned), tensor(*pearson), atol=EPS, rtol=0)
    rank = [
        [stats.spearmanr(r, p).statistic for r, p in zip(drawn.reward, component, strict=True)]
        for component in (drawn.aligned, drawn.unaligned)
    ]
    # Integer rewards are tied: SciPy gives ties their mean rank, too.
    assert spearman(drawn).tolist() == [a > 1e-12 and u < -1e-12 for a, u in zip(*rank, strict=True)]
    assert bool(correlation(tensor(1, 1, 1), tensor(0.2, 0.3, 0.5)).isnan())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"aligned": tensor(0.5, 0.4)}, r"aligned must be ≥ 0 and sum to one: off by 0.1, limit 1e-05"),
        ({"unaligned": tensor(1.2, -0.2)}, r"unaligned must be ≥ 0"),
        ({"weight": tensor(1.0).squeeze()}, r"weight must lie in \(0, 1\), got 1"),
        ({"reward": tensor(0.0, -math.inf)}, r"reward must be finite"),
    ],
)
def test_what_is_no_mixture_is_refused(change: dict[str, torch.Tensor], message: str) -> None:
    good = {"aligned": tensor(0.5, 0.5), "unaligned": tensor(0.9, 0.1), "reward": tensor(0, 1), "weight": tensor(0.5).squeeze()}
    with pytest.raises(ValueError, match=message):
        Mixtures(**{name: value.unsqueeze(0) for name, value in (good | change).items()})


def test_bad_parameters_are_refused() -> None:
    for outputs in (1, MOST_OUTPUTS + 1):
        with pytest.raises(ValueError, match=rf"outputs must be 2 … {MOST_OUTPUTS}, got {outputs}"):
            output_shift(worlds=1, outputs=[outputs])
    with pytest.raises(ValueError, match=r"rewards must be one of normal, .*got 'cauchy'"):
        output_shift(worlds=1, outputs=[2], rewards=["cauchy"])
    with pytest.raises(ValueError, match=r"betas must be > 0, got 0"):
        output_shift(worlds=1, betas=[0.0, 1.0])


# ---- conditions ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: f"{condition.kind}: {condition.name}")
def test_only_corrected_conditions_are_enough(condition) -> None:
    betas = tensor(0.05, 0.5, 5.0)
    drawn = condition.draw(4000, 4, generator(1))
    met = condition.test(drawn, betas)
    weights = np.exp((drawn.reward.numpy() - drawn.reward.numpy().max(-1, keepdims=True)) / betas.numpy()[:, None, None])
    lead = ((drawn.aligned - drawn.unaligned).numpy() * weights).sum(-1)
    lost = int((met.numpy() & (lead < -EPS)).sum())
    assert met.sum() > 100
    assert (lost == 0) == (condition.kind == "corrected")


def test_dominance_by_hand() -> None:
    reward = tensor(0, 1, 1, 2)
    # P(r ≥ 2), P(r ≥ 1): 0.3, 0.8 against 0.2, 0.9; then against 0.2, 0.8 with the tie's mass the other way round.
    first = (tensor(0.2, 0.3, 0.2, 0.3), tensor(0.1, 0.3, 0.4, 0.2))
    second = (tensor(0.2, 0.5, 0.0, 0.3), tensor(0.2, 0.0, 0.6, 0.2))
    aligned, unaligned = (torch.stack(rows) for rows in zip(first, second, strict=True))
    assert dominance(Mixtures(aligned, unaligned, reward.expand(2, -1), tensor(0.5, 0.5))).tolist() == [False, True]


def test_laws_of_special_worlds() -> None:
    ratio = draw_monotone(100, 5, generator())
    order = ratio.reward.argsort(-1)
    assert bool(((ratio.aligned / ratio.unaligned).gather(-1, order).diff(dim=-1) >= 0).all())
    threshold, any_set = draw_threshold(100, 5, generator()), draw_set(100, 5, generator())
    for split in (threshold, any_set):
        inside = split.aligned > 0
        assert bool(((split.aligned > 0) ^ (split.unaligned > 0)).all())
        assert set(inside.sum(-1).tolist()) == {1, 2, 3, 4}
        torch.testing.assert_close((split.reference * inside).sum(-1), split.weight, atol=EPS, rtol=0)
    highest = threshold.reward.masked_fill(threshold.aligned > 0, -math.inf).amax(-1)
    assert bool((threshold.reward.masked_fill(threshold.aligned == 0, math.inf).amin(-1) > highest).all())


# ---- rates and the study ---------------------------------------------------------------------------------------------


def test_rates_are_those_of_numpy() -> None:
    betas = tensor(0.1, 1.0)
    cell = measure("normal", 5, betas, 1000, generator(2))
    drawn = random_mixtures(20_000, 5, "normal", generator(2))  # the same draws, all of one chunk
    met = [
        index
        for index in range(6000)
        if np.corrcoef(drawn.reward[index], drawn.aligned[index])[0, 1]
        > 0
        > np.corrcoef(drawn.reward[index], drawn.unaligned[index])[0, 1]
    ][:1000]
    assert bool(hypotheses(drawn)[met].all()) and cell.n == len(met) == 1000
    for index, beta in enumerate(betas.tolist()):
        weights = np.exp((drawn.reward[met] - drawn.reward[met].amax(-1, keepdim=True)).numpy() / beta)
        aligned, unaligned = (weights * component[met].numpy() for component in (drawn.aligned, drawn.unaligned))
        lost = aligned.sum(-1) < unaligned.sum(-1)
        alpha = drawn.weight[met].numpy()
        mass = alpha * aligned.sum(-1) / (alpha * aligned.sum(-1) + (1 - alpha) * unaligned.sum(-1))
        assert int(cell.violations[index]) == lost.sum() > 10
        np.testing.assert_allclose(cell.shortfall[index], (1 - mass / alpha)[lost], atol=1e-11)  # 1 − x loses digits
        step = [np.corrcoef(w, p)[0, 1] < 0 for w, p in zip(weights, drawn.aligned[met].numpy(), strict=True)]
        assert int(cell.step_aligned[index]) == sum(step) > 50


def test_chunks_hold_all_worlds() -> None:
    assert [len(drawn) for drawn in chunks(normal, [50, 100], 2500, generator())] == [2000, 500, 1000, 1000, 500]


def test_two_outputs_and_two_rewards_never_violate() -> None:
    for law, outputs in (("normal", 2), ("binary", 5)):
        assert measure(law, outputs, tensor(0.01, 0.1, 1), 5000, generator()).violations.tolist() == [0, 0, 0]


def test_study_writes_the_same_bytes_twice(tmp_path: Path) -> None:
    spec = {"worlds": 300, "outputs": [2, 3], "pooled": [3, 4], "rewards": ["normal"], "betas": [0.1, 1.0], "seed": 1}
    run(spec, {}, tmp_path, tmp_path)
    files = written_again(run, spec, tmp_path)
    assert {"output_shift.csv", "output_shift.md", "output_shift.svg", "claims.csv"} <= set(files)


def test_verdicts() -> None:
    study = output_shift(worlds=500, outputs=[2, 4], pooled=[3, 4], rewards=["normal"], betas=[0.1, 1.0])
    assert [claim.verdict for claim in study.claims] == ["holds", "fails", "fails", "fails", "holds under each of them"]
    assert "1280/3739" in study.claims[1].measured
