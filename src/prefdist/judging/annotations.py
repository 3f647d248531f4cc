"""AlpacaEval's own format, annotations.json: ours for its tools, and its for ours.

A list of objects: instruction, output_1 (the baseline's), generator_1, output_2, generator_2, annotator, preference (1 … 2,
null where missing). Left out: its leaderboards, and raw completions of other annotators.
"""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.errors import UserError
from prefdist.judging.measures import of_prompts

Row = dict[str, Any]
TEXTS = ("instruction", "output_1", "generator_1", "output_2", "generator_2", "annotator")


@dataclass(frozen=True)
class Annotation:
    """One judged pair. preference: 1 = output_1 (the baseline), 2 = output_2, between = soft; None = missing."""

    instruction: str
    output_1: str
    generator_1: str
    output_2: str
    generator_2: str
    annotator: str
    preference: float | None


def annotations(
    comparisons: Sequence[Row], judgements: Sequence[Row], *, model: str, baseline: str, annotator: str
) -> list[Annotation]:
    """One a prompt, from the stored tables; the preference is the mean over the orders that could be read.

    UserError if a prompt has several samples (AlpacaEval compares one answer a prompt), or no baseline.
    """
    found, judged = [], of_prompts(judgements)
    for row in comparisons:
        if row["baseline"] is None or row["sample"] != comparisons[0]["sample"]:
            raise UserError(
                f"prompt {row['prompt_id']!r}: AlpacaEval's format holds one answer a prompt beside a baseline's; judge one "
                "sample"
            )
        read = [one["preference"] for one in judged[row["prompt_id"]] if one["preference"] is not None]
        preference = math.fsum(read) / len(read) if read else None
        found.append(Annotation(row["prompt"], row["baseline"], baseline, row["answer"], model, annotator, preference))
    return found


def write_annotations(file: Path, found: Sequence[Annotation]) -> None:
    temporary = file.with_name(file.name + ".tmp")
    temporary.write_text(json.dumps([vars(one) for one in found], indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, file)


def read_annotations(file: Path) -> list[Annotation]:
    """Annotations of one model against one baseline; other keys are ignored, missing or null preferences are None.

    Raises:
        UserError: the file is no such list, a key is missing, a preference is no number of AlpacaEval's, or names differ.
    """
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise UserError(f"{file}: not a list of annotations; alpaca_eval writes one as annotations.json")
    found = [_annotation(file, number, row) for number, row in enumerate(rows)]
    for key in ("generator_1", "generator_2"):
        names = sorted({getattr(one, key) for one in found})
        if len(names) > 1:
            raise UserError(f"{file}: {key} has several values ({', '.join(names[:5])}); split the file by model")
    return found


def _annotation(file: Path, number: int, row: Any) -> Annotation:
    missing = [key for key in TEXTS if not isinstance(row, dict) or not isinstance(row.get(key), str)]
    if missing:
        raise UserError(f"{file}: row {number}: {missing[0]!r} is missing or no text; alpaca_eval writes {', '.join(TEXTS)}")
    preference = row.get("preference")
    if isinstance(preference, float) and math.isnan(preference):
        preference = None
    if preference is not None and not (
        isinstance(preference, int | float)
        and (preference == 0 or 1.0 <= preference <= 2.0)
        and not isinstance(preference, bool)
    ):
        raise UserError(f"{file}: row {number}: preference is {preference!r}, neither 0 nor in [1, 2]; mend the row")
    return Annotation(**{key: row[key] for key in TEXTS}, preference=None if preference is None else float(preference))
