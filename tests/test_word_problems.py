"""GSM8K and MATH as records: rows written by hand, and every row of the real GSM8K."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from prefdist.data.extraction import last_number, number, same_number
from prefdist.data.word_problems import WordProblem, calculator_steps, read_gsm8k, read_math, without_annotations
from prefdist.errors import UserError

GSM8K = Path(__file__).resolve().parents[2] / "shared/data/gsm8k"
SIZES = {"train": 7473, "test": 1319}
AGREEING = {"train": 7001, "test": 1208}
"""Problems whose last annotated calculation gives the answer; 0.94 and 0.92 of all. Others end in a step without annotation."""


def written(folder: Path, rows: list[Any]) -> Path:
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_a_row_of_gsm8k(tmp_path: Path) -> None:
    solution = "She has 2*3=<<2*3=6>>6 pens.\nThat is 6+1,000=<<6+1000=1006>>1006.\n#### 1,006"
    (found,) = read_gsm8k(written(tmp_path, [{"question": " How many? ", "answer": solution}]))
    assert (found.prompt, found.answer, found.level, found.subject) == ("How many?", "1,006", 2, "")
    assert calculator_steps(found.solution) == [("2*3", "6"), ("6+1000", "1006")]
    assert without_annotations(found.solution) == "She has 2*3=6 pens.\nThat is 6+1,000=1006.\n#### 1,006"


def test_a_row_of_math(tmp_path: Path) -> None:
    rows = [
        {"problem": "Find $x$.", "solution": r"So $x=\boxed{\frac{1}{2}}$.", "level": "Level 3", "type": "Algebra"},
        {"problem": "Find $y$.", "solution": r"\boxed{2}", "level": "Level ?", "type": "Geometry"},
    ]
    first, second = read_math(written(tmp_path, rows))
    assert (first.prompt, first.answer, first.level, first.subject) == ("Find $x$.", r"\frac{1}{2}", 3, "Algebra")
    assert (second.level, second.subject) == (None, "Geometry")
    assert first.problem_id != second.problem_id
    assert read_math(written(tmp_path, rows[::-1])) == [second, first]


@pytest.mark.parametrize(
    ("read", "rows", "message"),
    [
        (read_gsm8k, [{"question": "a", "answer": "5"}], "row 0: 'answer' does not end in `#### `"),
        (read_gsm8k, [{"question": "a", "answer": "#### 5"}] * 2, "row 1 has the same problem as .*row 0"),
        (read_gsm8k, [{"question": "a"}], "row 0: no key 'answer'"),
        (read_math, [{"problem": "a", "solution": "5", "level": "Level 1", "type": "t"}], "row 0: 'solution' has no answer"),
        (read_math, [{"problem": "a", "solution": r"\boxed{5}", "level": "5", "type": "t"}], "row 0: 'level' is not"),
    ],
)
def test_rows_that_do_not_fit_are_named(tmp_path: Path, read: Any, rows: list[Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(written(tmp_path, rows))


@pytest.fixture(scope="module")
def gsm8k() -> dict[str, list[WordProblem]]:
    return {split: read_gsm8k(GSM8K, split) for split in SIZES}


real = pytest.mark.skipif(not GSM8K.is_dir(), reason=f"needs the real GSM8K of {GSM8K}, which is no part of the project")


@real
def test_every_answer_of_gsm8k_is_extracted(gsm8k: dict[str, list[WordProblem]]) -> None:
    assert {split: len(problems) for split, problems in gsm8k.items()} == SIZES
    for problems in gsm8k.values():
        assert all(number(problem.answer) is not None for problem in problems)
        # The solution's last number is the marked one, so both extractors agree on every reference.
        assert all(last_number(problem.solution) == problem.answer for problem in problems)
    ids = {problem.problem_id for problems in gsm8k.values() for problem in problems}
    assert len(ids) == sum(SIZES.values())


@real
@pytest.mark.parametrize("split", SIZES)
def test_the_last_annotation_is_mostly_the_answer(gsm8k: dict[str, list[WordProblem]], split: str) -> None:
    last = [(calculator_steps(problem.solution), problem.answer) for problem in gsm8k[split]]
    agreeing = sum(bool(steps) and same_number(steps[-1][1], answer) for steps, answer in last)
    assert agreeing == AGREEING[split]
    assert sum(not steps for steps, _ in last) == {"train": 95, "test": 18}[split]


@real
def test_annotated_products_of_two_numbers_are_right(gsm8k: dict[str, list[WordProblem]]) -> None:
    """The annotations are parsed as meant: those of the form a*b of whole numbers are checked by multiplication."""
    checked = 0
    for problem in gsm8k["train"]:
        for expression, result in calculator_steps(problem.solution):
            factors = expression.split("*")
            if len(factors) == 2 and all(factor.isdecimal() for factor in factors):
                assert number(result) == Fraction(int(factors[0]) * int(factors[1]))
                checked += 1
    assert checked > 5000
