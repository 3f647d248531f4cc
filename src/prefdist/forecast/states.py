"""What lies in artefacts/: which of a plan's artefacts are made, and everything made by any suite, with its time and size."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from prefdist.artefacts import PROVENANCE
from prefdist.paths import ARTEFACTS
from prefdist.plan.graph import Artefact, Plan

State = Literal["cached", "to make", "not needed"]


@dataclass(frozen=True)
class Made:
    """A complete artefact as its provenance tells."""

    artefact: Artefact
    record: dict[str, Any]
    folder: Path

    @property
    def seconds(self) -> float:
        return float(self.record["wall_seconds"])

    @property
    def device(self) -> str:
        """cpu, or the GPU's name."""
        return str(self.record["environment"].get("device", "cpu"))

    @cached_property
    def disk(self) -> int:
        """Bytes of the files that were written."""
        files = (self.folder / name for name in self.record["outputs"])
        return sum(file.stat().st_size for file in files if file.is_file())


class Records:
    """The provenances in a checkout's artefacts/, by folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = sorted((root / ARTEFACTS).glob(f"*/[!.]*/{PROVENANCE}"))
        read = {str(file.parent.relative_to(root)): _read(file) for file in files}
        self._records = {path: record for path, record in read.items() if record is not None}
        self._built: dict[str, Artefact | None] = {}

    def is_complete(self, artefact: Artefact) -> bool:
        return str(artefact.path) in self._records

    def is_current(self, artefact: Artefact) -> bool:
        """Complete, of this identity, and made by the code as it is. Files are not read; `make` verifies them."""
        record = self._records.get(str(artefact.path))
        return record is not None and (record["digest"], record["code"]) == (artefact.digest, artefact.code_digest)

    def made(self) -> list[Made]:
        """Everything complete whose inputs' specifications are known, too: what its work was can then be told."""
        found = ((path, self._artefact(path)) for path in self._records)
        return [Made(artefact, self._records[path], self.root / path) for path, artefact in found if artefact is not None]

    def _artefact(self, path: str) -> Artefact | None:
        """The artefact that a provenance describes, with its inputs; None if an input's is gone."""
        if path not in self._built:
            record = self._records.get(path)
            inputs = {} if record is None else {role: self._artefact(of["path"]) for role, of in record["inputs"].items()}
            known = {role: of for role, of in inputs.items() if of is not None}
            complete = record is not None and len(known) == len(inputs)
            self._built[path] = (
                Artefact(record["stage"], record["name"], record["spec"], known) if record and complete else None
            )
        return self._built[path]


def _read(file: Path) -> dict[str, Any] | None:
    """None for what no stage of this project wrote whole."""
    try:
        record = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    keys = {"stage", "name", "digest", "code", "spec", "inputs", "outputs", "environment", "wall_seconds"}
    return record if isinstance(record, dict) and keys <= record.keys() else None


def states(plan: Plan, finals: Iterable[Artefact], records: Records) -> dict[str, State]:
    """What a run that ends with `finals` does with each artefact, as Snakemake decides it: read-only.

    One is made if it is missing and asked for, or if its code, or that of anything it was made from, has changed since. A
    missing one that only finished ones were made from is not needed.
    """
    changed: dict[str, bool] = {}

    def is_changed(artefact: Artefact) -> bool:
        path = str(artefact.path)
        if path not in changed:
            stale = records.is_complete(artefact) and not records.is_current(artefact)
            changed[path] = stale or any([is_changed(source) for source in artefact.inputs.values()])
        return changed[path]

    found: dict[str, State] = {
        path: "cached" if records.is_current(artefact) else "not needed" for path, artefact in plan.artefacts.items()
    }
    waiting, seen = list(finals), set[str]()
    while waiting:
        artefact = waiting.pop()
        path = str(artefact.path)
        if path not in seen and (not records.is_complete(artefact) or is_changed(artefact)):
            found[path] = "to make"
            waiting += artefact.inputs.values()
        seen.add(path)
    return found
