"""Stored judgements: their table rebuilt without a key, and AlpacaEval's annotations.json written and read."""

import argparse
import json
from pathlib import Path

from prefdist.errors import UserError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    judgements = commands.add_parser("judgements", help="what judges said: rebuild tables, write and read AlpacaEval's format")
    actions = judgements.add_subparsers(required=True, metavar="action")

    show = actions.add_parser("show", help="a judged artefact's summary, rebuilt from its replies; exit 1 if it differs")
    show.add_argument("artefact", type=Path, help="artefacts/judge/<name>")
    show.set_defaults(call=_show)

    export = actions.add_parser("export", help="write a judged artefact as AlpacaEval's annotations.json")
    export.add_argument("artefact", type=Path)
    export.add_argument("file", type=Path)
    export.add_argument("--baseline", default="baseline", help="what to call the baseline: generator_1")
    export.set_defaults(call=_export)

    score = actions.add_parser("score", help="win rates of an annotations.json, plain and length-controlled")
    score.add_argument("file", type=Path)
    score.add_argument("--alpaca-eval", type=Path, help="folder with AlpacaEval's alpaca_eval.json and df_gamed.csv")
    score.set_defaults(call=_score)


def _show(options: argparse.Namespace) -> int:
    from prefdist.artefacts import verify
    from prefdist.judging.tables import judged_spec, rebuilt, stored_summary

    judged_spec(options.artefact)
    verify(options.artefact)
    found, stored = rebuilt(options.artefact)[1], stored_summary(options.artefact)
    print(json.dumps(found, indent=1))
    if found == stored:
        print("rebuilt from the stored replies; equal to summary.json")
        return 0
    print("rebuilt from the stored replies; NOT equal to summary.json, which other code or other files of AlpacaEval made")
    return 1


def _export(options: argparse.Namespace) -> None:
    from prefdist.judging.annotations import write_annotations
    from prefdist.judging.tables import annotated, judged_spec

    found = annotated(options.artefact, judged_spec(options.artefact), options.baseline)
    write_annotations(options.file, found)
    print(f"{options.file}: {len(found)} annotations")


def _score(options: argparse.Namespace) -> None:
    from prefdist.evaluation.statistics import win_rate
    from prefdist.judging.annotations import read_annotations
    from prefdist.judging.length_control import length_controlled, read_gamed
    from prefdist.judging.tables import instruction_numbers

    found = read_annotations(options.file)
    rate = win_rate([one.preference for one in found])
    instructions = gamed = None
    if options.alpaca_eval is not None:
        numbers, gamed = instruction_numbers(options.alpaca_eval), read_gamed(options.alpaca_eval / "df_gamed.csv")
        unknown = [one.instruction for one in found if one.instruction.strip() not in numbers]
        if unknown:
            raise UserError(f"{options.file}: {unknown[0][:60]!r} is no instruction of AlpacaEval in {options.alpaca_eval}")
        instructions = [numbers[one.instruction.strip()] for one in found]
    controlled = length_controlled(
        [one.preference for one in found],
        [len(one.output_1) for one in found],
        [len(one.output_2) for one in found],
        instructions=instructions,
        gamed=gamed,
    )
    counted = f"{rate.n_total} pairs, {rate.n_missing} missing"
    print(f"win rate: {rate.estimate:.2f} ± {rate.standard_error:.2f} % ({counted})")
    name = (
        "length-controlled win rate: " if gamed is not None else "lengths alone (not AlpacaEval's length-controlled win rate): "
    )
    print(f"{name}{controlled.win_rate:.2f} %")
