"""What teachers are found to be, and what the results say of both: against sums by hand, on real tiny models and tables."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from ranking_inputs import (
    BETA_TEACHER,
    GAMMA,
    IDS,
    KNOWN,
    LIKELIHOODS,
    N_WAY,
    PAIRS,
    PAIRWISE,
    REWARD,
    N,
    answers,
    law,
    sigmoid,
    write_inputs,
    write_models,
)
from torch import Tensor

from prefdist import artefacts
from prefdist.data import tables
from prefdist.evaluation import teacher
from prefdist.evaluation.statistics import reliability_bins
from prefdist.results import distillation
from prefdist.results.figures_distillation import panels, reliabilities, shown
from prefdist.results.metrics import STUDENT, TEACHER
from prefdist.results.tables import Cell, main_table, present

TEACHER_REWARD = REWARD | {"alpha": 0.4}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def inputs(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(models, tmp_path_factory.mktemp("inputs"))


def judge(inputs: dict[str, Path], out: Path, gamma: float | None = GAMMA) -> Path:
    out.mkdir()
    spec = {"n": N, "reward": TEACHER_REWARD, "gamma": gamma, "beta_teacher": BETA_TEACHER}
    teacher.run(spec, inputs, out, out)
    return out


def selection(prompt_id: str, asked: dict[tuple[int, ...], list[float]], only: int | None) -> list[float]:
    """ln of each option's mean share of the letters, over the first questions (all: None)."""
    shares: dict[int, list[float]] = {}
    for options, p in list(asked.items())[:only]:
        found = answers(prompt_id, p)
        for i, x in zip(options, found, strict=True):
            shares.setdefault(i, []).append(x / sum(found))
    return [math.log(sum(shares[i]) / len(shares[i])) for i in range(N)]


def readings(prompt_id: str) -> dict[str, list[float]]:
    found = {
        "likelihood": LIKELIHOODS[prompt_id],
        "n_way, fixed": selection(prompt_id, N_WAY, 1),
        "n_way, averaged": selection(prompt_id, N_WAY, None),
        "pairwise, fixed": selection(prompt_id, PAIRWISE, len(PAIRS)),
        "pairwise, averaged": selection(prompt_id, PAIRWISE, None),
    }
    both = zip(found["likelihood"], found["n_way, averaged"], strict=True)
    return found | {"calibrated": [0.6 * r + 0.4 * p for r, p in both]}


def test_teacher_metrics(inputs: dict[str, Path], tmp_path: Path) -> None:
    out = judge(inputs, tmp_path / "out")
    rows = tables.read_table(out / "metrics.parquet", tables.METRICS)
    found = {(row["run"], row["prompt_id"], row["metric"]): row["value"] for row in rows}
    assert len(found) == len(rows) == 6 * 4 * 4
    pairs = tables.read_table(out / "pairs.parquet", tables.TEACHER_PAIRS)
    stored = {(row["reward"], row["prompt_id"], row["pair"]): row for row in pairs}
    assert len(stored) == 6 * 4 * 6
    for prompt_id in IDS:
        for name, reward in readings(prompt_id).items():
            scores, known = [BETA_TEACHER * r for r in reward], [GAMMA * x for x in KNOWN[prompt_id]]
            rankings = law(scores).values()
            entropy = -sum(p * math.log(p) for p in rankings) / math.log(24)
            assert found[name, prompt_id, "entropy"] == pytest.approx(entropy, abs=1e-6)
            right, kl, brier = [], [], []
            for k, (i, j) in enumerate(PAIRS):
                row = stored[name, prompt_id, k]
                p, q = sigmoid(known[i] - known[j]), sigmoid(scores[i] - scores[j])
                assert (row["p_known"], row["p_model"]) == pytest.approx((p, q), abs=1e-6)
                assert row["first_wins"] == stored["likelihood", prompt_id, k]["first_wins"]  # one draw for all rewards
                right.append((p > 0.5 and q > 0.5) or (p < 0.5 and q < 0.5))
                kl.append(p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
                brier.append((q - row["first_wins"]) ** 2)
            assert found[name, prompt_id, "accuracy_known"] == pytest.approx(sum(right) / 6)
            assert found[name, prompt_id, "kl_known"] == pytest.approx(sum(kl) / 6, abs=1e-6)
            assert found[name, prompt_id, "brier"] == pytest.approx(sum(brier) / 6, abs=1e-6)
    assert found["likelihood", "p3", "entropy"] == pytest.approx(1.0)


def test_labels_are_drawn_from_the_known_preferences() -> None:
    """20,000 pairs of one margin: the share of wins is within four standard errors of σ(margin)."""
    for margin in (-2.0, 0.0, 1.0):
        wins = teacher._labels(torch.full((2000, 10), margin, dtype=torch.float64)).mean()
        p = sigmoid(margin)
        assert float(wins) == pytest.approx(p, abs=4 * math.sqrt(p * (1 - p) / 20_000))


def test_a_teacher_without_known_preferences(inputs: dict[str, Path], tmp_path: Path) -> None:
    fewer = {role: path for role, path in inputs.items() if role != "oracle"}
    out = judge(fewer, tmp_path / "out", gamma=None)
    rows = tables.read_table(out / "metrics.parquet", tables.METRICS)
    assert {row["metric"] for row in rows} == {"entropy"}
    assert tables.read_table(out / "pairs.parquet", tables.TEACHER_PAIRS) == []


def entropy_cells(likelihood: float) -> list[Cell]:
    entropies = {"likelihood": likelihood, "calibrated": 0.7}
    rows = [{"run": r, "seed": 0, "prompt_id": p, "metric": "entropy", "value": v} for r, v in entropies.items() for p in IDS]
    return main_table(rows, list(entropies), present(TEACHER, rows))


def test_a_flat_teacher_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    distillation._warn_if_flat("large", entropy_cells(0.97))
    assert capsys.readouterr().err == ""
    distillation._warn_if_flat("large", entropy_cells(0.991))
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning == (
        "warning: teacher large, reward likelihood: its rankings have 99.1 % of the most that is possible: nearly flat"
    )


def test_costs_are_counted_over_the_parts_of_a_run(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Draws of as many prompts as the split had, dropped ones too; rows scored; parts without an input count nothing."""

    def made(name: str, files: Path, draws: int, prompts: int) -> Path:
        def write(out: Path) -> None:
            for file in files.iterdir():
                (out / file.name).write_bytes(file.read_bytes())
            (out / "summary.json").write_text(f'{{"prompts": {prompts}}}')

        identity = {"stage": "responses", "spec": {"draws": draws, "prompts": 1000}}
        artefacts.make(tmp_path / name, identity=identity, inputs={}, run=write)
        return tmp_path / name

    given = {
        "responses/paper/7/0": made("first", inputs["responses"], 6, 10),
        "responses/paper/7/1": made("second", inputs["responses"], 5, 4),
        "responses/other/7/0": made("other", inputs["responses"], 100, 10),
        "scores/paper/7/1": made("scores", inputs["scores"], 0, 0),
        "questions/paper/7/0": made("questions", inputs["questions/pairwise"], 0, 0),
    }
    counts = {role: distillation._count(given, f"{role}/paper/7", range(2)) for role in ("responses", "scores", "questions")}
    assert counts == {"responses": 6 * 10 + 5 * 4, "scores": 4 * 4, "questions": 4 * 12}
    assert distillation._count(given, "responses/paper/7", range(1)) == 60


def test_equal_input_gives_equal_figures(tmp_path: Path) -> None:
    metrics = [spec.key for spec in STUDENT]
    rows = [
        {"run": run, "seed": seed, "prompt_id": p, "metric": metric, "value": 0.1 * seed + 0.01 * len(run + p)}
        for run, seed, p, metric in itertools.product(("paper", "no questions"), (0, 1), IDS, metrics)
    ]
    cells = main_table(rows, ["paper", "no questions"], STUDENT)
    p: Tensor = torch.linspace(0.02, 0.98, 50)
    bins = {"likelihood": reliability_bins(p.numpy(), (p > 0.4).numpy(), bins=10)}
    for name in ("a", "b"):
        panels(cells, tmp_path / f"panels-{name}", title="All", metrics=shown(cells))
        reliabilities(bins, tmp_path / f"bins-{name}")
    for kind in ("panels", "bins"):
        assert (tmp_path / f"{kind}-a.svg").read_bytes() == (tmp_path / f"{kind}-b.svg").read_bytes()
        assert (tmp_path / f"{kind}-a.png").stat().st_size > 1000
