"""The rows of released tables that measured this very artefact: its digest is in the release's manifest."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.artefacts import content_digest
from prefdist.results.release import Release, releases
from prefdist.results.tables import Cell, read_csv


@dataclass(frozen=True)
class Measured:
    """A release, and the cells of the run whose policy the artefact is."""

    release: Release
    run: str
    cells: list[Cell]


def measured(record: dict[str, Any], root: Path) -> list[Measured]:
    """Of an artefact with this provenance; empty where no release of the checkout has measured it."""
    content, name = content_digest(record), f"{record['name']}-{record['digest']}"
    found = []
    for release in releases(root):
        manifest, table = release.path / "manifest.json", release.path / "table.csv"
        if not (manifest.is_file() and table.is_file() and release.is_committed()):
            continue
        runs = {
            artefact["name"]
            for artefact in json.loads(manifest.read_text())["artefacts"].values()
            for role, source in artefact["inputs"].items()
            if role.startswith("policy/") and source["content"] == content and Path(source["path"]).name == name
        }
        cells = read_csv(table) if runs else []
        for run in sorted(runs):
            of_run = [cell for cell in cells if cell["run"] == run]
            if of_run:
                found.append(Measured(release, run, of_run))
    return found
