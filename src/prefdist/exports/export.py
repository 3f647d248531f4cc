"""Copies of finished artefacts for DVC: a suite's data in data/<suite>, an ablation in results/latest/<suite>/<ablation>.

A folder appears whole, by one rename, and only from artefacts that the code and suites as they are now would make again.
"""

import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from prefdist.artefacts import PROVENANCE, content_digest, provenance, verify
from prefdist.errors import UserError
from prefdist.exports.sources import closure, tables
from prefdist.plan import Artefact, Plan
from prefdist.results.tables import read_csv

ABLATION_FILES = ("table.csv", "table.md", "figure.svg", "manifest.json", PROVENANCE)


def export_ablation(made: Plan, root: Path, folder: Path) -> None:
    """Table, figure, manifest and provenance as they are, and metrics.json: run -> metric -> estimate, low, high."""
    _require_current([made.final], root)
    source = root / made.final.path
    verify(source)
    with _replaced(folder) as new:
        for name in ABLATION_FILES:
            shutil.copy(source / name, new / name)
        (new / "metrics.json").write_text(json.dumps(_metrics(source / "table.csv"), indent=1, ensure_ascii=False) + "\n")


def export_data(made: Plan, root: Path, folder: Path) -> None:
    """Every table of a suite's data, the card of its text where there is one, and index.json: what each file is."""
    found = tables(made)
    _require_current(found, root)
    index = {}
    with _replaced(folder) as new:
        for artefact in found:
            source = root / artefact.path
            content = verify(source)
            for file in sorted(source.glob("*.parquet")):
                # The suite's own prompts stand above; a judge's and those of problems are one more table.
                own = file.stem == "prompts" and artefact is found[0]
                copy = new / file.name if own else new / file.stem / f"{artefact.name}.parquet"
                copy.parent.mkdir(exist_ok=True)
                shutil.copy(file, copy)
                index[str(copy.relative_to(new))] = _described(artefact, content, file)
            if (source / "card.md").is_file():
                shutil.copy(source / "card.md", new / "card.md")
        (new / "index.json").write_text(json.dumps(index, indent=1) + "\n")


def outdated(finals: list[Artefact], root: Path) -> dict[Path, str]:
    """Complete artefacts among these, and what they are made from, that would now be made differently, each with the reason.

    Snakemake sees this by its own records. A folder that DVC brought has none.
    """
    found = {}
    for artefact in closure(finals).values():
        if not (root / artefact.path / PROVENANCE).is_file():
            continue
        record = provenance(root / artefact.path)
        changed = [role for role, source in artefact.inputs.items() if _differs(record["inputs"].get(role), root / source.path)]
        if record.get("code") != artefact.code_digest:
            found[artefact.path] = f"made by code {record.get('code')}, which is {artefact.code_digest} now"
        elif changed:
            found[artefact.path] = f"made from another {', '.join(changed)}"
    return found


def forget(finals: list[Artefact], root: Path) -> dict[Path, str]:
    """Remove the provenance of outdated artefacts: they are then incomplete, and Snakemake makes them again."""
    found = outdated(finals, root)
    for path in found:
        (root / path / PROVENANCE).unlink()
    return found


def _differs(recorded: dict[str, Any] | None, source: Path) -> bool:
    """A source that is not there may be gone: what was made from it still stands."""
    if recorded is None or not (source / PROVENANCE).is_file():
        return recorded is None
    return bool(recorded["content"] != content_digest(provenance(source)))


def _require_current(finals: list[Artefact], root: Path) -> None:
    for path, reason in outdated(finals, root).items():
        raise UserError(f"{path}: {reason}; run prefdist forget, then snakemake, and export again")


def _metrics(table: Path) -> dict[str, dict[str, dict[str, float]]]:
    metrics: dict[str, dict[str, dict[str, float]]] = {}
    for cell in read_csv(table):
        numbers = {name: cell[name] for name in ("estimate", "low", "high") if not math.isnan(cell[name])}
        metrics.setdefault(cell["run"], {})[cell["metric"]] = numbers
    return metrics


def _described(artefact: Artefact, content: str, file: Path) -> dict[str, Any]:
    return {
        "stage": artefact.stage,
        "artefact": artefact.path.name,
        "content": content,
        "rows": pq.read_metadata(file).num_rows,
        "inputs": {role: source.path.name for role, source in artefact.inputs.items()},
    }


@contextmanager
def _replaced(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of `folder` at the end, unless something was raised."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    try:
        yield temporary
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
