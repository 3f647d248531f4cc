"""What students and teachers are found to be: every metric against a sum by hand, on real tiny models and tables."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plain_logps
from teacher_inputs import ARCHITECTURE, PROMPTS, TEXTS, write_responses, write_teacher, write_text
from torch import Tensor

from prefdist import artefacts
from prefdist.data import tables
from prefdist.evaluation import held_out, student, teacher
from prefdist.evaluation.candidates import Candidates
from prefdist.evaluation.statistics import reliability_bins
from prefdist.models import load_policy, new_policy, save
from prefdist.results import distillation
from prefdist.results.figures_distillation import panels, reliabilities
from prefdist.results.metrics import STUDENT, TEACHER
from prefdist.results.tables import Cell, main_table, present
from prefdist.tokens import TextCodec

Rows = list[dict[str, Any]]
N, GAMMA, BETA, BETA_TEACHER, CLEARLY = 4, 0.5, 3.0, 1.5, 0.7
IDS = list(PROMPTS)
REWARD = {"alpha": 0.0, "normalisation": "tokens", "orders": "averaged", "renormalise": True}
# By prompt, of the four candidates: the teacher's nats a token and the log-probability under the known target. The teacher
# orders p1 as the target does, p2 the other way round, and knows nothing of p3.
LIKELIHOODS = {"p0": [-1.0, -2.0, -0.5, -0.8], "p1": [-4.0, -3.0, -2.0, -1.0], "p2": [-1, -2, -3, -4], "p3": [-2.0] * 4}
KNOWN = {"p0": [-3.0, -1.0, -9.0, -2.0], "p1": [-9.0, -8.0, -6.0, -1.0], "p2": [-9.0, -8.0, -6.0, -1.0], "p3": [-5.0] * 4}
PAIRS = list(itertools.combinations(range(N), 2))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def law(scores: list[float]) -> dict[tuple[int, ...], float]:
    """P(ranking) of every ranking, one choice after the other."""
    found = {}
    for ranking in itertools.permutations(range(len(scores))):
        weights = [math.exp(scores[i]) for i in ranking]
        found[ranking] = math.prod(w / sum(weights[k:]) for k, w in enumerate(weights))
    return found


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
    """The untrained student, a trained one with its tokenizer, a teacher, and the target, whose tokenizer is its own."""
    root = tmp_path_factory.mktemp("models")
    found = {name: root / name for name in ("start", "policy", "teacher", "target")}
    write_teacher(found["start"])
    codec = TextCodec(found["start"])
    save(new_policy(ARCHITECTURE, codec, 3), found["policy"], codec)
    write_teacher(found["teacher"], hidden_size=24)
    write_teacher(found["target"], corpus=("entirely different words",), num_hidden_layers=1)
    return found


@pytest.fixture(scope="module")
def inputs(models: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    found = {
        "text": write_text(root / "text", split="test"),
        "responses": write_responses(root / "responses", candidate_rows(TextCodec(models["start"]))),
        "scores": write_scores(root / "scores", LIKELIHOODS, 5),
        "oracle": write_scores(root / "oracle", KNOWN, 1),
        "questions": write_questions(root / "n_way", N_WAY),
        "questions/n_way": root / "n_way",
        "questions/pairwise": write_questions(root / "pairwise", PAIRWISE),
        "target": models["target"],
        "policy/7": models["policy"],
    }
    for role, model in {"start": "start", "held_out_teacher": "teacher"}.items():
        (root / role).mkdir()
        given = {"text": found["text"], "policy": models[model], "target": models["target"]}
        held_out.run(SIZE, given, root / role, root / "scratch")
        found[role] = root / role
    return found


SIZE = {"prompts": 4, "samples": 3, "max_new_tokens": 6}


def candidate_rows(codec: TextCodec) -> Rows:
    """Two of the four have equally many bytes."""
    rows = []
    for prompt_id, k in itertools.product(IDS, range(N)):
        text = TEXTS[k] if k else "By the sea"
        ids = codec.response(text)
        row = {"prompt_id": prompt_id, "sample": k, "token_ids": ids, "text": text, "finish_reason": "stop"}
        rows.append(row | {"n_tokens": len(ids), "logp": -1.0, "prompt": PROMPTS[prompt_id]})
    assert sorted(len(row["text"].encode()) for row in rows[:N]) == [10, 12, 20, 20]
    return rows


def write_scores(folder: Path, values: dict[str, list[float]], n_tokens: int) -> Path:
    rest = {"n_tokens": n_tokens, "logp_end": -0.1, "n_end": 1, "n_bytes": 9}
    rows = [{"prompt_id": p, "sample": k, "logp": n_tokens * v, **rest} for p in values for k, v in enumerate(values[p])]
    folder.mkdir()
    tables.write_table(folder / "scores.parquet", rows, tables.TEACHER_SCORES)
    return folder


# The answers to each question, by its options; of every prompt, but for p3 turned round.
N_WAY = {(0, 1, 2, 3): [0.4, 0.3, 0.12, 0.08], (1, 2, 3, 0): [0.5, 0.11, 0.1, 0.1]}
PAIRWISE = {pair: [0.5 - 0.05 * k, 0.2 + 0.05 * k] for k, pair in enumerate(PAIRS)}
PAIRWISE |= {(j, i): [0.6, 0.1 + 0.03 * k] for k, (i, j) in enumerate(PAIRS)}


def write_questions(folder: Path, asked: dict[tuple[int, ...], list[float]]) -> Path:
    rows = []
    for prompt_id in IDS:
        for order, (options, p) in enumerate(asked.items()):
            row = {"prompt_id": prompt_id, "order": order, "options": list(options), "p_none": 0.1, "mass": sum(p) + 0.1}
            rows.append(row | {"p_options": answers(prompt_id, p)})
    folder.mkdir()
    tables.write_table(folder / "questions.parquet", rows, tables.QUESTIONS)
    return folder


def answers(prompt_id: str, p: list[float]) -> list[float]:
    return p[::-1] if prompt_id == "p3" else p


# ---- students --------------------------------------------------------------------------------------------------------


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


# ---- teachers --------------------------------------------------------------------------------------------------------

TEACHER_REWARD = REWARD | {"alpha": 0.4}


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


# ---- what the results say --------------------------------------------------------------------------------------------


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
        panels(cells, tmp_path / f"panels-{name}", title="All")
        reliabilities(bins, tmp_path / f"bins-{name}")
    for kind in ("panels", "bins"):
        assert (tmp_path / f"{kind}-a.svg").read_bytes() == (tmp_path / f"{kind}-b.svg").read_bytes()
        assert (tmp_path / f"{kind}-a.png").stat().st_size > 1000
