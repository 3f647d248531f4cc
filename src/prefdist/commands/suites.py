"""Look at suites before anything runs: what would be made, whether they are valid, their schemas."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    listing = commands.add_parser("plan", help="list a suite's artefacts, each with its inputs")
    listing.add_argument("suite")
    listing.set_defaults(call=_plan)

    check = commands.add_parser("check", help="check a suite and print what would be made")
    check.add_argument("suite", nargs="+")
    check.set_defaults(call=_check)

    schemas = commands.add_parser("schemas", help="write the JSON schemas of the configuration to workflow/schemas")
    schemas.set_defaults(call=_schemas)


def _plan(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    for path, artefact in plan(load_suite(options.suite, project_root()), project_root()).artefacts.items():
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
