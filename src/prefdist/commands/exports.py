"""Copies for DVC: what the stages of dvc.yaml call."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prefdist.errors import UserError

if TYPE_CHECKING:
    from prefdist.plan import Plan


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sources = commands.add_parser("sources", help="write data/plan.json: digests of all that each export is made from")
    sources.set_defaults(call=_sources)

    forget = commands.add_parser(
        "forget", help="mark artefacts that other code made as incomplete, so that they are made again"
    )
    forget.set_defaults(call=_forget)

    export = commands.add_parser("export", help="copy finished data to data/, or an ablation to results/latest/, for DVC")
    export.set_defaults(call=_export)

    for command in (forget, export):
        command.add_argument("suite")
        command.add_argument("--ablation", help="one ablation; without it the suite's data")


def _sources(options: argparse.Namespace) -> None:
    from prefdist.exports.sources import write_sources
    from prefdist.paths import PLAN, project_root

    write_sources(project_root() / PLAN, project_root())


def _forget(options: argparse.Namespace) -> None:
    from prefdist.exports.export import forget
    from prefdist.exports.sources import tables
    from prefdist.paths import project_root

    made = _plan(options)
    for path, reason in forget([made.final] if options.ablation else tables(made), project_root()).items():
        print(f"{path}: {reason}; to be made again", file=sys.stderr)


def _export(options: argparse.Namespace) -> None:
    from prefdist.exports.export import export_ablation, export_data
    from prefdist.paths import project_root

    root, folder = project_root(), _folder(options)
    (export_ablation if options.ablation else export_data)(_plan(options), root, root / folder)
    print(folder)


def _folder(options: argparse.Namespace) -> Path:
    from prefdist.paths import DATA, LATEST

    return LATEST / options.suite / options.ablation if options.ablation else DATA / options.suite


def _plan(options: argparse.Namespace) -> "Plan":
    from prefdist.paths import SUITES, project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    made = plan(load_suite(options.suite, project_root()), project_root())
    if options.ablation and options.ablation not in made.ablations:
        known = ", ".join(made.ablations) or "none"
        raise UserError(f"{SUITES / options.suite}.yaml: ablations: no {options.ablation!r}; known are: {known}")
    return made.ablations[options.ablation] if options.ablation else made
