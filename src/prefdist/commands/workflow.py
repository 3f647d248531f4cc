"""Make artefacts and publish them: what the rules of the workflow call, and the demo that runs them all."""

import argparse
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path

from prefdist.errors import UserError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    make = commands.add_parser("make", help="make one artefact of a suite (what the workflow's rules call)")
    make.add_argument("artefact", type=Path, help="its folder, as `prefdist plan --artefacts` lists it")
    make.add_argument("--suite", required=True)
    make.add_argument(
        "--processes", type=int, help="of a training; default: one a GPU that is visible, or one (docs/parallel.md)"
    )
    make.set_defaults(call=_make)

    copy = commands.add_parser("publish", help="put a suite's finished tables into results/<suite>/<version>, once")
    copy.add_argument("suite")
    copy.add_argument("--ablation", help="one ablation's, to results/<suite>/<version>-ablations/<ablation>")
    copy.set_defaults(call=_publish)

    demo = commands.add_parser("demo", help="run the testbed suite, print its table and the report's path")
    demo.add_argument("--suite", default="testbed")
    demo.add_argument("--cores", type=int, default=os.cpu_count() or 1)
    demo.set_defaults(call=_demo)


def _make(options: argparse.Namespace) -> None:
    from prefdist.artefacts import make
    from prefdist.containers import check_running
    from prefdist.paths import SCRATCH, project_root
    from prefdist.plan import STAGES, plan
    from prefdist.suites import load_suite

    root = project_root()
    check_running(root)
    artefact = plan(load_suite(options.suite, root), root).artefacts.get(str(options.artefact))
    if artefact is None:
        raise UserError(
            f"{options.artefact}: not an artefact of suite {options.suite} as it is now; see prefdist plan --artefacts"
        )
    os.chdir(root)  # so that provenance has no path of this machine
    inputs = {role: source.path for role, source in artefact.inputs.items()}
    scratch = SCRATCH / f"{artefact.path.name}-{artefact.code_digest}"
    identity = {"stage": artefact.stage, "name": artefact.name, "digest": artefact.digest, "code": artefact.code_digest}
    how = dict(artefact.how)
    run = import_module(STAGES[artefact.stage]).run
    if artefact.stage == "train":
        from prefdist.training import launch

        how["processes"] = launch.processes(artefact.spec, options.processes)
        run = launch.run
    elif options.processes is not None:
        raise UserError(f"--processes {options.processes}: {artefact.path} is no training; leave it out")
    make(
        artefact.path,
        identity={**identity, "spec": artefact.spec},
        inputs=inputs,
        run=lambda out: run({**artefact.spec, "how": how}, inputs, out, scratch),
        how=how,
    )


def _publish(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.results.publish import publish
    from prefdist.suites import load_suite

    root = project_root()
    made = plan(load_suite(options.suite, root), root)
    if options.ablation and options.ablation not in made.ablations:
        known = ", ".join(made.ablations) or "none"
        raise UserError(f"--ablation {options.ablation}: not an ablation of suite {options.suite}; its ablations are: {known}")
    print(publish(made.ablations[options.ablation] if options.ablation else made, root))


def _demo(options: argparse.Namespace) -> int:
    from prefdist.paths import project_root
    from prefdist.plan import plan
    from prefdist.suites import load_suite

    root = project_root()
    suite = load_suite(options.suite, root)
    made = plan(suite, root)
    base = [sys.executable, "-m", "snakemake", "--cores", str(options.cores)]
    done = subprocess.run([*base, "--rerun-incomplete", "--", options.suite], cwd=root, check=False)
    if done.returncode:
        print("prefdist: the run stopped; the logs are in logs/, and the same command goes on from here", file=sys.stderr)
        return done.returncode
    from prefdist.results.metrics import TERMINAL
    from prefdist.results.publish import publish
    from prefdist.results.tables import print_table, read_csv

    folder = publish(made, root)
    report = made.published.with_name("report.html")
    subprocess.run([*base[:3], "--report", str(report), "--quiet", "--", options.suite], cwd=root, check=True)
    if suite.kind in TERMINAL:
        table = root / folder / "table.csv"
        print_table(table, TERMINAL[suite.kind](read_csv(table)))
        print(f"table:  {folder / 'table.md'}")
    print(f"report: {report}")
    return 0
