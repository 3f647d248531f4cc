"""The stage `text`: prompts.parquet, the tokenizer trained on its training split, and the data card."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

from prefdist.data import arithmetic, tables
from prefdist.data.arithmetic_card import arithmetic_card
from prefdist.data.card import data_card
from prefdist.data.stdlib import digest, extract
from prefdist.data.tokenizer import token_statistics, train_tokenizer

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Read the running interpreter's library, or make word problems. The tokenizer sees training text only."""
    if spec.get("kind") == "arithmetic":  # a text of the library has none in its specification
        rows = arithmetic.rows(spec)
        statistics = _written(rows, spec["vocabulary"], out)
        counts = {f"kept_{split}": n for split, n in Counter(row["split"] for row in rows).items()}
        card = arithmetic_card(spec, rows, digest(rows), statistics)
    else:
        extraction = extract(
            fractions={split: spec[split] for split in ("train", "validation", "test")},
            seed=spec["seed"],
            max_reference_chars=spec["max_reference_chars"],
            max_prompt_chars=spec["max_prompt_chars"],
        )
        rows, counts = extraction.rows, extraction.counts
        card = data_card(extraction, digest(rows), _written(rows, spec["vocabulary"], out))
    (out / "card.md").write_text(card)
    (out / "counts.json").write_text(json.dumps({"counts": counts, "digest": digest(rows)}, indent=1))


def _written(rows: list[Row], vocabulary: int, out: Path) -> dict[str, int]:
    """Write table and tokenizer; returns the tokenizer's statistics."""
    tables.write_table(out / "prompts.parquet", rows, tables.PROMPTS)
    training = [row for row in rows if row["split"] == "train"]
    train_tokenizer((f"{row['prompt']}\n{row['reference']}" for row in training), vocabulary, out / "tokenizer")
    return token_statistics(out / "tokenizer", rows)
