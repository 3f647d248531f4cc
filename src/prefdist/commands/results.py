"""Look at tables."""

import argparse


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    compare = commands.add_parser("check-results", help="compare a suite's tables with the committed ones")
    compare.add_argument("suite")
    compare.set_defaults(call=_check_results)


def _check_results(options: argparse.Namespace) -> int:
    from prefdist.results.check import check_results

    return check_results(options.suite)
