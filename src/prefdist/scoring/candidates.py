"""The responses that a teacher reads: checked against its own text before any model is loaded."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.errors import UserError

RESPONSES = "responses.parquet"


@dataclass(frozen=True)
class Candidates:
    """A prompt and its responses: texts [n], and whether each was ended by its writer [n]."""

    prompt_id: str
    prompt: str
    texts: list[str]
    ended: list[bool]


def read_candidates(text: Path, responses: Path) -> list[Candidates]:
    """All prompts of the folder `responses`, in their order.

    UserError, naming the prompt, if the folder `text` does not have it or has another text, if samples are missing or not
    numbered from 0, or if a response is blank.
    """
    file = responses / RESPONSES
    prompts = {row["prompt_id"]: row["prompt"] for row in tables.read_table(text / "prompts.parquet", tables.PROMPTS)}
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in tables.read_table(file, tables.SAMPLES):
        groups.setdefault(row["prompt_id"], []).append(row)
    if not groups:
        raise UserError(f"{file}: no responses; run the stage that writes it again")
    n = max(map(len, groups.values()))
    for prompt_id, rows in groups.items():
        _check(file, text, prompt_id, rows, prompts.get(prompt_id), n)
    return [
        Candidates(name, rows[0]["prompt"], [row["text"] for row in rows], [row["finish_reason"] == "stop" for row in rows])
        for name, rows in groups.items()
    ]


def _check(file: Path, text: Path, prompt_id: str, rows: list[dict[str, Any]], prompt: str | None, n: int) -> None:
    where = f"{file}: prompt {prompt_id!r}"
    if prompt is None:
        raise UserError(f"{where} is not in {text}: teacher and student prompts differ; use the text that it was sampled from")
    for row in rows:
        if row["prompt"] != prompt:
            raise UserError(
                f"{where} reads {row['prompt'][:60]!r}, but {prompt[:60]!r} in {text}: teacher and student prompts differ; "
                "use the text that it was sampled from"
            )
        if not row["text"].strip():
            raise UserError(f"{where}: response {row['sample']} is blank; drop the prompt or sample it again")
    samples = [row["sample"] for row in rows]
    if samples != list(range(n)):
        raise UserError(f"{where} has samples {samples}, expected 0 to {n - 1} in this order; sample it again")


def check_lengths(teacher: Path, prompt_ids: Sequence[str], lengths: Sequence[int], what: str) -> None:
    """UserError, naming the prompt, if some text of `lengths` tokens is longer than the context of the model folder."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(teacher, local_files_only=True).get_text_config()
    context = getattr(config, "max_position_embeddings", None)
    for prompt_id, length in zip(prompt_ids, lengths, strict=True):
        if context is not None and length > context:
            raise UserError(
                f"{teacher}: the {what} of prompt {prompt_id!r} has {length} tokens, but the model's context "
                f"(max_position_embeddings) is {context}; shorten the responses or take another teacher"
            )
