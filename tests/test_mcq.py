"""Multiple-choice questions: their text, their orders, the tokens of their answers, and the stage that asks them."""

from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from teacher_inputs import (
    PROMPTS,
    replaced,
    sample_rows,
    without_weights,
    write_broken_teacher,
    write_inputs,
    write_responses,
    write_teacher,
    write_text,
)
from vllm_models import needs_vllm

from prefdist.data import tables
from prefdist.data.tokenizer import train_tokenizer
from prefdist.errors import UserError
from prefdist.models import load_policy
from prefdist.scoring import mcq
from prefdist.scoring.questions import TEMPLATES, identifier_ids, orders, question_text
from prefdist.tokens import TextCodec

SPEC = {"kind": "n_way", "orders": "cyclic", "n": 3, "template": "short", "longest": None, "dtype": "float32"}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("inputs"))


def test_short_question() -> None:
    assert question_text("short", "Name {x}.", ["an {apple}", "b"]) == "Name {x}.\nan {apple}\nA\nb\nB\n"


def test_judge_question() -> None:
    text = question_text("judge", "Why?", ["x" * 50, "y" * 51, "z"], longest=50)
    system, _, user = text.partition("\n\n")
    assert "(A, B, or C)" in system
    assert '"None"' in system
    for criterion in ("Relevance", "Accuracy", "Completeness", "Coherence", "Clarity"):
        assert criterion in system
    options = f'A)\n"""\n{"x" * 50}\n"""\nB)\n"""\n{"y" * 50}…\n"""\nC)\n"""\nz\n"""'
    assert user.startswith(f"# Query\nWhy?\n\n# Candidate Responses\n{options}\n\n# Output\n")
    assert "(A, or B)" in question_text("judge", "Why?", ["x", "y"])


def test_an_unknown_template() -> None:
    with pytest.raises(UserError, match="template: 'long' is not one of short, judge"):
        question_text("long", "p", ["a", "b"])


def test_orders() -> None:
    assert orders("n_way", "fixed", 3) == [(0, 1, 2)]
    assert orders("n_way", "cyclic", 3) == [(0, 1, 2), (1, 2, 0), (2, 0, 1)]
    assert orders("n_way", "all", 4) == list(permutations(range(4)))
    assert orders("pairwise", "fixed", 3) == [(0, 1), (0, 2), (1, 2)]
    both = [(0, 1), (1, 0), (0, 2), (2, 0), (1, 2), (2, 1)]
    assert orders("pairwise", "all", 3) == orders("pairwise", "cyclic", 3) == both
    for column in zip(*orders("n_way", "cyclic", 26), strict=True):
        assert sorted(column) == list(range(26)), "each option once in each position"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("n_way", "all", 5), "all orders of 5 options are too many .* set orders to cyclic"),
        (("n_way", "cyclic", 27), "27 options have no letters"),
        (("pairwise", "all", 1), "2 options or more, not 1"),
    ],
)
def test_orders_refused(arguments: tuple[str, str, int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        orders(*arguments)
    assert len(orders("pairwise", "fixed", 30)) == 435


def test_identifiers_are_exact(inputs: dict[str, Path]) -> None:
    """With and without a space; An, By and other words that start with a letter are tokens too, and do not count."""
    codec = TextCodec(inputs["teacher"])
    for word in ("An", " An", "By", " By"):
        assert len(codec.response(word)) == 2, "a token of its own, so that this tests something"
    found = identifier_ids(codec, 3)
    assert [{codec.decode([i]) for i in ids} for ids in found] == [{"A", " A"}, {"B", " B"}, {"C"}, {"None", " None"}]
    assert all(len(ids) == len(set(ids)) for ids in found)


def test_a_tokenizer_without_an_identifier(tmp_path: Path) -> None:
    train_tokenizer(["some words"], 300, tmp_path / "plain")
    with pytest.raises(UserError, match="plain: the answer 'None' is not one token"):
        identifier_ids(TextCodec(tmp_path / "plain"), 2)


@pytest.mark.parametrize(
    ("kind", "scheme", "template"), [("n_way", "cyclic", "short"), ("n_way", "all", "short"), ("pairwise", "all", "judge")]
)
def test_against_a_plain_softmax(kind: str, scheme: str, template: str, inputs: dict[str, Path], tmp_path: Path) -> None:
    if template == "judge":
        inputs = inputs | {"teacher": write_teacher(tmp_path / "teacher", max_position_embeddings=4096)}
    mcq.run(SPEC | {"kind": kind, "orders": scheme, "template": template}, inputs, tmp_path, tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    rows = tables.read_table(tmp_path / "questions.parquet", tables.QUESTIONS)
    asked = orders(kind, scheme, 3)
    assert [(row["prompt_id"], row["order"], tuple(row["options"])) for row in rows] == [
        (prompt_id, k, options) for prompt_id in PROMPTS for k, options in enumerate(asked)
    ]
    codec, model = TextCodec(inputs["teacher"]), load_policy(inputs["teacher"])
    texts = {(row["prompt_id"], row["sample"]): row["text"] for row in sample_rows()}
    answers = {codec.decode([i]): i for i in range(codec.vocabulary)}
    for row in rows[:: 1 if template == "short" else 5]:
        shown = [texts[row["prompt_id"], i] for i in row["options"]]
        prompt = codec.prompt(question_text(template, PROMPTS[row["prompt_id"]], shown))
        with torch.no_grad():
            law = model(torch.tensor([prompt])).logits[0, -1].double().softmax(-1)

        def p(identifier: str, law: torch.Tensor = law) -> float:
            return sum(float(law[answers[name]]) for name in (identifier, f" {identifier}") if name in answers)

        assert row["p_options"] == pytest.approx([p(letter) for letter in "ABC"[: len(shown)]], rel=1e-3, abs=1e-9)
        assert row["p_none"] == pytest.approx(p("None"), rel=1e-3, abs=1e-9)
        assert row["mass"] == pytest.approx(sum(row["p_options"]) + row["p_none"])
        assert 0 < row["mass"] < 1


@pytest.mark.parametrize(
    ("change", "rows", "message"),
    [
        ({"n": 5}, sample_rows(), r"responses.parquet: n is 5, but each prompt has 4 samples"),
        ({"n": 27}, sample_rows(), "27 options have no letters"),
        ({"template": "none"}, sample_rows(), "template: 'none'"),
        ({}, replaced(sample_rows(), "p2", 0, text=""), "prompt 'p2': response 0 is blank"),
        ({}, replaced(sample_rows(), "p2", 0, prompt="Two"), "teacher and student prompts differ"),
        ({}, replaced(sample_rows(), "p3", 2, text="long " * 260), r"question of prompt 'p3' has \d+ tokens, .* is 256"),
    ],
)
def test_refused(
    change: dict[str, Any], rows: list[dict[str, Any]], message: str, inputs: dict[str, Path], tmp_path: Path
) -> None:
    """Before the model is loaded: this teacher has no weights."""
    folders = {
        "text": write_text(tmp_path / "text"),
        "responses": write_responses(tmp_path / "responses", rows),
        "teacher": without_weights(inputs["teacher"], tmp_path / "teacher"),
    }
    with pytest.raises(UserError, match=message):
        mcq.run(SPEC | change, folders, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "scratch").exists()


def test_a_teacher_that_gives_no_number(inputs: dict[str, Path], tmp_path: Path) -> None:
    broken = write_broken_teacher(tmp_path / "teacher")
    with pytest.raises(UserError, match=r"question \d of prompt 'p\d' have probability nan"):
        mcq.run(SPEC, {**inputs, "teacher": broken}, tmp_path / "out", tmp_path / "scratch")


def test_templates_do_not_read_their_values() -> None:
    """Text that looks like a field, or like a question, stays text."""
    for template in TEMPLATES:
        assert "{options}" in question_text(template, "{options}", ["{prompt}", "{letter}"])
        assert question_text(template, "p", ["{prompt}", "x"]).count("{prompt}") == 1


@pytest.mark.vllm
@needs_vllm
def test_answers_by_vllm(inputs: dict[str, Path], tmp_path: Path) -> None:
    """Every option's probability, that of None, and their mass: as transformers gives them in float32."""
    sizes = {"hidden_size": 64, "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 1024}
    asked = inputs | {"teacher": write_teacher(tmp_path / "teacher", **sizes)}
    found = []
    for engine in ("transformers", "vllm"):
        out = tmp_path / engine
        out.mkdir()
        mcq.run(SPEC | {"engine": engine}, asked, out, tmp_path / "scratch")
        found.append(tables.read_table(out / "questions.parquet", tables.QUESTIONS))
    assert len(found[1]) == 3 * len(PROMPTS)
    for own, row in zip(*found, strict=True):
        assert (row["prompt_id"], row["order"], row["options"]) == (own["prompt_id"], own["order"], own["options"])
        for key in ("p_options", "p_none", "mass"):
            assert row[key] == pytest.approx(own[key], rel=1e-4), key  # a log-probability differs by less
