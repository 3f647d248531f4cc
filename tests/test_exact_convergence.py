"""The study `convergence`: its tables against other code, its verdicts, what it refuses, and equal bytes."""

from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from scipy import stats
from studies import written_again

from prefdist.exact.bradley_terry import fit
from prefdist.exact.convergence_claims import _verdict
from prefdist.exact.learning_curves import draw_pairs, toy_worlds
from prefdist.exact.studies.convergence import convergence, run
from prefdist.exact.study import Study, write
from prefdist.style import RC

SMALL: dict[str, Any] = {
    "contexts": 2,
    "actions": 4,
    "gamma": 0.5,
    "spread": 0.3,
    "seeds": 6,
    "octaves": (6, 18),
    "slope_octaves": 4,
    "betas": [0.01, 0.1, 1.0],
    "fixed_betas": [1.0],
    "alphas": [0.5, 1.0],
    "ridge": 1e-3,
    "held_out": 0.25,
}
SIZES = [2**octave for octave in range(6, 19)]


@pytest.fixture(scope="module")
def study() -> Study:
    with matplotlib.rc_context(RC):
        return convergence(**SMALL)


def dpo_kl() -> np.ndarray:
    """KL(π*‖π) of π₀·e^{r̂/γ}, summed in NumPy: [N, S]."""
    toy = toy_worlds(contexts=2, actions=4, seeds=range(6), gamma=0.5, spread=0.3)
    weights = np.exp(toy.log_reference.numpy() + fit(draw_pairs(toy, SIZES, 0.25).every, 1e-3).numpy() / 0.5)
    target = np.exp(toy.log_target.numpy())
    policy = weights / weights.sum(-1, keepdims=True)
    kl: np.ndarray = (target * np.log(target / policy)).sum(-1).mean(-1)
    return kl


def test_curves_and_slopes_by_other_code(study: Study) -> None:
    kl = dpo_kl()
    key = ("DPO, RLHF", "none", "KL(π*‖π)")
    mine = [row for row in study.tables["convergence"] if (row["method"], row["β chosen by"], row["divergence"]) == key]
    assert [row["pairs"] for row in mine] == SIZES
    assert [row["estimate"] for row in mine] == pytest.approx(kl.mean(1), rel=1e-9)
    assert [row["median β"] for row in mine] == [0.5] * len(SIZES)
    low, high = stats.ttest_1samp(kl[-1], 0).confidence_interval(0.95)
    assert (mine[-1]["low"], mine[-1]["high"], mine[-1]["n"]) == (pytest.approx(low), pytest.approx(high), 6)
    slopes = [np.polyfit(np.log(SIZES[-5:]), np.log(column), 1)[0] for column in kl[-5:].T]
    (row,) = [r for r in study.tables["convergence_slopes"] if (r["method"], r["β chosen by"], r["divergence"]) == key]
    assert row["estimate"] == pytest.approx(np.mean(slopes), rel=1e-9)


def test_plateaus_by_other_code(study: Study) -> None:
    toy = toy_worlds(contexts=2, actions=4, seeds=range(6), gamma=0.5, spread=0.3)
    target = toy.log_target.exp()
    for name, beta, powers in (
        ("DPO, RLHF", 1.0, (1, 0.5)),
        ("SPL, α = 1", 1.0, (1, 0.5)),
        ("reverse KL", 1.0, (2 / 3, 1 / 3)),
    ):
        (row,) = [
            r
            for r in study.tables["convergence_plateaus"]
            if (r["method"], r["β chosen by"], r["median β"]) == (name, "fixed at 1", beta)
        ]
        limit = (powers[0] * toy.log_reference + powers[1] * toy.log_target).log_softmax(-1)
        kl = (target * (toy.log_target - limit)).sum(-1).mean()
        assert row["infinite data"] == pytest.approx(float(kl), rel=1e-9)
        assert row["excess"] == pytest.approx(row["estimate"] - row["infinite data"], rel=1e-9)


def test_oracle_is_least(study: Study) -> None:
    rows = {
        (r["method"], r["β chosen by"], r["pairs"]): r for r in study.tables["convergence"] if r["divergence"] == "KL(π*‖π)"
    }
    for (method, by, pairs), row in rows.items():
        assert rows[method, "oracle", pairs]["estimate"] <= row["estimate"], (method, by, pairs)


def test_verdicts(study: Study) -> None:
    verdicts = {claim.claim.split(":")[0].split(" (")[0]: claim.verdict for claim in study.claims}
    assert verdicts["DPO and RLHF do not learn π*"] == "holds"
    assert verdicts["SPL, α = 0.5 learns π*"] == "holds"
    assert verdicts["SPL, α = 1 learns π*"] == "fails"
    assert all(claim.verdict.split()[0] in ("holds", "fails") for claim in study.claims)


@pytest.mark.parametrize(
    ("true", "verdict"),
    [
        ([True] * 4, "holds"),
        ([False] * 4, "fails"),
        ([False, True, True, False], "holds under n = 4 … 8"),
        ([False, False, False, True], "holds under n = 16"),
        ([True, False, False, True], "holds under 2 of 4 n: 2, 16"),
    ],
)
def test_verdict_names_its_n(true: list[bool], verdict: str) -> None:
    assert _verdict(true, [2, 4, 8, 16]) == verdict


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"slope_octaves": 13}, "slope_octaves must be 1 … 12 for octaves 6 … 18, got 13"),
        ({"octaves": (18, 6)}, "slope_octaves must be"),
        ({"fixed_betas": [0.5]}, r"fixed_betas must be among betas \[0\.01, 0\.1, 1\.0\], got \[0\.5\]"),
        ({"held_out": 0.001}, r"held_out must leave pairs on both sides of 64, got 0\.001"),
    ],
)
def test_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        convergence(**SMALL | changed)


def test_equal_bytes(study: Study, tmp_path: Path) -> None:
    with matplotlib.rc_context(RC):
        write(study, tmp_path)
    files = written_again(run, SMALL, tmp_path)
    tables = {"convergence.csv", "convergence_slopes.csv", "convergence_plateaus.md", "claims.csv"}
    assert tables | {"convergence.svg"} <= set(files)


def test_uniform_prior_makes_dpo_learn_the_target() -> None:
    """A verdict that must turn: DPO's floor is π₀'s distance from uniform, so at a vanishing spread there is none to see."""
    with matplotlib.rc_context(RC):
        flat = convergence(**SMALL | {"spread": 1e-4, "octaves": (6, 10), "slope_octaves": 2, "seeds": 3})
    (claim,) = [claim for claim in flat.claims if claim.claim.startswith("DPO and RLHF")]
    assert claim.verdict == "fails"
    row = next(r for r in flat.tables["convergence_plateaus"] if r["method"] == "DPO, RLHF")
    assert row["infinite data"] <= 1e-7  # of order spread²
