"""The stage `scores`: log-likelihoods of responses under a teacher, in its own tokenizer and template.

A response that its writer ended is scored with the teacher's end token; one that was cut off has none. Both parts are
kept apart, so that every normalisation can be chosen later (rewards.py).
"""

import math
import shutil
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.models import load_frozen
from prefdist.scoring.candidates import Candidates, check_lengths, read_candidates
from prefdist.scoring.sequences import response_logps_and_ends
from prefdist.scoring.shards import sharded
from prefdist.tokens import TextCodec

SHARD = 128
"""Prompts of a shard: a minute of a large model's work."""

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes scores.parquet. Resumes from `scratch`, which is removed at the end."""
    teacher = inputs["teacher"]
    candidates = read_candidates(inputs["text"], inputs["responses"])
    codec = TextCodec(teacher)
    lengths = [_tokens(codec, item) for item in candidates]
    longest = [prompt + max(responses) for prompt, responses in lengths]
    check_lengths(teacher, [item.prompt_id for item in candidates], longest, "prompt and longest response")
    model = load_frozen(teacher, spec["dtype"])
    rows = sharded(
        candidates,
        [prompt + sum(responses) for prompt, responses in lengths],
        lambda part: _scores(model, codec, teacher, part),
        per_shard=SHARD,
        schema=tables.TEACHER_SCORES,
        scratch=scratch,
        what="prompts scored",
    )
    tables.write_table(out / "scores.parquet", rows, tables.TEACHER_SCORES)
    shutil.rmtree(scratch, ignore_errors=True)


def _tokens(codec: TextCodec, item: Candidates) -> tuple[int, list[int]]:
    """Tokens of the prompt, and of each response."""
    return len(codec.prompt(item.prompt)), [len(ids) for ids in _responses(codec, item)]


def _responses(codec: TextCodec, item: Candidates) -> list[list[int]]:
    """Ids of each response; without the end token where the writer did not end it."""
    whole = [codec.response(text) for text in item.texts]
    return [ids if ended else ids[:-1] for ids, ended in zip(whole, item.ended, strict=True)]


def _scores(model: Any, codec: TextCodec, teacher: Path, part: list[Candidates]) -> list[Row]:
    responses = [_responses(codec, item) for item in part]
    found = response_logps_and_ends(model, [codec.prompt(item.prompt) for item in part], responses, pad_id=codec.pad_id)
    rows = []
    for item, ids, values in zip(part, responses, found, strict=True):
        for sample, (logp, last) in enumerate(values.tolist()):
            if not math.isfinite(logp):
                raise UserError(
                    f"{teacher}: the log-likelihood of prompt {item.prompt_id!r}, sample {sample} is {logp}; "
                    "the model's weights or its dtype are at fault, take dtype float32 or another teacher"
                )
            ended = item.ended[sample]
            rows.append(
                {
                    "prompt_id": item.prompt_id,
                    "sample": sample,
                    "logp": logp,
                    "n_tokens": len(ids[sample]),
                    "logp_end": last if ended else 0.0,
                    "n_end": int(ended),
                    "n_bytes": len(item.texts[sample].encode()),
                }
            )
    return rows
