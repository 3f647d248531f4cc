"""What this machine lacks."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    doctor = commands.add_parser("doctor", help="say what this machine lacks for what use, and what to do about it")
    doctor.add_argument("use", nargs="*", help="exit code 1 if anything is missing for it; without, a report on all")
    doctor.set_defaults(call=_doctor)


def _doctor(options: argparse.Namespace) -> int:
    from prefdist.doctor import USES, examine
    from prefdist.errors import UserError
    from prefdist.paths import project_root

    if unknown := [use for use in options.use if use not in USES]:
        raise UserError(f"{', '.join(unknown)}: not a use; there are {', '.join(USES)}")
    root = project_root()
    missing = 0
    for use in options.use or USES:
        findings = examine(use, root)
        lacking = sum(not finding.ok for finding in findings)
        print(f"{use}: {USES[use].purpose}: {f'{lacking} missing' if lacking else 'ready'}")
        for finding in findings:
            print(f"    {'ok     ' if finding.ok else 'missing'}  {finding.what}")
        missing += lacking
    return 1 if options.use and missing else 0
