"""Which columns of a dataset hold a prompt and its answers, by the name of a format; and what is wrong with a row.

Left out: HH-RLHF's dialogues (dialogues.py), and what the rows are used for (pairs.py, prompts.py).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.data.json_lines import Row

END = "<|endoftext|>"
"""What the preprocessed TL;DR datasets write behind every summary. Here a tokenizer's EOS ends a response."""


@dataclass(frozen=True)
class Columns:
    """Where prompt and answers stand: each a text, or turns, of which a prompt is the first and an answer the last.

    `continues`: answers go on where the prompt's text ends, and stand behind exactly one space, as the text was written.
    `right`: the prompt is two turns of a user, and this column holds a right answer to each, or none.
    """

    prompt: str
    answers: tuple[str, ...]
    continues: bool = False
    right: str | None = None


PAIRS = {
    "messages": Columns("prompt", ("chosen", "rejected")),
    "tldr_oai": Columns("query", ("chosen", "rejected"), continues=True),
    "tldr_trl": Columns("prompt", ("chosen", "rejected"), continues=True),
}
"""Of labelled pairs. tldr_oai: datasets written by summarize_from_feedback_details (cleanrl, vwxyzjn); tldr_trl: trl-lib's."""
ANSWERED = {
    "messages": Columns("prompt", ("chosen",)),
    "tldr_oai": Columns("query", ("reference_response",), continues=True),
    "tldr_trl": Columns("prompt", ("completion",), continues=True),
    "alpaca_eval": Columns("instruction", ("output",)),
    "mt_bench": Columns("prompt", (), right="reference"),
    "arena_hard": Columns("prompt", ()),
}
"""Of prompts with one answer, or none. Arena-Hard's answers lie in files of their own (arena_hard.py)."""


@dataclass(frozen=True)
class SecondTurn:
    """A user's second question, and right answers to the first and to it; empty where there is none."""

    prompt: str
    first_reference: str
    reference: str


@dataclass(frozen=True)
class Found:
    """A row's prompt and answers, and the name of its defect if it has one."""

    row: Row
    prompt: str
    answers: tuple[str, ...]
    defect: str | None
    second: SecondTurn | None = None

    def named(self, source: Path, defect: str, **more: Any) -> dict[str, Any]:
        """A line of defects.json."""
        file = self.row.file.relative_to(source) if source.is_dir() else self.row.file.name
        return {"file": str(file), "row": self.row.number, "defect": defect, **more}


def read_columns(rows: Sequence[Row], columns: Columns) -> Iterator[Found]:
    """Every row; UserError, naming file, row and key, where a column is missing or holds something else.

    Defects: empty_prompt, empty_final_turn (an answer without text), identical_responses.
    """
    for row in rows:
        prompt = _text(row, columns.prompt, 0).strip()
        answers = tuple(_text(row, column, -1).removesuffix(END).strip() for column in columns.answers)
        defect = None
        if not prompt:
            defect = "empty_prompt"
        elif not all(answers):
            defect = "empty_final_turn"
        elif len(set(answers)) < len(answers):
            defect = "identical_responses"
        second = None if columns.right is None else _second(row, columns.prompt, columns.right)
        yield Found(row, prompt, tuple(f" {answer}" for answer in answers) if columns.continues else answers, defect, second)


def _second(row: Row, column: str, right: str) -> SecondTurn:
    turns, references = row.texts(column), row.texts(right) if any(row.values.get(right) or ()) else ["", ""]
    for name, found in ((column, turns), (right, references)):
        if len(found) != 2:
            raise row.error(name, f"has {len(found)} turns, not two")
    return SecondTurn(turns[1].strip(), references[0].strip(), references[1].strip())


def _text(row: Row, column: str, turn: int) -> str:
    """The text in a column, or that of one of its turns; a turn is a text, or a message with its content."""
    turns = row.values.get(column)
    if not isinstance(turns, list):
        return row.text(column)
    chosen = turns[turn] if turns else None
    content = chosen.get("content") if isinstance(chosen, dict) else chosen
    if not isinstance(content, str):
        raise row.error(column, "is neither a text nor a list of messages")
    return content
