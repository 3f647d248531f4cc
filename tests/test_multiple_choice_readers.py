"""MMLU and TruthfulQA-MC1 as lettered questions, from rows in the columns of the hub's data sets."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prefdist.data.multiple_choice import few_shot, mmlu_header, read_mmlu, read_truthfulqa_mc1, render, shuffled
from prefdist.errors import UserError

MMLU = {"question": "Which is prime?", "subject": "number_theory", "choices": ["4", "6", "7", "9"], "answer": 2}
MC1 = {"question": "Is it so?", "mc1_targets": {"choices": ["Yes", "No", "Maybe"], "labels": [1, 0, 0]}}


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_mmlu_keeps_its_order(tmp_path: Path) -> None:
    (found,) = read_mmlu(written(tmp_path, [MMLU]))
    assert (found.options, found.gold, found.answer, found.letters) == (("4", "6", "7", "9"), 2, "C", "ABCD")
    assert (found.subject, found.order_seed) == ("number_theory", None)


def test_a_prompt_is_that_of_the_harness(tmp_path: Path) -> None:
    """Written out by hand from lm-evaluation-harness' mmlu template: header, shots with answers, question, blank lines."""
    shot, asked = read_mmlu(written(tmp_path, [MMLU | {"question": " 1 + 1? ", "choices": list("1234"), "answer": 1}, MMLU]))
    assert render(asked, [shot], mmlu_header("number_theory")) == (
        "The following are multiple choice questions (with answers) about number theory.\n"
        "\n"
        "1 + 1?\nA. 1\nB. 2\nC. 3\nD. 4\nAnswer: B\n"
        "\n"
        "Which is prime?\nA. 4\nB. 6\nC. 7\nD. 9\nAnswer:"
    )
    assert render(asked).startswith("Which is prime?\nA. 4\n")


def test_shots_are_the_first_of_the_subject(tmp_path: Path) -> None:
    subjects = ["law", "number_theory", "law", "law", "number_theory"]
    rows = [MMLU | {"subject": subject, "question": f"{i}?"} for i, subject in enumerate(subjects)]
    dev = read_mmlu(written(tmp_path, rows))
    assert [question.question for question in few_shot(dev, "law", 2)] == ["0?", "2?"]
    with pytest.raises(UserError, match="'number_theory': 2 dev questions, but 5 shots"):
        few_shot(dev, "number_theory")


def test_truthfulqa_is_shuffled_by_the_stored_seed(tmp_path: Path) -> None:
    rows = [MC1 | {"question": f"Is it {i}?"} for i in range(600)]
    file = written(tmp_path, rows)
    found = read_truthfulqa_mc1(file, seed=3)
    assert all(
        question.options[question.gold] == "Yes" and set(question.options) == {"Yes", "No", "Maybe"} for question in found
    )
    assert {question.order_seed for question in found} == {3}
    assert read_truthfulqa_mc1(file, seed=3) == found
    other = read_truthfulqa_mc1(file, seed=4)
    assert [question.question_id for question in other] == [question.question_id for question in found]
    assert [question.gold for question in other] != [question.gold for question in found]
    # Each of the three places has 200 of 600 in expectation, with a standard deviation of 11.5: five of them on each side.
    assert all(142 < count < 258 for count in Counter(question.gold for question in found).values())
    # The order of a question does not depend on its neighbours.
    assert read_truthfulqa_mc1(written(tmp_path, rows[7:9]), seed=3) == found[7:9]


def test_truthfulqa_of_the_authors_file(tmp_path: Path) -> None:
    theirs = {"question": "Is it so?", "mc1_targets": {"Yes": 1, "No": 0, "Maybe": 0}}
    assert read_truthfulqa_mc1(written(tmp_path, [theirs]), 0) == read_truthfulqa_mc1(written(tmp_path, [MC1]), 0)


def test_thirteen_options_have_letters_to_m() -> None:
    question = shuffled("q", "Which?", [str(i) for i in range(13)], 4, "", 0)
    assert question.letters == "ABCDEFGHIJKLM"
    assert f"\n{question.answer}. 4\n" in render(question)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (MMLU | {"choices": ["1", "2"]}, "'choices' has not four options"),
        (MMLU | {"answer": 4}, "'answer' is not the index"),
        (MMLU | {"answer": "C"}, "'answer' is not a whole number"),
    ],
)
def test_rows_of_mmlu_that_do_not_fit_are_named(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=f"row 1: {message}"):
        read_mmlu(written(tmp_path, [MMLU, row]))


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        ({"choices": ["a", "b"], "labels": [0, 0]}, "exactly one option labelled 1"),
        ({"choices": ["a", "b", "c"], "labels": [1, 1, 0]}, "exactly one option labelled 1"),
        ({"choices": ["a", "b"], "labels": [1]}, "exactly one option labelled 1"),
        ({"choices": ["a", "a"], "labels": [1, 0]}, "all different"),
        ({"a": 1}, "2 to 26 options"),
        ("a", "is not a mapping"),
    ],
)
def test_rows_of_truthfulqa_that_do_not_fit_are_named(tmp_path: Path, targets: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"row 0: 'mc1_targets' .*{message}"):
        read_truthfulqa_mc1(written(tmp_path, [MC1 | {"mc1_targets": targets}]), 0)
