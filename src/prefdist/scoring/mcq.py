"""The stage `questions`: how probable a teacher finds each answer to multiple-choice questions about responses.

An answer's probability is that of its identifier as the next token behind the question, as one user turn.
"""

import math
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.config.common import TRANSFORMERS
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.sampling.engines import Source, opened, write_about
from prefdist.scoring.candidates import RESPONSES, Candidates, check_lengths, read_candidates
from prefdist.scoring.questions import identifier_ids, orders, question_text
from prefdist.scoring.shards import sharded
from prefdist.tokens import TextCodec

SHARD = 256
"""Questions of a shard: a minute of a large model's work."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Question:
    """Its prompt, which of the prompt's questions it is, the samples it shows, and its ids."""

    prompt_id: str
    order: int
    options: tuple[int, ...]
    ids: list[int]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes questions.parquet. Resumes from `scratch`, which is removed at the end."""
    teacher = inputs["teacher"]
    asked = orders(spec["kind"], spec["orders"], spec["n"])
    candidates = read_candidates(inputs["text"], inputs["responses"])
    available = len(candidates[0].texts)
    if spec["n"] > available:
        file = inputs["responses"] / RESPONSES
        raise UserError(f"{file}: n is {spec['n']}, but each prompt has {available} samples; lower n or sample more")
    codec = TextCodec(teacher)
    identifiers = identifier_ids(codec, len(asked[0]))
    questions = [
        Question(item.prompt_id, k, options, _ids(codec, spec, item, options))
        for item in candidates
        for k, options in enumerate(asked)
    ]
    lengths = [len(question.ids) for question in questions]
    check_lengths(teacher, [question.prompt_id for question in questions], lengths, "question")
    with opened(spec.get("engine", TRANSFORMERS), teacher, max(lengths) + 1, spec["dtype"]) as source:
        rows = sharded(
            questions,
            lengths,
            lambda part: _answers(source, codec, identifiers, part),
            per_shard=SHARD,
            schema=tables.QUESTIONS,
            scratch=scratch,
            what="questions asked",
        )
        write_about(source.about, out)
    tables.write_table(out / "questions.parquet", rows, tables.QUESTIONS)
    shutil.rmtree(scratch, ignore_errors=True)


def _ids(codec: TextCodec, spec: dict[str, Any], item: Candidates, options: tuple[int, ...]) -> list[int]:
    return codec.prompt(question_text(spec["template"], item.prompt, [item.texts[i] for i in options], spec["longest"]))


def _answers(source: Source, codec: TextCodec, identifiers: list[list[int]], part: list[Question]) -> list[Row]:
    tokens = [i for ids in identifiers for i in ids]
    found = source.next_logps(source.model, [question.ids for question in part], tokens)
    rows = []
    for question, logps in zip(part, found, strict=True):
        each = iter(logps.double().exp().tolist())
        *p_options, p_none = [sum(next(each) for _ in ids) for ids in identifiers]
        mass = sum(p_options) + p_none
        if not math.isfinite(mass):
            raise UserError(
                f"{codec.folder}: the answers to question {question.order} of prompt {question.prompt_id!r} have probability "
                f"{mass}; the model's weights or its dtype are at fault, take dtype float32 or another teacher"
            )
        rows.append(
            {
                "prompt_id": question.prompt_id,
                "order": question.order,
                "options": list(question.options),
                "p_options": p_options,
                "p_none": p_none,
                "mass": mass,
            }
        )
    return rows
