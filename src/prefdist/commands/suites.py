"""Look at suites before anything runs: what would be made, whether they are valid, their schemas."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from prefdist.plan import Plan


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    forecast = commands.add_parser("plan", help="what a suite will cost, what of it is cached, and what it used")
    forecast.add_argument("suite")
    forecast.add_argument("--ablation", help="one ablation and what it needs")
    forecast.add_argument("--artefacts", action="store_true", help="list the artefacts instead, each with its inputs")
    forecast.add_argument("--runs", action="store_true", help="what each run costs from nothing, and what sharing saves")
    where = forecast.add_mutually_exclusive_group()
    where.add_argument("--profile", default="slurm", help="folder of the cluster's profile, as snakemake --profile (slurm)")
    where.add_argument("--local", action="store_true", help="on this machine instead of the cluster")
    forecast.set_defaults(call=_plan)

    check = commands.add_parser("check", help="check a suite and print what would be made")
    check.add_argument("suite", nargs="+")
    check.set_defaults(call=_check)

    schemas = commands.add_parser("schemas", help="write the JSON schemas of the configuration to workflow/schemas")
    schemas.set_defaults(call=_schemas)


def _plan(options: argparse.Namespace) -> None:
    from prefdist.errors import UserError
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    root = project_root()
    planned = plan(load_suite(options.suite, root), root)
    if options.ablation is not None:
        if options.ablation not in planned.ablations:
            known = ", ".join(planned.ablations) or "none"
            raise UserError(f"suite {options.suite}: --ablation {options.ablation}: no such ablation; known are {known}")
        planned = planned.ablations[options.ablation]
    if options.artefacts:
        _list(planned)
        return
    from prefdist.forecast.classes import Classes
    from prefdist.forecast.forecast import Forecaster, has_gpu
    from prefdist.forecast.table import show

    classes = None if options.local else Classes(Path(options.profile), root)
    if options.runs:
        from prefdist.forecast.runs import runs_of
        from prefdist.forecast.runs_table import show_runs
        from prefdist.published.records import load_works

        if options.ablation is not None:
            raise UserError("--runs shows the runs of a whole suite; leave out --ablation")
        stated = [cost for work in load_works(root) for cost in work.costs if cost.suite == options.suite]
        unit = "CPU-h" if classes is None and not has_gpu() else "GPU-h"
        runs = runs_of(Forecaster(root), planned, classes)
        show_runs(runs, stated, f"{options.suite}: what each run costs from nothing, {unit}", unit)
        return
    finals = [planned.final, *(ablation.final for ablation in planned.ablations.values())]
    title = f"{options.suite}{f', ablation {options.ablation}' if options.ablation else ''}"
    where = "on this machine" if classes is None else f"with --profile {options.profile}"
    show(Forecaster(root).forecast(planned, finals, classes), f"{title}: what a run takes {where}")


def _list(planned: "Plan") -> None:
    for path, artefact in planned.artefacts.items():
        print(path)
        for role, source in artefact.inputs.items():
            print(f"    {role}: {source.path}")


def _check(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.plan import STAGES, plan
    from prefdist.suites import load_suite

    for name in options.suite:
        made = plan(load_suite(name, project_root()), project_root())
        counts = ", ".join(f"{len(made.of_stage(stage))} {stage}" for stage in STAGES if made.of_stage(stage))
        print(f"{name}: valid; artefacts: {counts}")


def _schemas(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.suites import json_schemas

    folder = project_root() / "workflow" / "schemas"
    for name, schema in json_schemas().items():
        (folder / name).write_text(schema)
