"""Real tiny models, candidates, scores and answers on disk, from which students and teachers are evaluated; sums by hand."""

import itertools
import math
from pathlib import Path
from typing import Any

from teacher_inputs import ARCHITECTURE, PROMPTS, TEXTS, write_responses, write_teacher, write_text

from prefdist.data import tables
from prefdist.evaluation import held_out
from prefdist.models import new_policy, save
from prefdist.tokens import TextCodec

Rows = list[dict[str, Any]]
N, GAMMA, BETA_TEACHER = 4, 0.5, 1.5
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


def write_models(root: Path) -> dict[str, Path]:
    """The untrained student, a trained one with its tokenizer, a teacher, and the target, whose tokenizer is its own."""
    found = {name: root / name for name in ("start", "policy", "teacher", "target")}
    write_teacher(found["start"])
    codec = TextCodec(found["start"])
    save(new_policy(ARCHITECTURE, codec, 3), found["policy"], codec)
    write_teacher(found["teacher"], hidden_size=24)
    write_teacher(found["target"], corpus=("entirely different words",), num_hidden_layers=1)
    return found


def write_inputs(models: dict[str, Path], root: Path) -> dict[str, Path]:
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
