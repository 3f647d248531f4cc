"""Lettered multiple-choice questions: one record, its rendering, and readers of MMLU and TruthfulQA-MC1.

The readers take local copies in the columns of the hub's. Left out: what a model makes of them (evaluation), questions
about a model's own responses (scoring/questions.py).
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase

from prefdist.data.json_lines import Row, read_rows
from prefdist.errors import UserError

LETTERS = ascii_uppercase


@dataclass(frozen=True)
class Question:
    """One question. `options` are in the order that is shown, `gold` is the index of the right one.

    order_seed: what the options were shuffled with; None where they stand as published.
    """

    question_id: str
    question: str
    options: tuple[str, ...]
    gold: int
    subject: str
    order_seed: int | None

    @property
    def letters(self) -> str:
        return LETTERS[: len(self.options)]

    @property
    def answer(self) -> str:
        """The letter of the right option."""
        return LETTERS[self.gold]


def shuffled(question_id: str, question: str, options: Sequence[str], gold: int, subject: str, seed: int) -> Question:
    """A question whose options stand in an order that is a pure function of seed, id and their number.

    ValueError for options that are fewer than two, more than the letters, or not distinct.
    """
    if not 2 <= len(options) <= len(LETTERS) or len(set(options)) != len(options):
        raise ValueError(f"a question has 2 to {len(LETTERS)} options, all different; got {list(options)}")
    order = sorted(range(len(options)), key=lambda i: hashlib.sha256(f"{seed}:{question_id}:{i}".encode()).digest())
    return Question(question_id, question, tuple(options[i] for i in order), order.index(gold), subject, seed)


def render(question: Question, shots: Sequence[Question] = (), header: str = "") -> str:
    """The prompt, up to `Answer:`; the answer is a space and a letter, as the answers of the shots show.

    The form is that of MMLU (Hendrycks et al. 2021, arXiv 2009.03300): the header, the shots and the question are parted
    by empty lines.
    """
    shown = [f"{_unanswered(shot)} {shot.answer}" for shot in shots]
    return "\n\n".join([*([header] if header else []), *shown, _unanswered(question)])


def mmlu_header(subject: str) -> str:
    """What stands above a subject's questions; `subject` with underscores, as published."""
    return f"The following are multiple choice questions (with answers) about {' '.join(subject.split('_')).strip()}."


def few_shot(dev: Sequence[Question], subject: str, shots: int = 5) -> list[Question]:
    """The first `shots` dev questions of a subject, in their order. UserError if there are fewer."""
    found = [question for question in dev if question.subject == subject][:shots]
    if len(found) < shots:
        raise UserError(f"subject {subject!r}: {len(found)} dev questions, but {shots} shots were asked for")
    return found


def read_mmlu(source: Path, split: str | None = None) -> list[Question]:
    """Rows with `question`, `subject`, four `choices` and `answer`, the index of the right one, in the published order.

    See `json_lines.read_rows` for `source` and `split`. UserError names the row and key that do not fit.
    """
    return [_mmlu(row) for row in read_rows(source, split)]


def read_truthfulqa_mc1(source: Path, seed: int, split: str | None = None) -> list[Question]:
    """Rows with `question` and `mc1_targets`, options shuffled: as published, the right one is always the first.

    `mc1_targets` is {"choices": [...], "labels": [1, 0, ...]} as on the hub, or {option: label} as the authors' file has it
    (Lin et al. 2022, arXiv 2109.07958). UserError names the row whose options are not 2 to 26 different ones, one right.
    """
    return [_truthfulqa(row, seed) for row in read_rows(source, split)]


def _unanswered(question: Question) -> str:
    options = (f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False))
    return "\n".join([question.question.strip(), *options, "Answer:"])


def _mmlu(row: Row) -> Question:
    choices, gold, subject = row.texts("choices"), row.integer("answer"), row.text("subject")
    if len(choices) != 4:
        raise row.error("choices", "has not four options")
    if not 0 <= gold < 4:
        raise row.error("answer", "is not the index of an option, 0 to 3")
    question = row.text("question")
    return Question(_identity(subject, question, *choices), question, tuple(choices), gold, subject, None)


def _truthfulqa(row: Row, seed: int) -> Question:
    targets = row.mapping("mc1_targets")
    if targets.keys() == {"choices", "labels"}:
        options, labels = list(targets["choices"]), list(targets["labels"])
    else:
        options, labels = list(targets), list(targets.values())
    if len(options) != len(labels) or sorted(labels) != [0] * (len(labels) - 1) + [1]:
        raise row.error("mc1_targets", "has not exactly one option labelled 1, and 0 for each of the others")
    question = row.text("question")
    try:
        return shuffled(_identity(question, *options), question, options, labels.index(1), "", seed)
    except ValueError as error:
        raise row.error("mc1_targets", f"does not hold the options of a question: {error}") from error


def _identity(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
