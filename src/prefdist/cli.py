"""The command `prefdist`: one sub-command a stage, and the few things that users type.

Imports are lazy, so that a stage pays for what it uses. Errors that a user can mend are one sentence and exit code 2.
"""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from prefdist.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    parser = _parser()
    options = parser.parse_args(arguments)
    try:
        return int(options.call(options) or 0)
    except UserError as error:
        print(f"prefdist: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="prefdist", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")

    make = commands.add_parser("make", help="make one artefact of a suite (what the workflow's rules call)")
    make.add_argument("artefact", type=Path, help="its folder, as `prefdist plan` lists it")
    make.add_argument("--suite", required=True)
    make.set_defaults(call=_make)

    copy = commands.add_parser("publish", help="copy a suite's finished tables and figures to results/<suite>/<version>")
    copy.add_argument("suite")
    copy.add_argument("--ablation", help="one ablation's, to results/<suite>/<version>-ablations/<ablation>")
    copy.set_defaults(call=_publish)

    listing = commands.add_parser("plan", help="list a suite's artefacts, each with its inputs")
    listing.add_argument("suite")
    listing.set_defaults(call=_plan)

    check = commands.add_parser("check", help="check a suite and print what would be made")
    check.add_argument("suite", nargs="+")
    check.set_defaults(call=_check)

    demo = commands.add_parser("demo", help="run the testbed suite, print its table and the report's path")
    demo.add_argument("--suite", default="testbed")
    demo.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    demo.set_defaults(call=_demo)

    compare = commands.add_parser("check-results", help="compare a suite's tables with the committed ones")
    compare.add_argument("suite")
    compare.set_defaults(call=_check_results)

    schemas = commands.add_parser("schemas", help="write the JSON schemas of the configuration to workflow/schemas")
    schemas.set_defaults(call=_schemas)

    bench = commands.add_parser("bench", help="speed and memory of training, beside TRL's, and of divergences: results/bench")
    bench.add_argument("--rounds", type=int, default=3)
    bench.add_argument("--only", choices=("training", "divergences"), help="one of the two benches")
    bench.set_defaults(call=_bench)
    return parser


def _make(options: argparse.Namespace) -> None:
    from prefdist.artefacts import make
    from prefdist.paths import SCRATCH, project_root
    from prefdist.plan import STAGES, plan
    from prefdist.suites import load_suite

    root = project_root()
    artefact = plan(load_suite(options.suite, root), root).artefacts.get(str(options.artefact))
    if artefact is None:
        raise UserError(f"{options.artefact}: not an artefact of suite {options.suite} as it is now; see prefdist plan")
    os.chdir(root)  # so that provenance has no path of this machine
    stage = import_module(STAGES[artefact.stage])
    inputs = {role: source.path for role, source in artefact.inputs.items()}
    scratch = SCRATCH / f"{artefact.path.name}-{artefact.code_digest}"
    identity = {"stage": artefact.stage, "name": artefact.name, "digest": artefact.digest, "code": artefact.code_digest}
    make(
        artefact.path,
        identity={**identity, "spec": artefact.spec},
        inputs=inputs,
        run=lambda out: stage.run(artefact.spec, inputs, out, scratch),
    )


def _publish(options: argparse.Namespace) -> None:
    from prefdist.artefacts import publish
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    root = project_root()
    made = plan(load_suite(options.suite, root), root)
    made = made.ablations[options.ablation] if options.ablation else made
    publish(root / made.final.path, root / made.results, made.published.name)


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


def _demo(options: argparse.Namespace) -> int:
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    root = project_root()
    suite = load_suite(options.suite, root)
    folder = root / plan(suite, root).results
    base = [sys.executable, "-m", "snakemake", "--cores", str(options.cores)]
    # A run that was killed leaves a lock and incomplete outputs behind; both are mended before the next one.
    subprocess.run([*base, "--unlock", "--quiet", "all"], cwd=root, check=False, capture_output=True)
    done = subprocess.run([*base, "--rerun-incomplete", "--", options.suite], cwd=root, check=False)
    if done.returncode:
        print("prefdist: the run stopped; the logs are in logs/, and the same command goes on from here", file=sys.stderr)
        return done.returncode
    from prefdist.results.metrics import TERMINAL
    from prefdist.results.tables import present, print_table, read_csv

    subprocess.run([*base[:3], "--report", str(folder / "report.html"), "--quiet", "--", options.suite], cwd=root, check=True)
    if suite.kind in TERMINAL:
        print_table(folder / "table.csv", present(TERMINAL[suite.kind], read_csv(folder / "table.csv")))
        print(f"table:  {folder.relative_to(root) / 'table.md'}")
    print(f"report: {folder.relative_to(root) / 'report.html'}")
    return 0


def _check_results(options: argparse.Namespace) -> int:
    from prefdist.results.check import check_results

    return check_results(options.suite)


def _schemas(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.suites import json_schemas

    folder = project_root() / "workflow" / "schemas"
    for name, schema in json_schemas().items():
        (folder / name).write_text(schema)


def _bench(options: argparse.Namespace) -> None:
    from prefdist.bench import divergences, stage

    if options.only != "divergences":
        stage.bench(rounds=options.rounds)
    if options.only != "training":
        divergences.bench(rounds=options.rounds)


if __name__ == "__main__":
    sys.exit(main())
