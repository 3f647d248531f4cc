"""Lists of samples with a teacher's rewards: their order and columns against sums by hand, and what is learnt from them."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import plain_logps, read_log
from teacher_inputs import PROMPTS, TEXTS, write_responses, write_teacher
from torch import Tensor

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.models import load_policy
from prefdist.objectives.registry import load, read_row
from prefdist.tokens import TextCodec
from prefdist.training import lists, stage
from prefdist.training.batch import Batch
from prefdist.training.learner import Learner
from prefdist.training.terms import objective_term

Rows = list[dict[str, Any]]
IDS = ["p0", "p1"]
# Nats a token, of four samples; the fourth is the best, so that lists of three must leave it out.
LIKELIHOODS = {"p0": [-1.0, -0.2, -3.0, -0.1], "p1": [-2.0, -2.0, -1.0, -0.1]}
# p_sel of the first three by one question each; 0.8 of its probability is on letters.
SELECTED = {"p0": [0.625, 0.25, 0.125], "p1": [0.25, 0.25, 0.5]}
HALF = {"alpha": 0.5, "normalisation": "tokens", "orders": "averaged", "renormalise": True}
LIKELIHOOD = HALF | {"alpha": 0.0}


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("student"))


@pytest.fixture(scope="module")
def inputs(student: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("lists")
    return {
        "init": student,
        "responses": write_responses(root / "responses", samples(student)),
        "scores": write_scores(root / "scores", LIKELIHOODS),
        "questions": write_questions(root / "questions"),
    }


def samples(student: Path) -> Rows:
    """Four responses to each of two prompts, with their log-probability under the student."""
    codec, model = TextCodec(student), load_policy(student)
    rows = []
    for prompt_id in IDS:
        for k, text in enumerate(TEXTS):
            ids = codec.response(text)
            logp = float(plain_logps(model, codec.prompt(PROMPTS[prompt_id]), ids).sum())
            row = {"prompt_id": prompt_id, "sample": k, "token_ids": ids, "text": text, "finish_reason": "stop"}
            rows.append(row | {"n_tokens": len(ids), "logp": logp, "prompt": PROMPTS[prompt_id]})
    return rows


def write_scores(folder: Path, means: dict[str, list[float]]) -> Path:
    """Of 5 tokens each, so that 5 times the mean is stored."""
    rest = {"n_tokens": 5, "logp_end": -0.5, "n_end": 1, "n_bytes": 9}
    rows = [{"prompt_id": p, "sample": k, "logp": 5 * mean, **rest} for p in means for k, mean in enumerate(means[p])]
    folder.mkdir()
    tables.write_table(folder / "scores.parquet", rows, tables.TEACHER_SCORES)
    return folder


def write_questions(folder: Path) -> Path:
    rest = {"order": 0, "options": [0, 1, 2], "p_none": 0.1, "mass": 0.9}
    rows = [{"prompt_id": p, **rest, "p_options": [0.8 * x for x in SELECTED[p]]} for p in IDS]
    folder.mkdir()
    tables.write_table(folder / "questions.parquet", rows, tables.QUESTIONS)
    return folder


def build(inputs: dict[str, Path], kind: str = "lists", n: int = 3, seed: int = 0, **reward: Any) -> Batch:
    data = {"kind": kind, "n": n, "reward": HALF | reward}
    return lists.build(data, inputs, TextCodec(inputs["init"]), seed)


def test_lists_stand_best_first_with_their_columns(inputs: dict[str, Path]) -> None:
    """Half of each reward: p0 −0.735, −0.793, −2.540; p1 −1.693, −1.693, −0.847, its tie in the order of the samples.

    Neither part alone has these orders: by likelihood p0 is 1, 0, 2. The fourth sample, the likeliest, is not among them.
    """
    batch = build(inputs)
    assert batch.ids == IDS
    assert batch.columns["sample"].tolist() == [[0, 1, 2], [2, 0, 1]]
    by_hand = [[-0.735002, -0.793147, -2.539721], [-0.846574, -1.693147, -1.693147]]
    assert batch.columns["scores"].tolist() == [pytest.approx(row, abs=2e-6) for row in by_hand]
    codec = TextCodec(inputs["init"])
    stored = {(row["prompt_id"], row["sample"]): row for row in samples(inputs["init"])}
    for i, name in enumerate(IDS):
        assert batch.prompts[i] == codec.prompt(PROMPTS[name])
        rows = [stored[name, k] for k in batch.columns["sample"][i].tolist()]
        assert batch.responses[i] == [row["token_ids"] for row in rows]
        assert batch.columns["reference"][i].tolist() == pytest.approx([row["logp"] for row in rows])


def test_the_likelihood_alone_orders_all_four(inputs: dict[str, Path]) -> None:
    batch = build({role: path for role, path in inputs.items() if role != "questions"}, n=4, alpha=0.0)
    assert batch.columns["sample"].tolist() == [[3, 1, 0, 2], [3, 2, 0, 1]]
    assert batch.columns["scores"][0].tolist() == pytest.approx([-0.1, -0.2, -1.0, -3.0])


@pytest.mark.parametrize(("n", "expected"), [(3, [[0, 2], [2, 1]]), (2, [[0, 1], [0, 1]])])
def test_best_and_worst(n: int, expected: list[list[int]], inputs: dict[str, Path]) -> None:
    """Of three and of two; p1's first two samples tie, where the first drawn counts as the better."""
    batch = build(inputs, "best_worst", n=n, alpha=0.0 if n == 2 else 0.5)
    expected = [[1, 0], [0, 1]] if n == 2 else expected
    assert batch.columns["sample"].tolist() == expected
    assert (batch.columns["scores"][:, 0] >= batch.columns["scores"][:, 1]).all()


def test_random_pairs_are_any_two_the_better_first(inputs: dict[str, Path]) -> None:
    found = {name: set() for name in IDS}
    for seed in range(40):
        batch = build(inputs, "random_pair", seed=seed)
        assert batch.columns["sample"].tolist() == build(inputs, "random_pair", seed=seed).columns["sample"].tolist()
        for name, pair in zip(IDS, batch.columns["sample"].tolist(), strict=True):
            found[name].add(tuple(pair))
    # All three pairs of three samples turn up in 40 draws (missing one: 3·(2/3)^40), always in the rewards' order.
    assert found == {"p0": {(0, 1), (0, 2), (1, 2)}, "p1": {(2, 0), (2, 1), (0, 1)}}


def test_a_prompt_without_reward_is_refused_by_name(inputs: dict[str, Path], tmp_path: Path) -> None:
    scores = write_scores(tmp_path / "scores", {"p0": LIKELIHOODS["p0"]})
    with pytest.raises(UserError, match=r"responses: 1 prompts have no reward, first p1; score them again"):
        build(inputs | {"scores": scores}, alpha=0.0)
    with pytest.raises(UserError, match=r"'p1' is only there or only in"):
        build(inputs | {"scores": scores})
    few = write_scores(tmp_path / "few", {"p0": LIKELIHOODS["p0"], "p1": [-1.0, -2.0]})
    with pytest.raises(UserError, match=r"prompt 'p1' has no sample 2"):
        build(inputs | {"scores": few}, alpha=0.0)


def test_references_and_teacher_responses(inputs: dict[str, Path], tmp_path: Path) -> None:
    """One response a prompt: what people wrote, or the teacher's first sample; prompts that have none are left out."""
    codec = TextCodec(inputs["init"])
    wrote = {"p0": "A pear.", "p1": " "}
    rows = [{"prompt_id": p, "module": "m", "split": "train", "prompt": PROMPTS[p], "reference": wrote[p]} for p in IDS]
    tables.write_table(tmp_path / "prompts.parquet", rows, tables.PROMPTS)
    batch = build(inputs | {"text": tmp_path}, "references")
    assert (batch.ids, batch.responses, batch.columns) == (["p0"], [[codec.response("A pear.")]], {})
    mine = [row for row in samples(inputs["init"]) if row["prompt_id"] == "p1"]
    drawn = [row | {"text": f"its {row['text']}"} for row in mine]
    batch = build(inputs | {"teacher_responses": write_responses(tmp_path / "of_teacher", drawn)}, "teacher_responses")
    assert (batch.ids, batch.responses) == (["p1"], [[codec.response(f"its {TEXTS[0]}")]])
    assert batch.prompts == [codec.prompt(PROMPTS["p1"])]
    tables.write_table(tmp_path / "prompts.parquet", [row | {"reference": ""} for row in rows], tables.PROMPTS)
    with pytest.raises(UserError, match="none of the prompts has an answer"):
        build(inputs | {"text": tmp_path}, "references")


# ---- what is learnt --------------------------------------------------------------------------------------------------


def train(
    inputs: dict[str, Path], out: Path, objective: str, data: dict[str, Any], **optimisation: Any
) -> list[dict[str, float]]:
    spec = {
        "data": {"examples": lists.__name__, "n": 4, "reward": LIKELIHOOD, **data},
        "objective": read_row(objective, {"beta": 1.0} if objective == "pad_ppd_jsd" else None).model_dump(),
        "optimisation": {"batch_size": 2, "micro_batch_size": 2, "learning_rate": 1e-2, **optimisation},
        "seed": 0,
    }
    stage.run(spec, inputs, out, out.with_name("scratch"))
    return read_log(out)


def mean_logps(model: Any, codec: TextCodec, prompt: str, texts: list[str]) -> Tensor:
    """Of each text [n], a token, by transformers alone."""
    return torch.stack([plain_logps(model, codec.prompt(prompt), codec.response(text)).mean() for text in texts])


def law(scores: Tensor) -> dict[tuple[int, ...], float]:
    """P(ranking) of every ranking, one choice after the other."""
    found = {}
    for ranking in itertools.permutations(range(len(scores))):
        weights = [math.exp(float(scores[i])) for i in ranking]
        found[ranking] = math.prod(w / sum(weights[k:]) for k, w in enumerate(weights))
    return found


def jsd(a: dict[Any, float], b: dict[Any, float]) -> float:
    return sum((p * math.log(2 * p / (p + b[r])) + b[r] * math.log(2 * b[r] / (p + b[r]))) / 2 for r, p in a.items())


def test_ppd_brings_the_students_law_of_rankings_to_the_teachers(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Against the enumerated law of the teacher's mean log-probabilities: from above 0.1 nats to below 0.001."""
    log = train(inputs, tmp_path / "out", "pad_ppd_jsd", {"kind": "lists"}, steps=200)
    gaps = {}
    for folder in (inputs["init"], tmp_path / "out"):
        model, codec = load_policy(folder), TextCodec(folder)
        students = [law(mean_logps(model, codec, PROMPTS[name], TEXTS)) for name in IDS]
        gaps[folder] = [jsd(mine, law(torch.tensor(LIKELIHOODS[name]))) for mine, name in zip(students, IDS, strict=True)]
    before, after = gaps.values()
    assert min(before) > 0.1
    assert max(after) < 1e-3
    assert log[0]["loss"] == pytest.approx(sum(before) / 2, abs=1e-5)


def test_vpd_has_the_gradient_of_plackett_luce(inputs: dict[str, Path]) -> None:
    """−log of the first ranking's share of all 6, with the weights of a ranking multiplied out, by autograd in float64."""
    batch = build(inputs)
    packed_model, plain_model = (load_policy(inputs["init"]).double() for _ in range(2))
    codec = TextCodec(inputs["init"])
    packed = batch.packed(codec.pad_id)
    losses = objective_term(load("pad_vpd"))(Learner(packed_model)(packed, 1.0), batch, packed)
    losses.sum().backward()
    expected = []
    for prompt, responses in zip(batch.prompts, batch.responses, strict=True):
        means = []
        for ids in responses:
            logits = plain_model(torch.tensor([prompt + ids])).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            means.append(logits[torch.arange(len(ids)), torch.tensor(ids)].mean())
        weights = (10.0 * torch.stack(means)).exp()
        shares = [
            weights[a] / weights.sum() * weights[b] / (weights[b] + weights[c]) for a, b, c in itertools.permutations(range(3))
        ]
        assert float(sum(shares).detach()) == pytest.approx(1.0, abs=1e-12)
        expected.append(-shares[0].log())
    torch.stack(expected).sum().backward()
    # The model's norms are in float32 whatever its dtype.
    assert losses.tolist() == pytest.approx([float(loss.detach()) for loss in expected], rel=1e-6)
    mine, other = (torch.cat([p.grad.flatten() for p in model.parameters()]) for model in (packed_model, plain_model))
    assert float((mine - other).abs().max()) < 1e-6 * float(other.abs().max())


def test_dpo_starts_at_ln_2(inputs: dict[str, Path], tmp_path: Path) -> None:
    """The reference is the student that drew the samples; their stored log-probabilities are its own."""
    log = train(inputs, tmp_path / "out", "dpo", {"kind": "best_worst"}, steps=2)
    assert log[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert log[1]["loss"] < math.log(2) - 1e-3


def test_a_reference_that_is_not_the_students_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    rows = [row | {"logp": row["logp"] + 0.1} for row in samples(inputs["init"])]
    other = inputs | {"responses": write_responses(tmp_path / "responses", rows)}
    with pytest.raises(UserError, match=r"example p[01]: the policy starts elsewhere than its reference"):
        train(other, tmp_path / "out", "dpo", {"kind": "best_worst"}, steps=1)
