"""Published numbers beside ours."""

import argparse

from prefdist.errors import UserError


def add(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    published = commands.add_parser("published", help="the papers' numbers beside ours, with differences and intervals")
    published.add_argument("suite", nargs="?", help="this suite's alone")
    published.add_argument("--write", action="store_true", help="write docs/published.md instead of printing")
    published.set_defaults(call=_published)


def _published(options: argparse.Namespace) -> None:
    from prefdist.paths import PUBLISHED, project_root
    from prefdist.published.document import DOCUMENT, document, page, suites_of

    root = project_root()
    if options.write:
        if options.suite:
            raise UserError(f"--write writes {DOCUMENT}, which has all suites; leave out {options.suite}")
        (root / DOCUMENT).write_text(document(root), encoding="utf-8")
        print(DOCUMENT)
        return
    text = page(root, options.suite) if options.suite else document(root)
    if text is None:
        having = ", ".join(sorted(suites_of(root)))
        raise UserError(f"{options.suite}: no number in {PUBLISHED}/*.yaml stands beside this suite; of {having} some do")
    print(text, end="")
