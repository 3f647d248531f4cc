"""The stage `text`: prompts.parquet, the tokenizer trained on its training split, and the data card."""

import json
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.card import data_card
from prefdist.data.stdlib import digest, extract
from prefdist.data.tokenizer import token_statistics, train_tokenizer


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Read the running interpreter's library. The tokenizer sees training text only."""
    extraction = extract(
        fractions={split: spec[split] for split in ("train", "validation", "test")},
        seed=spec["seed"],
        max_reference_chars=spec["max_reference_chars"],
        max_prompt_chars=spec["max_prompt_chars"],
    )
    rows = extraction.rows
    tables.write_table(out / "prompts.parquet", rows, tables.PROMPTS)
    training = [row for row in rows if row["split"] == "train"]
    train_tokenizer((f"{row['prompt']}\n{row['reference']}" for row in training), spec["vocabulary"], out / "tokenizer")
    statistics = token_statistics(out / "tokenizer", rows)
    (out / "card.md").write_text(data_card(extraction, digest(rows), statistics))
    (out / "counts.json").write_text(json.dumps({"counts": extraction.counts, "digest": digest(rows)}, indent=1))
