"""The stage `prompts`: prompts.parquet from a hub dataset or local files, with the answers that it has to them."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.arena_hard import answered, read_model_answers
from prefdist.data.budget import LONG, SHORTENED, Budget
from prefdist.data.columns import ANSWERED, Found, read_columns
from prefdist.data.hub import hub_prompts
from prefdist.data.json_lines import read_rows
from prefdist.errors import UserError
from prefdist.tokens import checked_codec

REPEATED = "repeated_prompt"
Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Prompts with their splits and, where the dataset has them, references.

    Of an artefact `dataset` read by its format, within a budget of `base`'s tokens; then defects.json names the rows that were
    left out or shortened, each with its file, row and reason, and second_turns.parquet holds second questions where the format
    has them.
    """
    if "dataset" not in inputs:
        tables.write_table(out / "prompts.parquet", hub_prompts(spec), tables.PROMPTS)
        return
    source = inputs["dataset"] / spec["path"]
    budget = Budget(checked_codec(inputs["base"]), spec["max_prompt_tokens"], spec["too_long"])
    rows: dict[str, Row] = {}
    second_turns: list[Row] = []
    defects: list[Row] = []
    for split in sorted(spec["splits"], key=lambda name: name == "train"):  # a prompt that is held out is not trained on
        for one, prompt in _kept(spec, inputs["dataset"], split, budget, defects):
            name = hashlib.sha256(prompt.encode()).hexdigest()[:16]
            if name in rows:
                defects.append(one.named(source, REPEATED))
                continue
            reference = one.answers[0] if one.answers else ""
            rows[name] = {"prompt_id": name, "module": source.name, "split": split, "prompt": prompt, "reference": reference}
            if one.second is not None:
                second_turns.append({"prompt_id": name, **asdict(one.second)})
    if not rows:
        raise UserError(f"{source}: no prompt is left of splits {', '.join(spec['splits'].values())}; look at the dataset")
    tables.write_table(out / "prompts.parquet", list(rows.values()), tables.PROMPTS)
    if second_turns:
        tables.write_table(out / "second_turns.parquet", second_turns, tables.SECOND_TURNS)
    (out / "defects.json").write_text(json.dumps(defects, indent=1) + "\n")


def _kept(spec: Row, dataset: Path, split: str, budget: Budget, defects: list[Row]) -> Iterator[tuple[Found, str]]:
    """What is of use, with its prompt as it is used; what is wrong with others, or was shortened, goes to `defects`."""
    source, columns = dataset / spec["path"], ANSWERED[spec["format"]]
    found = read_columns(read_rows(source, spec["splits"][split]), columns)
    if "answers" in spec:
        found = answered(found, read_model_answers(dataset / spec["answers"]))
    for one in found:
        if one.defect is not None:
            if spec["on_defect"] == "refuse":
                raise one.row.error(columns.prompt, f"is no use as a prompt ({one.defect})")
            defects.append(one.named(source, one.defect))
            continue
        prompt, length = budget.fit(one)
        if prompt != one.prompt:
            defects.append(one.named(source, SHORTENED if prompt else LONG, tokens=length))
        if prompt:
            yield one, prompt
