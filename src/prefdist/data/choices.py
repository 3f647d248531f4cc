"""The stage `choices`: multiple-choice questions with one right option, as they are put to a model.

Of a testbed's text: which summary belongs to this function, or what is the result of this problem. Of MMLU and TruthfulQA-MC1:
their questions, with shots of MMLU's dev split. Left out: the answers (behaviour/calibration.py).
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.arithmetic import lettered
from prefdist.data.multiple_choice import Question, few_shot, mmlu_header, read_mmlu, read_truthfulqa_mc1, render
from prefdist.data.selection import held_out
from prefdist.errors import UserError
from prefdist.evaluation.answers import options_near
from prefdist.scoring.questions import question_text

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes choices.parquet. UserError if the source has none."""
    rows = _SOURCES[spec["source"]](spec, inputs)[: spec["questions"]]
    if not rows:
        raise UserError(f"{next(iter(inputs.values()))}: no question of source {spec['source']}, split {spec['split']!r}")
    tables.write_table(out / "choices.parquet", rows, tables.CHOICES)


def _references(spec: dict[str, Any], inputs: dict[str, Path]) -> list[Row]:
    """Wrong options are the references of the nearest other functions of the module; the right one stands everywhere alike."""
    every = tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS)
    of_split = [row for row in every if row["split"] == spec["split"]]
    place = {row["prompt_id"]: i for i, row in enumerate(of_split)}
    rows = []
    for row in held_out(inputs["text"], spec["split"], len(of_split)):
        options = options_near(of_split, place[row["prompt_id"]], spec["options"])
        if options:
            gold = options.index(row["reference"])
            question = Question(row["prompt_id"], row["prompt"], tuple(options), gold, row["module"], None)
            rows.append(_row(spec, question, []))
    return rows


def _arithmetic(spec: dict[str, Any], inputs: dict[str, Path]) -> list[Row]:
    problems = held_out(inputs["text"], spec["split"], spec["questions"])
    found = [lettered(row["prompt_id"], row["prompt"], row["reference"], spec["options"], spec["seed"]) for row in problems]
    return [_row(spec, question, []) for question in found]


def _mmlu(spec: dict[str, Any], inputs: dict[str, Path]) -> list[Row]:
    folder = inputs["dataset"] / spec["path"]
    dev = read_mmlu(folder, "dev") if spec["shots"] else []
    questions = _spread(read_mmlu(folder, spec["split"]))[: spec["questions"]]
    return [_row(spec, q, few_shot(dev, q.subject, spec["shots"]), mmlu_header(q.subject)) for q in questions]


def _truthfulqa(spec: dict[str, Any], inputs: dict[str, Path]) -> list[Row]:
    questions = read_truthfulqa_mc1(inputs["dataset"] / spec["path"], spec["seed"], spec["split"])
    return [_row(spec, question, []) for question in _spread(questions)]


_SOURCES = {"references": _references, "arithmetic": _arithmetic, "mmlu": _mmlu, "truthfulqa": _truthfulqa}


def _spread(questions: list[Question]) -> list[Question]:
    """In an order that has nothing to do with subjects: the first few are then of all of them."""
    return sorted(questions, key=lambda question: question.question_id)  # a digest


def _row(spec: dict[str, Any], question: Question, shots: list[Question], header: str = "") -> Row:
    if spec["template"] == "letters":
        prompt = render(question, shots, header)
    else:
        prompt = question_text(spec["template"], question.question, question.options)
    return {
        "question_id": question.question_id,
        "prompt": prompt,
        "options": len(question.options),
        "gold": question.gold,
        "subject": question.subject,
    }
