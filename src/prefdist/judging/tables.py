"""From stored judgements to metric rows and a summary; the same again from a finished artefact, without key or model."""

import json
import os
from pathlib import Path
from typing import Any

from prefdist.artefacts import provenance
from prefdist.config.judge import EndpointJudge, Judging
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.judging.annotations import Annotation, annotations
from prefdist.judging.endpoint import reading_columns
from prefdist.judging.length_control import Gamed, read_gamed
from prefdist.judging.measures import arena_hard_values, length_controlled_values, of_prompts, prompt_values, summary
from prefdist.judging.protocols import PROTOCOLS
from prefdist.judging.protocols.form import Reply
from prefdist.judging.schemas import COMPARISONS, JUDGEMENTS

Row = dict[str, Any]
Controls = tuple[Gamed | None, dict[str, int] | None]


def judging_of(spec: Row) -> Judging:
    """The part of a stage's specification that says who judges and how."""
    return Judging.model_validate({key: value for key, value in spec.items() if key not in ("run", "seed")})


def judged_spec(folder: Path) -> Row:
    """The specification of a finished artefact. UserError if another stage made it."""
    record = provenance(folder)
    if record.get("stage") not in ("judge", "judge_local"):
        raise UserError(
            f"{folder}: made by stage {record.get('stage')}; name a folder of artefacts/judge or artefacts/judge_local"
        )
    spec: Row = record["spec"]
    return spec


def measured(spec: Row, judgements: list[Row], controls: Controls) -> tuple[list[Row], Row]:
    """Rows of tables.METRICS and the summary. controls: for length control, as `gamed` reads them."""
    judging = judging_of(spec)
    asked = isinstance(judging.judge, EndpointJudge)
    compares = judging.protocol is None or PROTOCOLS[judging.protocol].compares
    of_prompt = {
        name: prompt_values(rows, compares=compares, weighted=judging.protocol == "arena_hard", asked=asked)
        for name, rows in of_prompts(judgements).items()
    }
    if judging.protocol == "alpaca_eval":
        controlled = length_controlled_values(judgements, *controls)
        if controlled is not None:
            for name, value in controlled[1].items():
                of_prompt[name][controlled[0]] = value
    if judging.protocol == "arena_hard":
        scores = arena_hard_values(of_prompt)
        for name, values in of_prompt.items():
            values["arena_hard"] = scores.get(name)
    key = {"run": spec["run"], "seed": spec["seed"]}
    rows = [
        {**key, "prompt_id": name, "metric": metric, "value": value}
        for name, values in of_prompt.items()
        for metric, value in values.items()
    ]
    prices = judging.judge.prices if isinstance(judging.judge, EndpointJudge) else None
    return rows, summary(judgements, rows, compares=compares, prices=None if prices is None else prices.model_dump())


def write(out: Path, metrics: list[Row], found: Row) -> None:
    """metrics.parquet and summary.json."""
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    temporary = out / "summary.json.tmp"
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, out / "summary.json")


def rebuilt(folder: Path) -> tuple[list[Row], Row]:
    """Metrics and summary of a finished artefact, its replies read anew by the protocol as it is now.

    AlpacaEval's files are read from where the artefact's provenance says, seen from the working directory.
    """
    record = provenance(folder)
    spec, used = record["spec"], record["inputs"].get("alpaca_eval")
    comparisons = tables.read_table(folder / "comparisons.parquet", COMPARISONS)
    judgements = tables.read_table(folder / "judgements.parquet", JUDGEMENTS)
    protocol = judging_of(spec).protocol
    if protocol is not None:
        judgements = [{**row, **reading_columns(PROTOCOLS[protocol], row["order"], _reply(row))} for row in judgements]
    return measured(spec, judgements, gamed(None if used is None else Path(used["path"]), comparisons))


def stored_summary(folder: Path) -> Row:
    """summary.json of a finished artefact."""
    found: Row = json.loads((folder / "summary.json").read_text())
    return found


def annotated(folder: Path, spec: Row, baseline: str) -> list[Annotation]:
    """A finished artefact in AlpacaEval's format; the model is called as its run, the annotator as the judge."""
    judge = judging_of(spec).judge
    return annotations(
        tables.read_table(folder / "comparisons.parquet", COMPARISONS),
        tables.read_table(folder / "judgements.parquet", JUDGEMENTS),
        model=spec["run"],
        baseline=baseline,
        annotator=judge.model if isinstance(judge, EndpointJudge) else judge.kind,
    )


def _reply(row: Row) -> Reply:
    logprobs = row["top_logprobs"]
    return Reply(row["reply"], None if logprobs is None else json.loads(logprobs))


def instruction_numbers(folder: Path) -> dict[str, int]:
    """Instruction -> its place in AlpacaEval's set, alpaca_eval.json in the folder. UserError if there is none."""
    file = folder / "alpaca_eval.json"
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        return {row["instruction"].strip(): number for number, row in enumerate(rows)}
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{file}: not AlpacaEval's list of instructions ({error}); fetch tatsu-lab/alpaca_eval again"
        ) from error


def gamed(folder: Path | None, comparisons: list[Row]) -> Controls:
    """Of the two files in the folder, which may be None: the gamed rows, and each prompt's place among the instructions.

    UserError if a file is not AlpacaEval's, or a prompt is none of its instructions.
    """
    if folder is None:
        return None, None
    numbers, found = instruction_numbers(folder), {}
    for row in comparisons:
        number = numbers.get(row["prompt"].strip())
        if number is None:
            raise UserError(f"{folder}: prompt {row['prompt_id']!r} is none of AlpacaEval's instructions; leave it out")
        found[row["prompt_id"]] = number
    return read_gamed(folder / "df_gamed.csv"), found
