"""The stage `prompts`: prompts.parquet from a hub dataset or local files, with the answers that it has to them."""

import hashlib
import json
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.budget import LONG, SHORTENED, Budget
from prefdist.data.columns import ANSWERED, read_columns
from prefdist.data.hub import hub_prompts
from prefdist.data.json_lines import read_rows
from prefdist.errors import UserError
from prefdist.tokens import checked_codec

REPEATED = "repeated_prompt"
Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Prompts with their splits and, where the dataset has them, references.

    Of an artefact `dataset` read by its format, within a budget of `base`'s tokens; then defects.json names the rows that were
    left out or shortened, each with its file, row and reason.
    """
    if "dataset" not in inputs:
        tables.write_table(out / "prompts.parquet", hub_prompts(spec), tables.PROMPTS)
        return
    source = inputs["dataset"] / spec["path"]
    budget = Budget(checked_codec(inputs["base"]), spec["max_prompt_tokens"], spec["too_long"])
    rows: dict[str, Row] = {}
    defects: list[Row] = []
    for split in sorted(spec["splits"], key=lambda name: name == "train"):  # a prompt that is held out is not trained on
        found, left_out = _read(spec, source, split, budget, set(rows))
        rows |= found
        defects += left_out
    if not rows:
        raise UserError(f"{source}: no prompt is left of splits {', '.join(spec['splits'].values())}; look at the dataset")
    tables.write_table(out / "prompts.parquet", list(rows.values()), tables.PROMPTS)
    (out / "defects.json").write_text(json.dumps(defects, indent=1) + "\n")


def _read(spec: Row, source: Path, split: str, budget: Budget, known: set[str]) -> tuple[dict[str, Row], list[Row]]:
    """Rows of tables.PROMPTS by their id, and what is wrong with others."""
    rows: dict[str, Row] = {}
    defects = []
    for one in read_columns(read_rows(source, spec["splits"][split]), ANSWERED[spec["format"]]):
        if one.defect is not None:
            if spec["on_defect"] == "refuse":
                raise one.row.error(ANSWERED[spec["format"]].prompt, f"is no use as a prompt ({one.defect})")
            defects.append(one.named(source, one.defect))
            continue
        prompt, length = budget.fit(one)
        if prompt != one.prompt:
            defects.append(one.named(source, SHORTENED if prompt else LONG, tokens=length))
        if not prompt:
            continue
        name = hashlib.sha256(prompt.encode()).hexdigest()[:16]
        if name in known or name in rows:
            defects.append(one.named(source, REPEATED))
            continue
        reference = one.answers[0] if one.answers else ""
        rows[name] = {"prompt_id": name, "module": source.name, "split": split, "prompt": prompt, "reference": reference}
    return rows, defects
