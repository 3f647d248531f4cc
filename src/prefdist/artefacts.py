"""Artefacts on disk: written whole or not at all, with provenance, and checked against it when they are read.

A folder is complete when its provenance.json is there; it is written last, and the folder appears by one rename. Each has
one maker at a time, on whatever node: the others wait, and keep what it has made.
"""

import errno
import glob
import hashlib
import json
import os
import platform
import resource
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prefdist import __version__
from prefdist.errors import UserError
from prefdist.paths import TIMINGS

PROVENANCE = "provenance.json"
_PACKAGES = ("torch", "transformers", "tokenizers", "peft", "accelerate", "numpy", "pyarrow", "snakemake")


def make(
    out: Path,
    *,
    identity: dict[str, Any],
    inputs: dict[str, Path],
    run: Callable[[Path], None],
    how: dict[str, Any] | None = None,
) -> None:
    """Run a stage into a temporary folder beside `out`, add its provenance, and put it in place.

    `identity` says what is made (stage, name, spec, digests). What has been made already with this identity, from inputs of
    this content, is verified and kept. `how` it is made is only recorded. UserError if an input is incomplete or was
    changed, or if the disk is full.
    """
    sources = {role: verify(path) for role, path in inputs.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    with _sole_maker(out):
        if _is_made(out, identity, sources):
            print(f"{out}: made before with the same code and inputs; verified and kept", file=sys.stderr)
            return
        for left in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):  # by makers that were killed
            shutil.rmtree(left)
        started = time.time()
        with _temporary_folder(out) as temporary, _full_disk_named(out):
            run(temporary)
            record = {
                **identity,
                **({"how": how} if how else {}),
                "inputs": {role: {"path": str(inputs[role]), "content": sources[role]} for role in inputs},
                "outputs": _file_digests(temporary),
                "environment": environment(),
                "wall_seconds": round(time.time() - started, 3),
                "peak_memory_mib": _peak_memory(),
            }
            _write_json(temporary / PROVENANCE, record)
            if out.exists():
                shutil.rmtree(out)
            os.replace(temporary, out)


@contextmanager
def _sole_maker(out: Path) -> Iterator[None]:
    """Hold the artefact's lock. The kernel releases it when its holder dies, however it dies and on whatever node.

    A job that outlived its Snakemake and the job that is to replace it meet here.
    """
    lock = FileLock(out.with_name(f".{out.name}.lock"))
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{out}: another process is making it; waiting for its end", file=sys.stderr, flush=True)
        lock.acquire(poll_interval=1.0)
    try:
        yield
    finally:
        lock.release()


def _is_made(out: Path, identity: dict[str, Any], sources: dict[str, str]) -> bool:
    """Whether an intact artefact of this identity, made from inputs of this content, is in place."""
    try:
        verify(out)
    except UserError:
        return False
    record = provenance(out)
    made_from = {role: value["content"] for role, value in record["inputs"].items()}
    wanted = json.loads(json.dumps(identity))
    return made_from == sources and {key: record.get(key) for key in wanted} == wanted


@contextmanager
def _temporary_folder(out: Path) -> Iterator[Path]:
    """A new folder beside `out`, gone at the end unless it was renamed."""
    folder = out.with_name(f".{out.name}.{uuid.uuid4().hex[:12]}.tmp")
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _full_disk_named(out: Path) -> Iterator[None]:
    """Turn the many ways in which libraries report a full disk into one sentence."""
    try:
        yield
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        free = shutil.disk_usage(out.parent).free / 2**20
        raise UserError(
            f"{out}: no space left for it ({free:.0f} MiB free now); nothing of it was kept but its checkpoints: "
            f"free some space or raise the quota, and run again"
        ) from error


def _is_of_a_full_disk(error: BaseException | None) -> bool:
    """Libraries hide the system's error behind their own, or in its text."""
    while error is not None:
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False


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
        raise UserError(f"{file}: not the provenance of an artefact; if {path} is to be one, delete it and run again")
    return record


def content_digest(record: dict[str, Any]) -> str:
    """12 hex digits over the digests of all files but timings."""
    content = {name: digest for name, digest in record["outputs"].items() if name != TIMINGS}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:12]


def environment() -> dict[str, Any]:
    """Package versions, the machine and the container image, as far as results can depend on them."""
    packages = {"prefdist": __version__}
    for name in _PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = "absent"
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": _device(),
        "container": os.environ.get("PREFDIST_IMAGE"),  # set in an image, see containers.py
        "packages": packages,
    }


def _peak_memory() -> int:
    """Largest resident memory of this process, or of one that it started, in MiB."""
    return max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)) // 1024


def _device() -> str:
    """The GPU's name, or cpu: what a stage that loaded torch could run on. Nothing is imported for it."""
    torch = sys.modules.get("torch")
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else "cpu"


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
