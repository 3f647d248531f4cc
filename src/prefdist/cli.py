"""The command `prefdist`: one sub-command a stage, and the few things that users type.

Imports are lazy, so that a stage pays for what it uses. Errors that a user can mend are one sentence and exit code 2.
"""

import argparse
import sys

from prefdist.commands import bench, doctor, exports, hub, judgements, published, results, suites, workflow
from prefdist.errors import UserError


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="prefdist", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="command")
    for group in (workflow, suites, results, judgements, published, exports, hub, bench, doctor):
        group.add(commands)
    options = parser.parse_args(arguments)
    try:
        return int(options.call(options) or 0)
    except UserError as error:
        print(f"prefdist: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
