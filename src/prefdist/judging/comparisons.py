"""What is judged: an answer beside a baseline's, or an answer of two turns; read from tables and checked before it costs money.

Left out: how answers come about (stages `draws` and `responses`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.judging.schemas import COMPARISONS

Row = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """A text; where a model drew it, its ids in that model's tokenizer and whether it was ended rather than cut off."""

    text: str
    token_ids: tuple[int, ...] | None = None
    ended: bool = True


@dataclass(frozen=True)
class Comparison:
    """An answer to a prompt. `baseline` is what it is compared with; the `second_` fields are MT-Bench's second turn.

    `reference` is a right answer, shown to a judge that rates against one; empty texts count as none.
    """

    prompt_id: str
    sample: int
    prompt: str
    answer: Answer
    baseline: Answer | None = None
    reference: str | None = None
    second_prompt: str | None = None
    second_answer: str | None = None
    second_reference: str | None = None

    def row(self) -> Row:
        """Of the table COMPARISONS."""
        values = {name: getattr(self, name) for name in COMPARISONS.names if name not in ("answer", "baseline")}
        return {**values, "answer": self.answer.text, "baseline": None if self.baseline is None else self.baseline.text}


def from_row(row: Row) -> Comparison:
    """The inverse of `Comparison.row`; of the answers only the texts are stored."""
    baseline = None if row["baseline"] is None else Answer(row["baseline"])
    return Comparison(**{**row, "answer": Answer(row["answer"]), "baseline": baseline})


def lengths(comparison: Comparison) -> Row:
    """Columns length_answer and length_baseline of JUDGEMENTS, in characters; a second turn's answer is not counted."""
    baseline = comparison.baseline
    return {"length_answer": len(comparison.answer.text), "length_baseline": None if baseline is None else len(baseline.text)}


def read_pairs(inputs: dict[str, Path], samples: int | None = None) -> list[Comparison]:
    """Every answer of `answers` beside one of `baseline`, or beside its prompt's reference where there is no such input.

    samples: a prompt's first answers, so many; None for all. Sample k meets the baseline's sample k, or its only one.

    Raises:
        UserError: a prompt, a baseline or a reference is missing, or numbers of samples do not fit.
    """
    prompts, answers = _prompts(inputs["prompts"]), read_answers(inputs["answers"], samples)
    others = read_answers(inputs["baseline"], samples) if "baseline" in inputs else None
    found = []
    for prompt_id, drawn in answers.items():
        prompt = _of(prompts, prompt_id, inputs["prompts"], inputs["answers"])
        if others is None:
            if not prompt["reference"]:
                raise UserError(
                    f"{inputs['prompts']}: prompt {prompt_id!r} has no reference to compare with; give answers of a baseline, "
                    "or leave the prompt out"
                )
            beside = [Answer(prompt["reference"])]
        else:
            beside = list(_of(others, prompt_id, inputs["baseline"], inputs["answers"]).values())
        if len(beside) not in (1, len(drawn)):
            raise UserError(
                f"{inputs['baseline']}: prompt {prompt_id!r} has {len(beside)} samples, {inputs['answers']} has "
                f"{len(drawn)}; draw as many, or one"
            )
        for k, (sample, answer) in enumerate(drawn.items()):
            found.append(Comparison(prompt_id, sample, prompt["prompt"], answer, beside[k if len(beside) > 1 else 0]))
    return found


def read_dialogues(inputs: dict[str, Path], samples: int | None = None) -> list[Comparison]:
    """Answers of two turns: `answers` to `prompts`, `second_answers` to their second turns, with the same names and samples.

    samples: a prompt's first answers, so many; None for all. References, where a question has one, are right answers.

    Raises:
        UserError: a prompt or an answer of either turn is missing.
    """
    prompts, second_turns = _prompts(inputs["prompts"]), _second_turns(inputs["prompts"])
    answers, second = (read_answers(inputs[role], samples) for role in ("answers", "second_answers"))
    found = []
    for prompt_id, drawn in answers.items():
        first = _of(prompts, prompt_id, inputs["prompts"], inputs["answers"])
        turn = _of(second_turns, prompt_id, inputs["prompts"] / "second_turns.parquet", inputs["answers"])
        replies = _of(second, prompt_id, inputs["second_answers"], inputs["answers"])
        if list(replies) != list(drawn):
            raise UserError(
                f"{inputs['second_answers']}: prompt {prompt_id!r} has samples {list(replies)}, its first turn "
                f"{list(drawn)}; draw the second turn again"
            )
        for sample, answer in drawn.items():
            found.append(
                Comparison(
                    prompt_id,
                    sample,
                    first["prompt"],
                    answer,
                    reference=turn["first_reference"] or None,
                    second_prompt=turn["prompt"],
                    second_answer=replies[sample].text,
                    second_reference=turn["reference"] or None,
                )
            )
    return found


def read_answers(folder: Path, samples: int | None = None) -> dict[str, dict[int, Answer]]:
    """prompt_id -> sample -> answer, of draws.parquet or else responses.parquet; `samples`: the first ones of each prompt.

    UserError if there is none.
    """
    file = folder / "draws.parquet"
    if file.is_file():
        rows = tables.read_table(file, tables.DRAWS)
    else:
        file = folder / "responses.parquet"
        rows = tables.read_table(file, tables.SAMPLES)
    found: dict[str, dict[int, Answer]] = {}
    for row in rows:
        ended = row["finish_reason"] == "stop"
        of_prompt = found.setdefault(row["prompt_id"], {})
        if samples is None or len(of_prompt) < samples:
            of_prompt[row["sample"]] = Answer(row["text"], tuple(row["token_ids"]), ended)
    if not found:
        raise UserError(f"{file}: no answer in it; run the stage that writes it again")
    return found


def _prompts(folder: Path) -> dict[str, Row]:
    rows: Sequence[Row] = tables.read_table(folder / "prompts.parquet", tables.PROMPTS)
    return {row["prompt_id"]: row for row in rows}


def _second_turns(folder: Path) -> dict[str, Row]:
    rows: Sequence[Row] = tables.read_table(folder / "second_turns.parquet", tables.SECOND_TURNS)
    return {row["prompt_id"]: row for row in rows}


def _of(found: dict[str, Any], prompt_id: str, where: Path, answers: Path) -> Any:
    if prompt_id not in found:
        raise UserError(f"{where}: prompt {prompt_id!r} is missing, which {answers} answers; make both from the same prompts")
    return found[prompt_id]
