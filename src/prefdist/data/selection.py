"""Which prompts of a split are used, where not all are: the first in an order that has nothing to do with their modules."""

import hashlib
from pathlib import Path
from typing import Any

from prefdist.data import tables


def first_prompts(text: Path, split: str, size: int) -> list[dict[str, Any]]:
    """The first `size` rows of the split in prompts.parquet of the folder `text`; all of them if there are fewer."""
    return _first(text, split, size, "")


def held_out(text: Path, split: str, size: int) -> list[dict[str, Any]]:
    """As above for evaluation, in another order: what is evaluated first is not what was labelled first."""
    return _first(text, split, size, "evaluation")


def _first(text: Path, split: str, size: int, salt: str) -> list[dict[str, Any]]:
    rows = [row for row in tables.read_table(text / "prompts.parquet", tables.PROMPTS) if row["split"] == split]
    rows.sort(key=lambda row: hashlib.sha256((salt + row["prompt_id"]).encode()).digest())
    return rows[:size]
