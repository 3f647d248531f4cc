"""Published tables: list them, show one, compare two, verify one against its metric rows or by making it again."""

import argparse
import os
from collections.abc import Callable

from prefdist.errors import UserError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    results = commands.add_parser("results", help="the published tables: list, show, diff, verify")
    actions = results.add_subparsers(required=True, metavar="action")

    listing = actions.add_parser("list", help="what is published")
    listing.add_argument("--suite", help="this suite's alone, and its ablations")
    listing.set_defaults(call=_list)

    show = _action(actions, "show", "print a table", _show)
    show.add_argument("version", nargs="?", help="default: the suite's own")
    show.add_argument("--metrics", nargs="+", default=[], help="which columns")

    diff = _action(actions, "diff", "how two versions differ; exit 1 where intervals do not overlap", _diff)
    diff.add_argument("a", nargs="?", help="default: the suite's own version")
    diff.add_argument("b", nargs="?", help="default: what this checkout made last")

    verify = _action(actions, "verify", "check digests and rebuild tables from metric rows; exit 1 on any difference", _verify)
    verify.add_argument("version", nargs="?", help="default: the suite's own")
    verify.add_argument("--rerun", action="store_true", help="make it from scratch: which cells fall inside their intervals?")
    verify.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="of --rerun")


def _action(
    actions: "argparse._SubParsersAction[argparse.ArgumentParser]",
    name: str,
    text: str,
    call: Callable[[argparse.Namespace], int | None],
) -> argparse.ArgumentParser:
    """A sub-command about a suite's tables or an ablation's."""
    parser = actions.add_parser(name, help=text)
    parser.add_argument("suite")
    parser.add_argument("--ablation", help="one ablation's table instead of the suite's")
    parser.set_defaults(call=call)
    return parser


def _list(options: argparse.Namespace) -> None:
    from prefdist.paths import project_root
    from prefdist.results.listing import print_list

    print_list(project_root(), options.suite)


def _show(options: argparse.Namespace) -> None:
    from prefdist.results.choice import chosen
    from prefdist.results.listing import print_release

    print_release(chosen(options.suite, options.version, options.ablation), options.metrics)


def _diff(options: argparse.Namespace) -> int:
    from prefdist.results.choice import chosen, made_last
    from prefdist.results.reports import report_diff

    a = chosen(options.suite, options.a, options.ablation)
    b = chosen(options.suite, options.b, options.ablation) if options.b else made_last(options.suite, options.ablation)
    return report_diff(a, b)


def _verify(options: argparse.Namespace) -> int:
    from prefdist.results.choice import chosen
    from prefdist.results.reports import report_rerun, report_verdict

    if options.cores < 1:
        raise UserError(f"--cores is {options.cores}; at least 1 is needed")
    release = chosen(options.suite, options.version, options.ablation)
    status = report_verdict(release)
    if options.rerun:
        status = report_rerun(release, options.cores) or status
    return status
