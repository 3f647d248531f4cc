"""Artefacts on disk: written whole or not at all, with provenance, and checked against it when they are read.

A folder is complete when its provenance.json is there; it is written last, and the folder appears by one rename.
"""

import hashlib
import json
import os
import platform
import resource
import shutil
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from prefdist.errors import UserError

PROVENANCE = "provenance.json"
_PACKAGES = ("prefdist", "torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "pyarrow", "snakemake")


def make(
    out: Path,
    *,
    identity: dict[str, Any],
    inputs: dict[str, Path],
    run: Callable[[Path], None],
) -> None:
    """Run a stage into a temporary folder beside `out`, add its provenance, and put it in place.

    `identity` says what was made (stage, name, spec, digests). UserError if an input is incomplete or was changed.
    """
    sources = {role: verify(path) for role, path in inputs.items()}
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    started = time.time()
    try:
        run(temporary)
        if os.environ.get("RANK", "0") != "0":  # one of several processes of a training: the first writes for all
            return
        record = {
            **identity,
            "inputs": {role: {"path": str(inputs[role]), "content": sources[role]} for role in inputs},
            "outputs": _file_digests(temporary),
            "environment": environment(),
            "wall_seconds": round(time.time() - started, 3),
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }
        _write_json(temporary / PROVENANCE, record)
        if out.exists():
            shutil.rmtree(out)
        os.replace(temporary, out)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish(artefact: Path, folder: Path, marker: str) -> None:
    """Put a copy of an artefact in place of `folder`, with an empty file `marker` in it."""
    verify(artefact)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(artefact, temporary, ignore=shutil.ignore_patterns(".snakemake*"))
        (temporary / marker).touch()
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def verify(path: Path) -> str:
    """The digest of an artefact's content. UserError names the file that is missing or differs from the provenance."""
    record = provenance(path)
    for name, digest in record["outputs"].items():
        file = path / name
        if not file.is_file():
            raise UserError(f"{file}: missing, though {PROVENANCE} lists it; delete {path} and run again")
        if _sha256(file) != digest:
            raise UserError(f"{file}: its content is not what {PROVENANCE} says; delete {path} and run again")
    return content_digest(record)


def provenance(path: Path) -> dict[str, Any]:
    """The provenance of a complete artefact."""
    file = path / PROVENANCE
    if not file.is_file():
        raise UserError(f"{path}: not a complete artefact ({PROVENANCE} is missing); run the stage that makes it")
    try:
        record = json.loads(file.read_text())
    except ValueError:
        record = None
    if not isinstance(record, dict) or not isinstance(record.get("outputs"), dict):
        raise UserError(f"{file}: not the provenance of an artefact; delete {path} and run again")
    return record


def content_digest(record: dict[str, Any]) -> str:
    """12 hex digits over the digests of all files."""
    return hashlib.sha256(json.dumps(record["outputs"], sort_keys=True).encode()).hexdigest()[:12]


def environment() -> dict[str, Any]:
    """Package versions and the machine, as far as results can depend on them."""
    packages = {}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {"python": platform.python_version(), "machine": platform.machine(), "packages": packages}


def _file_digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _write_json(file: Path, content: dict[str, Any]) -> None:
    with file.open("w") as handle:
        json.dump(content, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
