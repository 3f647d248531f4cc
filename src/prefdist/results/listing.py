"""What is published, in the terminal: a line a version, or a line each of one suite's tables; and one of the tables."""

import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from prefdist.artefacts import provenance
from prefdist.errors import UserError
from prefdist.results.metrics import EVERY, TERMINAL
from prefdist.results.release import Release, releases
from prefdist.results.tables import print_table, read_csv

_KINDS = {"results": "testbed", "pad_results": "pad", "spl_results": "spl", "adl_results": "spl"}
"""Stage -> kind of suite whose metrics its table has; an ablation says itself what it measures."""
_TABLE = "table.csv"


def print_list(root: Path, suite: str | None) -> None:
    """Of all suites, or of one with its ablations. UserError names the suites there are."""
    from rich.console import Console
    from rich.table import Table

    everything = releases(root)
    if suite and not any(release.suite == suite for release in everything):
        known = ", ".join(dict.fromkeys(release.suite for release in everything)) or "none"
        raise UserError(f"--suite {suite}: no tables of it in results/; there are tables of: {known}")
    table = Table(box=None, header_style="bold", padding=(0, 1))
    for heading in ("suite", "version", "ablation" if suite else "ablations", "date", "commit", "runs × seeds", "KiB", ""):
        table.add_column(heading, justify="right" if heading in ("ablations", "KiB") else "left", no_wrap=True)
    for _, group in groupby(everything, key=lambda release: (release.suite, release.version)):
        of_version = list(group)
        if suite is None:
            count = sum(release.ablation is not None for release in of_version)
            table.add_row(*_line(of_version[0], str(count or "–"), of_version))
        elif of_version[0].suite == suite:
            for release in of_version:
                table.add_row(*_line(release, release.ablation or "–", [release]))
    Console(width=None if sys.stdout.isatty() else 120, highlight=False).print(table)


def print_release(release: Release, keys: Sequence[str]) -> None:
    """The main table in the terminal, with these metrics or, if none, those that there is room for."""
    kind = _kind(provenance(release.path))
    if kind is None:
        texts = ", ".join(file.name for file in sorted(release.path.glob("*.md")))
        raise UserError(f"{release.folder}: it has no table of runs and metrics; read {texts}")
    cells = read_csv(release.path / _TABLE)
    there = {spec.key: spec for spec in EVERY[kind](cells)}
    unknown = [key for key in keys if key not in there]
    if unknown:
        raise UserError(f"--metrics {', '.join(unknown)}: not in the table; it has {', '.join(there)}")
    print_table(release.path / _TABLE, [there[key] for key in keys] or TERMINAL[kind](cells))
    print(f"{release.folder}: {release.record()['date'][:10]}, {_commit(release)}, {_state(release)}")


def _kind(record: dict[str, Any]) -> str | None:
    """Of the suite that a table belongs to, as far as its metrics go; None if it has no runs."""
    if record["stage"] == "ablation":
        return "pad" if record["spec"].get("measure", "student") == "student" else "spl"
    return _KINDS.get(record["stage"])


def _line(release: Release, ablation: str, of_line: list[Release]) -> list[str]:
    size = sum(file.stat().st_size for one in of_line for file in one.path.rglob("*") if file.is_file())
    date = release.record()["date"][:10]
    cells = [release.suite, release.version, ablation, date, _commit(release), _runs_and_seeds(release)]
    return [*cells, str(round(size / 1024)), _state(release)]


def _runs_and_seeds(release: Release) -> str:
    file = release.path / _TABLE
    cells = read_csv(file) if file.is_file() else []
    return f"{len({cell['run'] for cell in cells})} × {max(cell['n_seeds'] for cell in cells)}" if cells else "–"


def _commit(release: Release) -> str:
    """The tag, or the first digits of the commit; * where files differed from it."""
    git = release.record()["git"]
    return (git["tag"] or (git["commit"] or "unknown")[:9]) + ("*" if git["dirty"] else "")


def _state(release: Release) -> str:
    return "released" if release.is_committed() else "local"
