"""Answers of a model to Arena-Hard's questions, as its authors keep them: a file a model, joined to the questions by uid."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from prefdist.data.columns import Found
from prefdist.data.json_lines import Row, read_rows

ID, UNANSWERED = "uid", "no_answer"


def read_model_answers(file: Path) -> dict[str, str]:
    """uid of a question -> the answer. UserError, naming file, row and key, where a row is no answer."""
    return {row.text(ID): _answer(row) for row in read_rows(file)}


def _answer(row: Row) -> str:
    """What the assistant says in the last message, whose content is {answer: ...}."""
    messages = row.values.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    content = last.get("content") if isinstance(last, dict) else None
    answer = content.get("answer") if isinstance(content, dict) else None
    if not isinstance(answer, str):
        raise row.error("messages", "does not end with a message of an answer")
    return answer.strip()


def answered(found: Iterable[Found], answers: dict[str, str]) -> Iterator[Found]:
    """Questions with their answers; one without has the defect no_answer."""
    for one in found:
        answer = answers.get(one.row.text(ID), "")
        yield replace(one, answers=(answer,), defect=one.defect or (None if answer else UNANSWERED))
