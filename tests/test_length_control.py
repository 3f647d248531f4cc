"""AlpacaEval's length-controlled win rate: against scikit-learn's cross-validation, against known truth, and on real data."""

import csv
import gzip
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import sklearn
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegressionCV
from sklearn.metrics import make_scorer
from sklearn.model_selection import GroupKFold

from prefdist.errors import UserError
from prefdist.judging.length_control import STRENGTHS, Gamed, _fit, fit, length_controlled, read_gamed

Array = npt.NDArray[np.float64]
DATA = Path(__file__).resolve().parents[2] / "shared/data/alpaca_eval/ae2_preferences_12_models.csv.gz"
# Published with the leaderboard of AlpacaEval 2: length-controlled win rate; weights of tanh(Δ), difficulty, constant.
PUBLISHED = {
    "Qwen-14B-Chat": (12.379, -1.9363, 1.1516, -2.8246),
    "alpaca-7b_verbose": (6.816, -1.8937, 0.5782, -2.9194),
    "claude": (27.290, -1.8570, 0.9762, -1.2349),
    "falcon-40b-instruct": (5.608, -1.8850, 0.9649, -3.7157),
    "gpt-3.5-turbo-1106_verbose": (22.001, -1.9027, 1.0984, -1.7228),
    "oasst-sft-pythia-12b": (3.270, -1.8115, 0.8352, -4.1448),
    "openbuddy-llama2-13b-v11.1": (9.159, -2.0359, 1.1468, -3.3147),
    "ultralm-13b": (7.108, -1.6644, 1.0038, -3.4611),
    "vicuna-7b-v1.3": (7.156, -1.9052, 1.0035, -3.4511),
    "wizardlm-13b": (9.828, -1.8368, 1.0170, -3.0119),
}


def _problem(rng: np.random.Generator, n: int) -> tuple[Array, Array, Array]:
    features = np.column_stack([np.tanh(rng.normal(size=n)), rng.normal(size=n), rng.integers(0, 2, n).astype(float)])
    targets = expit(features @ [-1.5, 0.8, 0.5] + rng.normal(size=n))
    return features, targets, rng.choice([0.1, 1.0], n)


def test_cross_validation_is_scikit_learns() -> None:
    """LogisticRegressionCV with doubled rows, grouped folds and a scorer of soft log loss, as AlpacaEval calls it."""
    features, targets, weights = _problem(np.random.default_rng(0), 150)

    def score(wins: Array, predicted: Array, true_prob: Array, true_weight: Array) -> float:
        truth = np.where(wins == 1, true_prob, 1 - true_prob)
        return float(-np.mean(true_weight * (truth * np.log(predicted) + (1 - truth) * np.log(1 - predicted))))

    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(score, response_method="predict_proba", greater_is_better=False)
        scorer = scorer.set_score_request(true_prob=True, true_weight=True)
        model = LogisticRegressionCV(
            Cs=10,
            cv=GroupKFold(5),
            scoring=scorer,
            l1_ratios=(1.0,),
            solver="liblinear",
            fit_intercept=False,
            random_state=123,
            use_legacy_attributes=False,
        ).set_fit_request(sample_weight=True)
        doubled = np.concatenate([targets, 1 - targets])
        both = np.concatenate([weights, weights])
        model.fit(
            np.concatenate([features, features]),
            np.repeat([1, 0], len(targets)),
            sample_weight=doubled * both,
            groups=np.tile(np.arange(len(targets)), 2),
            true_prob=doubled,
            true_weight=both,
        )
    assert fit(features, targets, weights) == pytest.approx(model.coef_[0], abs=1e-12)


@pytest.mark.parametrize("strength", [0.05, 1.0, 100.0])
def test_the_regression_is_the_penalised_optimum(strength: float) -> None:
    """‖w‖₁ + C·Σ weight·cross-entropy, minimised by a general optimiser over w = u − v, u and v ≥ 0."""
    features, targets, weights = _problem(np.random.default_rng(1), 200)

    def objective(both: Array) -> float:
        logits = features @ (both[:3] - both[3:])
        losses = np.logaddexp(0, -logits) + (1 - targets) * logits
        return float(both.sum() + strength * (weights * losses).sum())

    best = minimize(
        objective, np.full(6, 0.1), bounds=[(0, None)] * 6, method="L-BFGS-B", options={"ftol": 1e-14, "gtol": 1e-8}
    )
    # liblinear stops at a tolerance of 1e-4 of its own measure
    assert _fit(features, targets, weights, strength, np.random.RandomState(0)) == pytest.approx(
        best.x[:3] - best.x[3:], abs=5e-3
    )


def test_a_judge_that_counts_length_is_controlled_for() -> None:
    """Preferences of a known model: weight −2 of tanh(Δ), quality 0.4. Longer answers win; equally long ones in 60 %."""
    rng = np.random.default_rng(2)
    baseline, answer = rng.integers(200, 2000, 3000), rng.integers(600, 2600, 3000)
    delta = (baseline - answer) / (baseline - answer).std(ddof=1)
    wins = expit(-2.0 * np.tanh(delta) + 0.4)
    found = length_controlled((1 + wins).tolist(), baseline.tolist(), answer.tolist())
    assert 100 * wins.mean() > 68
    # the penalty shrinks a little
    assert found.win_rate == pytest.approx(100 * expit(0.4), abs=0.5)
    assert found.length == pytest.approx(-2.0, abs=0.05)
    assert found.difficulty is None
    assert set(found.preferences.round(12)) == {round(found.win_rate / 100, 12)}


def test_gamed_rows_pull_and_missing_ones_are_predicted() -> None:
    rng = np.random.default_rng(3)
    difficulty = rng.normal(size=200)
    baseline, answer = rng.integers(200, 2000, 200), rng.integers(200, 2000, 200)
    delta = (baseline - answer) / (baseline - answer).std(ddof=1)
    wins = expit(-1.0 * np.tanh(delta) + 1.2 * difficulty - 0.5)
    gamed_delta = rng.normal(size=400)
    known = {i: float(value) for i, value in enumerate(difficulty)}
    gamed = Gamed(expit(-3.0 * np.tanh(gamed_delta)), gamed_delta, np.tile(difficulty, 2), known)
    preferences: list[float | None] = (1 + wins).tolist()
    arguments = (baseline.tolist(), answer.tolist())
    none = Gamed(np.zeros(0), np.zeros(0), np.zeros(0), known)
    alone = length_controlled(preferences, *arguments, instructions=range(200), gamed=none)
    pulled = length_controlled(preferences, *arguments, instructions=range(200), gamed=gamed)
    assert alone.difficulty is not None
    assert (alone.length, alone.difficulty, alone.constant) == pytest.approx((-1.0, 1.2, -0.5), abs=0.05)
    assert alone.win_rate == pytest.approx(100 * expit(1.2 * difficulty - 0.5).mean(), abs=0.5)
    assert -3.0 < pulled.length < alone.length - 0.05
    preferences[7] = None
    again = length_controlled(preferences, *arguments, instructions=range(200), gamed=none)
    assert again.preferences[7] == pytest.approx(expit(1.2 * difficulty[7] - 0.5), abs=0.01)


def test_bad_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs 5 preferences or more, found 1"):
        length_controlled([1.0, None], [1, 2], [3, 5])
    with pytest.raises(UserError, match="lengths that differ"):
        length_controlled([1.0] * 6, [10] * 6, [12] * 6)
    gamed = Gamed(np.zeros(0), np.zeros(0), np.zeros(0), {0: 0.5})
    with pytest.raises(UserError, match="no difficulty of instruction 1"):
        length_controlled([1.0] * 6, [10] * 6, list(range(6)), instructions=range(6), gamed=gamed)
    with pytest.raises(ValueError, match="go together"):
        length_controlled([1.0] * 6, [10] * 6, list(range(6)), gamed=gamed)
    with pytest.raises(UserError, match=r"no such file; it is part of the dataset tatsu-lab/alpaca_eval"):
        read_gamed(tmp_path / "df_gamed.csv")
    (tmp_path / "df_gamed.csv").write_text("index,preference\n0,0.5\n")
    with pytest.raises(UserError, match="std_delta_len, instruction_difficulty are needed"):
        read_gamed(tmp_path / "df_gamed.csv")


def test_gamed_rows_without_a_preference_keep_their_difficulty(tmp_path: Path) -> None:
    file = tmp_path / "df_gamed.csv"
    file.write_text(
        "index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline\n"
        "0,v,0.25,1.5,-0.5,False\n1,v,,2.0,0.75,False\n0,c,0.5,-1.0,-0.5,False\n"
    )
    found = read_gamed(file)
    assert found.preference.tolist() == [0.25, 0.5]
    assert found.delta.tolist() == [1.5, -1.0]
    assert found.difficulty.tolist() == [-0.5, -0.5]
    assert found.of_instruction == {0: -0.5, 1: 0.75}


@pytest.fixture(scope="module")
def judged() -> dict[str, tuple[Array, Array, Array]]:
    """Of each published model its preferences in [0, 1], NaN where missing, and both lengths, by instruction [805]."""
    if not DATA.is_file():
        pytest.skip("AlpacaEval's annotations are not there")
    found = {name: tuple(np.full(805, np.nan) for _ in range(3)) for name in PUBLISHED}
    with gzip.open(DATA, "rt") as lines:
        for row in csv.DictReader(lines):
            if row["model"] in found:
                values = (float(row["preference"] or "nan") - 1, float(row["len_1"]), float(row["len_2"]))
                for column, value in zip(found[row["model"]], values, strict=True):
                    column[int(row["row"])] = value
    return found


def _difficulties(judged: dict[str, tuple[Array, Array, Array]], left_out: str) -> Array:
    """[805] what the other models' preferences and published weights say of an instruction: mode under N(0, 2²), on a grid."""
    grid = np.linspace(-6, 6, 241)
    loss = np.tile(0.5 * (grid / 2.0) ** 2, (805, 1))
    for name, (wins, baseline, answer) in judged.items():
        if name != left_out:
            _, length, difficulty, constant = PUBLISHED[name]
            delta = (baseline - answer) / np.nanstd(baseline - answer, ddof=1)
            there = np.isfinite(wins)
            logits = (length * np.tanh(delta[there]) + constant)[:, None] + difficulty * grid
            loss[there] += np.logaddexp(0, -logits) + (1 - wins[there, None]) * logits
    return grid[loss.argmin(axis=1)]


@pytest.mark.parametrize("model", ["claude", "Qwen-14B-Chat", "vicuna-7b-v1.3", "oasst-sft-pythia-12b"])
def test_real_annotations_come_close_to_the_leaderboard(judged: dict[str, tuple[Array, Array, Array]], model: str) -> None:
    """Without AlpacaEval's file: difficulties are estimated from nine other models, and there are no gamed rows.

    Within 2.6 points for all ten. Lengths alone are far off, so this holds the difficulty term, the coding and the sign of Δ.
    """
    wins, baseline, answer = judged[model]
    there = np.flatnonzero(np.isfinite(baseline))
    estimated = _difficulties(judged, model)
    gamed = Gamed(np.zeros(0), np.zeros(0), np.zeros(0), {i: float(estimated[i]) for i in range(805)})
    preferences = [None if np.isnan(value) else 1 + value for value in wins[there]]
    found = length_controlled(
        preferences, baseline[there].tolist(), answer[there].tolist(), instructions=there.tolist(), gamed=gamed
    )
    win_rate, length, difficulty, constant = PUBLISHED[model]
    assert found.win_rate == pytest.approx(win_rate, abs=3.0)
    assert (found.length, found.difficulty, found.constant) == pytest.approx((length, difficulty, constant), abs=0.5)


def test_lengths_alone_are_another_number(judged: dict[str, tuple[Array, Array, Array]]) -> None:
    """Why `length_controlled_plain` has a name of its own."""
    wins, baseline, answer = judged["claude"]
    found = length_controlled((1 + wins).tolist(), baseline.tolist(), answer.tolist())
    assert found.win_rate > PUBLISHED["claude"][0] + 5.0


def test_ten_strengths() -> None:
    assert pytest.approx([1e-4, 1e4]) == [STRENGTHS[0], STRENGTHS[-1]]
    assert len(STRENGTHS) == 10
