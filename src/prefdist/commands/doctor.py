"""What this machine lacks, for a use or for a suite."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from prefdist.doctor import Finding


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser("doctor", help="say what this machine lacks for what use, and what to do about it")
    doctor.add_argument("use", nargs="*", help="or a suite; exit code 1 if anything is missing for it; without, all uses")
    doctor.set_defaults(call=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from prefdist.doctor import USES, examine
    from prefdist.errors import UserError
    from prefdist.paths import SUITES, project_root

    root = project_root()
    suites = {file.stem for file in (root / SUITES).glob("*.yaml")}
    if unknown := [use for use in options.use if use not in USES and use not in suites]:
        raise UserError(
            f"{', '.join(unknown)}: not a use; there are {', '.join(USES)}, and the suites {', '.join(sorted(suites))}"
        )
    missing = 0
    for use in options.use or USES:
        findings, purpose = _of(use, root) if use not in USES else (examine(use, root), USES[use].purpose)
        lacking = sum(not finding.ok for finding in findings)
        print(f"{use}: {purpose}: {f'{lacking} missing' if lacking else 'ready'}")
        for finding in findings:
            print(f"    {'ok     ' if finding.ok else 'missing'}  {finding.what}")
        missing += lacking
    return 1 if options.use and missing else 0


def _of(suite: str, root: "Path") -> "tuple[list[Finding], str]":
    from prefdist.needs import examine_suite

    return examine_suite(suite, root), f"snakemake {suite}"
