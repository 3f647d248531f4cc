"""What this machine lacks."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    from prefdist.doctor import USES

    doctor = commands.add_parser("doctor", help="say what this machine lacks, and what to do about it")
    doctor.add_argument(
        "use", nargs="*", choices=USES, help="exit code 1 if anything is missing for it; without, a report only"
    )
    doctor.set_defaults(call=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from pathlib import Path

    from prefdist.doctor import USES, examine
    from prefdist.paths import project_root

    root = project_root()
    missing = 0
    for use in options.use or USES:
        findings = examine(use, Path(root))
        lacking = sum(not finding.ok for finding in findings)
        print(f"{use}: {USES[use].purpose}: {f'{lacking} missing' if lacking else 'ready'}")
        for finding in findings:
            print(f"    {'ok     ' if finding.ok else 'missing'}  {finding.what}")
        missing += lacking
    return 1 if options.use and missing else 0
