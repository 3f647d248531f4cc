"""How often a teacher picks the right reference: the questions it was trained on, about prompts it has or has not seen.

The wrong options are the references of the nearest other functions of the same module; the right one stands at each position
equally often. Left out: questions about a student's samples, which have no right answer (scoring/mcq.py).
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.models import load_frozen
from prefdist.scoring.questions import LETTERS, question_text
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec

Row = dict[str, Any]
ASKED = 300
"""Prompts of a split that are asked about."""


def reference_answers(text: Path, teacher: Path, template: str) -> list[Row]:
    """Metric rows: run "<split>, <n> options", metric "right" = 1 where the right letter is the most probable, else 0."""
    codec, model = TextCodec(teacher), load_frozen(teacher)
    rows = tables.read_table(text / "prompts.parquet", tables.PROMPTS)
    found = []
    for split in ("train", "test"):
        of_split = [row for row in rows if row["split"] == split]
        for n in (2, 4):
            asked = [(row, options) for i, row in enumerate(of_split) if (options := options_near(of_split, i, n))][:ASKED]
            prompts = [codec.prompt(question_text(template, row["prompt"], options)) for row, options in asked]
            tokens = [codec.single_tokens([letter]) for letter in LETTERS[:n]]
            logps = response_logps(model, prompts, [tokens] * len(prompts), pad_id=codec.pad_id)
            found += [
                {
                    "run": f"{split}, {n} options",
                    "seed": 0,
                    "prompt_id": row["prompt_id"],
                    "metric": "right",
                    "value": float(options[int(of_letters.argmax())] == row["reference"]),
                }
                for (row, options), of_letters in zip(asked, logps, strict=True)
            ]
    return found


def options_near(rows: list[Row], i: int, n: int) -> list[str]:
    """n references with the right one at position i mod n; none if the module has too few."""
    right = rows[i]["reference"]
    near = sorted((abs(k - i), k) for k in range(max(0, i - 20), min(len(rows), i + 21)))
    others = dict.fromkeys(rows[k]["reference"] for _, k in near if rows[k]["module"] == rows[i]["module"])
    wrong = [text for text in others if text != right][: n - 1]
    if len(wrong) < n - 1:
        return []
    return [*wrong[: i % n], right, *wrong[i % n :]]
