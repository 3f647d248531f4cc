"""Word problems with worked solutions: readers of GSM8K (arXiv 2110.14168) and MATH (arXiv 2103.03874) to one record.

Both are read from local copies. Left out: extracting an answer from a model's text (extraction.py), generated problems
(arithmetic.py), and splits by difficulty, which need a model's samples.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefdist.data.extraction import boxed_answer, marked_answer
from prefdist.data.json_lines import Row, read_rows
from prefdist.errors import UserError

_STEP = re.compile(r"<<([^<>]*)=([^<>=]*)>>")
_LEVEL = re.compile(r"Level (\d+|\?)")


@dataclass(frozen=True)
class WordProblem:
    """One problem. `problem_id` is a digest of the prompt, so that it is the same in every copy of the data set.

    answer: as extracted, not normalised. level: MATH's own, 1 to 5; for GSM8K, which has none, the number of annotated
    calculations; None where the data set does not say. subject: MATH's type, or "" for GSM8K.
    """

    problem_id: str
    prompt: str
    answer: str
    solution: str
    level: int | None
    subject: str


def calculator_steps(solution: str) -> list[tuple[str, str]]:
    """(expression, result) of GSM8K's calculator annotations `<<expression=result>>`, in order."""
    return [(expression, result) for expression, result in _STEP.findall(solution)]


def without_annotations(solution: str) -> str:
    """A GSM8K solution as a reader sees it."""
    return _STEP.sub("", solution)


def read_gsm8k(source: Path, split: str | None = None) -> list[WordProblem]:
    """Rows with `question` and `answer`; see `json_lines.read_rows` for `source` and `split`.

    UserError names the row that has no `#### ` answer, or a question that was there before.
    """
    return _distinct(map(_gsm8k, read_rows(source, split)))


def read_math(source: Path, split: str | None = None) -> list[WordProblem]:
    r"""Rows with `problem`, `solution`, `level` ("Level 3") and `type`; arguments as above.

    UserError names the row whose solution has no closed `\boxed{…}`, whose level is none, or whose problem was there before.
    """
    return _distinct(map(_math, read_rows(source, split)))


def _gsm8k(row: Row) -> tuple[Row, WordProblem]:
    question, solution = row.text("question").strip(), row.text("answer")
    answer = marked_answer(solution)
    if answer is None:
        raise row.error("answer", "does not end in `#### ` and a number")
    level = len(calculator_steps(solution)) or None
    return row, WordProblem(_identity(question), question, answer, solution, level, "")


def _math(row: Row) -> tuple[Row, WordProblem]:
    problem, solution = row.text("problem").strip(), row.text("solution")
    answer = boxed_answer(solution)
    if answer is None:
        raise row.error("solution", "has no answer in a closed \\boxed{…}")
    found = _LEVEL.fullmatch(row.text("level"))
    if found is None:
        raise row.error("level", "is not `Level ` and a number or ?")
    level = None if found[1] == "?" else int(found[1])
    return row, WordProblem(_identity(problem), problem, answer, solution, level, row.text("type"))


def _identity(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _distinct(found: Iterable[tuple[Row, WordProblem]]) -> list[WordProblem]:
    problems: dict[str, WordProblem] = {}
    first: dict[str, Row] = {}
    for row, problem in found:
        before = first.setdefault(problem.problem_id, row)
        if before is not row:
            raise UserError(f"{row.where} has the same problem as {before.where}; keep one")
        problems[problem.problem_id] = problem
    return list(problems.values())
