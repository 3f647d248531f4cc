"""The cell of a released table that measures what a published number does; where there is none, why.

A suite may stand beside a published number only if it uses the same model of the hub: a testbed's numbers never do.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from prefdist.errors import UserError
from prefdist.paths import PUBLISHED, RESULTS, SUITES
from prefdist.published.records import Metric, Ours, Row, Table, Work
from prefdist.results.tables import Cell, read_csv


class Releases:
    """The releases of a checkout's suites, read once; only of the version that a suite's YAML names.

    `content` replaces the folder of one suite's release: tables that are about to be published.
    """

    def __init__(self, root: Path, content: dict[str, Path] | None = None) -> None:
        self.root = root
        self._content = content or {}
        self._suites: dict[str, dict[str, Any] | None] = {}
        self._tables: dict[Path, dict[tuple[str, str], Cell]] = {}

    def check(self, work: Work, table: Table) -> None:
        """UserError if a row's suite is there and uses none of the models that the row's setting names."""
        for row in table.rows:
            suite = self._suite(row.ours.suite) if row.ours else None
            if row.ours and suite is not None and not set(_texts(suite)) & set(table.settings[row.setting]):
                models = " or ".join(table.settings[row.setting])
                raise UserError(
                    f"{PUBLISHED / work.work}.yaml: {table.table}: {row.setting}, {row.method}: ours.suite: "
                    f"{row.ours.suite} does not use {models}; numbers of other models do not stand beside published ones"
                )

    def find(self, row: Row, metric: Metric) -> Cell | str:
        """The cell, or the reason why there is none."""
        if metric.ours is None:
            return f"none: {metric.apart}"
        if row.ours is None:
            return "none: no suite trains it"
        return self._cell(row.ours, metric.ours, metric.table)

    def _cell(self, ours: Ours, metric: str, table: str) -> Cell | str:
        suite = self._suite(ours.suite)
        if suite is None:
            return f"no suite {ours.suite}"
        version = str(suite.get("version"))
        file = self._content.get(ours.suite, self.root / RESULTS / ours.suite / version) / table
        if not file.is_file():
            return "not run"
        if file not in self._tables:
            self._tables[file] = {(cell["run"], cell["metric"]): cell for cell in read_csv(file)}
        cells = self._tables[file]
        if (ours.run, metric) in cells:
            return cells[ours.run, metric]
        what = f"metric {metric}" if any(run == ours.run for run, _ in cells) else f"run {ours.run}"
        return f"{RESULTS / ours.suite / version / table} has no {what}"

    def _suite(self, name: str) -> dict[str, Any] | None:
        """Its YAML, unchecked: another kind of suite than this code knows may stand here."""
        if name not in self._suites:
            file = self.root / SUITES / f"{name}.yaml"
            self._suites[name] = yaml.safe_load(file.read_text()) if file.is_file() else None
        return self._suites[name]


def _texts(value: Any) -> Iterator[str]:
    """Every string below a value of a YAML file."""
    if isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
