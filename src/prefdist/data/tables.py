"""The Parquet tables that flow between stages: one checked schema each, atomic writes.

Left out: what the columns are used for (see the stage that writes them).
"""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from prefdist.errors import UserError

_ids = pa.list_(pa.int32())

PROMPTS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("module", pa.string()),
        ("split", pa.string()),  # train | validation | test, whole modules at a time
        ("prompt", pa.string()),
        ("reference", pa.string()),
    ]
)
"""A row is a documented function or class: what a reader sees, and its summary line."""

SECOND_TURNS = pa.schema(
    [("prompt_id", pa.string()), ("prompt", pa.string()), ("first_reference", pa.string()), ("reference", pa.string())]
)
"""A row is the second question of a dialogue whose first is prompt_id's; right answers to the first and to it, or empty."""

PREFERENCES = pa.schema(
    [
        ("pair_id", pa.string()),
        ("prompt_id", pa.string()),
        ("split", pa.string()),
        ("prompt", pa.string()),
        ("chosen", pa.string()),
        ("rejected", pa.string()),
        ("chosen_ids", _ids),
        ("rejected_ids", _ids),
        ("p_chosen", pa.float64()),
    ]
)
"""A row is a labelled pair; p_chosen is the known probability that `chosen` beats `rejected`."""

RESPONSES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("token_ids", _ids),
        ("text", pa.string()),
        ("finish_reason", pa.string()),  # stop (its last token ends it) | length (filled its budget)
        ("n_tokens", pa.int32()),
        ("logp", pa.float64()),
    ]
)
"""A row is one sample; logp in nats at T = 1, summed over the tokens including the one that ends it."""

DRAWS = pa.schema([*RESPONSES, ("logq", pa.float64())])
"""A row is one sample; logq in nats under the law that it was drawn from, columns as above."""

SAMPLES = pa.schema([*RESPONSES, ("prompt", pa.string())])
"""A row is one of the distinct responses to a prompt, numbered from 0 in the order of their choice; columns as above."""

TEACHER_SCORES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("logp", pa.float64()),
        ("n_tokens", pa.int32()),
        ("logp_end", pa.float64()),
        ("n_end", pa.int32()),
        ("n_bytes", pa.int32()),
    ]
)
"""A row is one response under a teacher, in nats and in the teacher's tokens: logp and n_tokens with the end token, whose
share of them is logp_end and n_end (0 for responses that were cut off); n_bytes of its text in UTF-8."""

QUESTIONS = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("order", pa.int32()),
        ("options", _ids),
        ("p_options", pa.list_(pa.float64())),
        ("p_none", pa.float64()),
        ("mass", pa.float64()),
    ]
)
"""A row is a multiple-choice question about responses of a prompt: which samples, as shown, and how probable the letter of
each is, the answer None, and all of them together. `order` counts a prompt's questions from 0."""

SCORES = pa.schema(
    [
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("scorer", pa.string()),
        ("logp", pa.float64()),
        ("n_tokens", pa.int32()),
        ("reward", pa.float64()),
    ]
)
"""A row is one scored response; logp is null for reward models, reward is null for language models."""

LOGPS = pa.schema([("pair_id", pa.string()), ("logp_chosen", pa.float64()), ("logp_rejected", pa.float64())])
"""A row is a labelled pair under a fixed reference model, in the order of the preferences table."""

CALIBRATION = pa.schema(
    [("pair_id", pa.string()), ("prompt_id", pa.string()), ("p_model", pa.float64()), ("p_known", pa.float64())]
)
"""A row is a held-out pair: the reward model's probability that the chosen response wins, and the known one."""

TEACHER_PAIRS = pa.schema(
    [
        ("reward", pa.string()),
        ("prompt_id", pa.string()),
        ("pair", pa.int32()),
        ("p_model", pa.float64()),
        ("p_known", pa.float64()),
        ("first_wins", pa.bool_()),
    ]
)
"""A row is a held-out pair i < j of candidates under one reward: the teacher's probability that i wins, the known, a draw."""

CHOICES = pa.schema(
    [
        ("question_id", pa.string()),
        ("prompt", pa.string()),
        ("options", pa.int32()),
        ("gold", pa.int32()),
        ("subject", pa.string()),
    ]
)
"""A row is a multiple-choice question as it is put to a model: how many lettered options it has, and which one is right."""

ANSWERS = pa.schema(
    [
        ("run", pa.string()),
        ("choices", pa.string()),
        ("seed", pa.int32()),
        ("question_id", pa.string()),
        ("gold", pa.int32()),
        ("logp_options", pa.list_(pa.float64())),
    ]
)
"""A row is a model's answer: the log-probability, in nats, of each option's letter as the next token."""

OUTCOMES = pa.schema(
    [
        ("run", pa.string()),
        ("seed", pa.int32()),
        ("prompt_id", pa.string()),
        ("sample", pa.int32()),
        ("correct", pa.bool_()),
        ("reward", pa.float64()),
    ]
)
"""A row is one answer to a problem: is it right, and what a reward model makes of it (null where it was not asked)."""

METRICS = pa.schema(
    [
        ("run", pa.string()),
        ("seed", pa.int32()),
        ("prompt_id", pa.string()),
        ("metric", pa.string()),
        ("value", pa.float64()),
    ]
)
"""A row is one measurement of one prompt; tables and intervals are computed from these rows, never from means."""


def write_table(path: Path, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
    """Write rows with exactly the schema's columns, atomically. Raises on a missing, unknown or ill-typed column."""
    names = set(schema.names)
    for row in rows:
        if set(row) != names:
            raise ValueError(f"{path.name}: row has columns {sorted(row)}, the schema has {sorted(names)}")
    temporary = path.with_name(path.name + ".tmp")
    try:
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def read_table(path: Path, schema: pa.Schema) -> list[dict[str, Any]]:
    """Rows of a table as dictionaries. UserError if the file is absent or its columns differ from the schema."""
    if not path.is_file():
        raise UserError(f"{path}: no such table; run the stage that writes it")
    table = pq.read_table(path)
    if not table.schema.equals(schema, check_metadata=False):
        raise UserError(f"{path}: its columns are {table.schema.names}, expected {schema.names} with the types of tables.py")
    return table.to_pylist()
