"""What students are found to be: every metric against a sum by hand, on real tiny models and tables."""

import itertools
import math
from pathlib import Path

import pytest
import torch
from conftest import plain_logps
from ranking_inputs import (
    BETA_TEACHER,
    GAMMA,
    IDS,
    KNOWN,
    LIKELIHOODS,
    PAIRS,
    REWARD,
    SIZE,
    N,
    Rows,
    candidate_rows,
    law,
    sigmoid,
    write_inputs,
    write_models,
)
from teacher_inputs import PROMPTS

from prefdist.data import tables
from prefdist.evaluation import student
from prefdist.evaluation.candidates import Candidates
from prefdist.models import load_policy
from prefdist.results.metrics import STUDENT
from prefdist.tokens import TextCodec

BETA, CLEARLY = 3.0, 0.7


def jsd(a: list[float], b: list[float]) -> float:
    p, q = law(a), law(b)
    return sum((p[r] * math.log(2 * p[r] / (p[r] + q[r])) + q[r] * math.log(2 * q[r] / (p[r] + q[r]))) / 2 for r in p)


def kendall(a: list[float], b: list[float]) -> float | None:
    """tau-b: concordant less discordant pairs over the geometric mean of those that do not tie."""
    signs = [((a[i] > a[j]) - (a[i] < a[j]), (b[i] > b[j]) - (b[i] < b[j])) for i, j in PAIRS]
    untied = math.prod(sum(s != 0 for s in side) for side in zip(*signs, strict=True))
    return sum(x * y for x, y in signs) / math.sqrt(untied) if untied else None


def share(hits: list[bool]) -> float | None:
    return sum(hits) / len(hits) if hits else None


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def inputs(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(models, tmp_path_factory.mktemp("inputs"))


def known_logps(models: dict[str, Path], rows: Rows) -> dict[str, list[float]]:
    """log π* of written texts in π*'s tokens, by transformers alone; the end counts where the writer ended."""
    codec, model = TextCodec(models["target"]), load_policy(models["target"])
    found: dict[str, list[float]] = {}
    for row in rows:
        ids = codec.response(row["text"])
        ids = ids if row["finish_reason"] == "stop" or not row["text"] else ids[:-1]
        logp = plain_logps(model, codec.prompt(PROMPTS[row["prompt_id"]]), ids).sum()
        found.setdefault(row["prompt_id"], []).append(float(logp))
    return found


def values(folder: Path) -> dict[str, dict[str, float | None]]:
    """metric -> prompt -> value, of the one seed."""
    found: dict[str, dict[str, float | None]] = {}
    for row in tables.read_table(folder / "metrics.parquet", tables.METRICS):
        assert (row["run"], row["seed"]) == ("paper", 7)
        found.setdefault(row["metric"], {})[row["prompt_id"]] = row["value"]
    return found


@pytest.fixture(scope="module")
def evaluated(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return evaluate(inputs, tmp_path_factory.mktemp("student"))


def evaluate(inputs: dict[str, Path], out: Path, gamma: float | None = GAMMA) -> Path:
    spec = {**SIZE, "run": "paper", "seeds": [7], "n": N, "reward": REWARD, "gamma": gamma, "clearly": CLEARLY}
    student.run(spec | {"beta": BETA, "beta_teacher": BETA_TEACHER}, inputs, out, out)
    return out


def responses(folder: Path, name: str = "responses") -> Rows:
    return tables.read_table(folder / f"{name}.parquet", tables.RESPONSES)


@pytest.mark.parametrize("role", ["start", "held_out_teacher"])
def test_known_log_probabilities(role: str, inputs: dict[str, Path], models: dict[str, Path]) -> None:
    rows = responses(inputs[role])
    assert [row["prompt_id"] for row in rows].count("p0") == 3
    found: dict[str, list[float]] = {}
    for row in tables.read_table(inputs[role] / "oracle.parquet", tables.SCORES):
        found.setdefault(row["prompt_id"], []).append(row["logp"])
    for name, expected in known_logps(models, rows).items():
        assert found[name] == pytest.approx(expected, abs=1e-3)


def test_win_rates_are_means_over_all_pairs_of_samples(
    evaluated: Path, inputs: dict[str, Path], models: dict[str, Path]
) -> None:
    own = known_logps(models, responses(evaluated, "responses-seed7"))
    for metric, role in {"win_rate_start": "start", "win_rate_teacher": "held_out_teacher"}.items():
        others = known_logps(models, responses(inputs[role]))
        for name in IDS:
            total = 0.0
            for mine in own[name]:
                for other in others[name]:
                    total += sigmoid(GAMMA * (mine - other))
            assert values(evaluated)[metric][name] == pytest.approx(total / 9, abs=1e-3)


def test_metrics_of_samples(evaluated: Path, inputs: dict[str, Path]) -> None:
    found = values(evaluated)
    for name in IDS:
        own = [row for row in responses(evaluated, "responses-seed7") if row["prompt_id"] == name]
        start = [len(row["text"].encode()) for row in responses(inputs["start"]) if row["prompt_id"] == name]
        length = sum(len(row["text"].encode()) for row in own) / 3
        assert found["length"][name] == pytest.approx(length)
        assert found["longer_than_start"][name] == pytest.approx(length / (sum(start) / 3) - 1)
        assert found["unfinished"][name] == sum(row["finish_reason"] == "length" for row in own) / 3
        bigrams = [pair for row in own for pair in itertools.pairwise(row["token_ids"])]
        assert found["distinct_2"][name] == pytest.approx(len(set(bigrams)) / len(bigrams))


def test_metrics_of_rankings(evaluated: Path, inputs: dict[str, Path], models: dict[str, Path]) -> None:
    """Scores are β times the mean log-probability, by transformers alone; p3's teacher ties throughout, so has no tau."""
    codec, model = TextCodec(models["policy"]), load_policy(models["policy"])
    rows, found = candidate_rows(codec), values(evaluated)
    n_bytes = [len(row["text"].encode()) for row in rows[:N]]
    for name in IDS:
        texts = [row["text"] for row in rows if row["prompt_id"] == name]
        logps = [plain_logps(model, codec.prompt(PROMPTS[name]), codec.response(text)) for text in texts]
        scores = [BETA * float(each.mean()) for each in logps]
        rewards, known = LIKELIHOODS[name], [GAMMA * x for x in KNOWN[name]]
        assert found["kendall_tau"][name] == pytest.approx(kendall(scores, rewards))
        assert found["jsd_teacher"][name] == pytest.approx(jsd([BETA_TEACHER * x for x in rewards], scores), abs=1e-4)
        longer, agrees, above = [], [], []
        for i, j in PAIRS:
            prefers = scores[i] > scores[j]
            if n_bytes[i] != n_bytes[j]:
                longer.append(prefers == (n_bytes[i] > n_bytes[j]))
            if known[i] != known[j]:
                right = prefers == (known[i] > known[j])
                agrees.append(right)
                wrong_teacher = rewards[i] != rewards[j] and (rewards[i] > rewards[j]) != (known[i] > known[j])
                if wrong_teacher and sigmoid(abs(known[i] - known[j])) >= CLEARLY:
                    above.append(right)
        assert len(longer) == 5
        for metric, hits in {"prefers_longer": longer, "agrees_known": agrees, "above_teacher": above}.items():
            assert found[metric][name] == pytest.approx(share(hits)), (metric, name)
    assert [found["above_teacher"][name] is None for name in IDS] == [False, True, False, True]
    assert (found["kendall_tau"]["p3"], found["agrees_known"]["p3"]) == (None, None)


def test_without_known_preferences_their_metrics_are_left_out(inputs: dict[str, Path], tmp_path: Path) -> None:
    fewer = {role: path for role, path in inputs.items() if role not in ("target", "oracle")}
    found = values(evaluate(fewer, tmp_path, gamma=None))
    known = {"win_rate_start", "win_rate_teacher", "agrees_known", "above_teacher"}
    assert found.keys() | known == {spec.key for spec in STUDENT}
    assert not found.keys() & known


def test_pairs_by_hand() -> None:
    """Scores 3, 1, 2; bytes 5, 9, 9; known 0, 2, 1; the teacher 0, 1, 2 is wrong about the last two alone, σ(1) = 0.731."""
    scores, rewards = torch.tensor([[3.0, 1.0, 2.0]] * 2), torch.tensor([[0.0, 1.0, 2.0]] * 2)
    n_bytes = torch.tensor([[5.0, 9.0, 9.0], [7.0, 7.0, 7.0]])
    of = Candidates(["a", "b"], ["", ""], [], n_bytes, n_bytes, torch.tensor([[0.0, 2.0, 1.0], [0.0, 0.0, 0.0]]))
    clear = student._of_pairs(scores, rewards, of, clearly=0.73)
    assert clear == {"prefers_longer": [0.0, None], "agrees_known": [0.0, None], "above_teacher": [0.0, None]}
    assert student._of_pairs(scores, rewards, of, clearly=0.74)["above_teacher"] == [None, None]
    other_way = student._of_pairs(-scores, rewards, of, clearly=0.73)
    assert other_way == {"prefers_longer": [1.0, None], "agrees_known": [1.0, None], "above_teacher": [1.0, None]}
    unknown = Candidates(["a", "b"], ["", ""], [], n_bytes, n_bytes, None)
    assert student._of_pairs(scores, rewards, unknown, clearly=0.73).keys() == {"prefers_longer"}
