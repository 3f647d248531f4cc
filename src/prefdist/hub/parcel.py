"""What of an artefact goes to the hub: a model, its adapter alone, or tables; and the manifest by which a pull is checked.

Weights are safetensors. A file of another kind than ALLOWED is refused and not left out in silence: pickles run code.
"""

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, get_args

from prefdist.artefacts import PROVENANCE, content_digest, provenance, verify
from prefdist.errors import UserError
from prefdist.plan.graph import STAGES

Kind = Literal["model", "adapter", "dataset"]
MANIFEST = "prefdist.json"
CARD = "README.md"
ALLOWED = (".safetensors", ".json", ".jsonl", ".jinja", ".parquet", ".csv", ".md", ".txt")
_IDENTITY = ("stage", "name", "digest", "code")
_PATTERNS = {"name": r"[\w.+-]+", "digest": "[0-9a-f]{10}", "code": "[0-9a-f]+", "content": "[0-9a-f]{12}"}
_ADAPTER = "adapter"
_BASE = "base_model_name_or_path"


@dataclass(frozen=True)
class Parcel:
    """Files by their names in the repository: on disk, or as text that is made for it. `record` is the provenance."""

    kind: Kind
    record: dict[str, Any]
    files: dict[str, Path]
    made: dict[str, str] = field(default_factory=dict)

    @property
    def repo_type(self) -> str:
        return "dataset" if self.kind == "dataset" else "model"

    def manifest(self) -> str:
        """Identity of the artefact and the SHA-256 of every file, the card apart."""
        files = {name: _sha256(file) for name, file in self.files.items()}
        files |= {name: hashlib.sha256(text.encode()).hexdigest() for name, text in self.made.items()}
        identity = {key: self.record[key] for key in _IDENTITY} | {"content": content_digest(self.record)}
        return json.dumps({"kind": self.kind, **identity, "files": dict(sorted(files.items()))}, indent=1) + "\n"


def pack(folder: Path, *, adapter: bool = False, base: str | None = None) -> Parcel:
    """An intact artefact's parcel; with `adapter`, of its adapter alone, which names `base`, a model of the hub.

    UserError if the artefact is incomplete or changed, holds a file of a kind that is not allowed, or is no model or table.
    """
    verify(folder)
    record = provenance(folder)
    missing = [key for key in (*_IDENTITY, "spec") if key not in record]
    if missing:
        raise UserError(f"{folder / PROVENANCE}: no {', '.join(missing)}; only artefacts of prefdist make are pushed")
    names = [*record["outputs"], PROVENANCE]
    refused = [name for name in names if not name.endswith(ALLOWED)]
    if refused:
        raise UserError(f"{folder / refused[0]}: not pushed: weights go as safetensors, all else as {', '.join(ALLOWED[1:])}")
    if adapter:
        return _adapter(folder, record, base)
    if base is not None:
        raise UserError(f"--base {base}: only an adapter names its base; add --adapter, or leave it out")
    return Parcel(_kind(folder, names), record, {name: folder / name for name in names})


def _kind(folder: Path, names: list[str]) -> Kind:
    if "config.json" in names and any("/" not in name and name.endswith(".safetensors") for name in names):
        return "model"
    if any(name.endswith(".parquet") for name in names):
        return "dataset"
    raise UserError(f"{folder}: neither a model (config.json and *.safetensors) nor tables (*.parquet); nothing to push")


def _adapter(folder: Path, record: dict[str, Any], base: str | None) -> Parcel:
    inside = [name for name in record["outputs"] if name.startswith(f"{_ADAPTER}/")]
    if f"{_ADAPTER}/adapter_config.json" not in inside:
        raise UserError(f"{folder}: it has no adapter; push the whole model, without --adapter")
    if base is None:
        raise UserError(f"{folder}: --base is missing: name the model of the hub that the adapter belongs to")
    files = {name.removeprefix(f"{_ADAPTER}/"): folder / name for name in inside if not name.endswith(CARD)}
    config = json.loads(files.pop("adapter_config.json").read_text())
    config[_BASE] = base  # peft wrote the folder of this checkout there
    made = {"adapter_config.json": json.dumps(config, indent=2, sort_keys=True) + "\n"}
    return Parcel("adapter", record, files | {PROVENANCE: folder / PROVENANCE}, made)


def read_manifest(text: str, where: str) -> dict[str, Any]:
    """A manifest, checked as what a stranger wrote. UserError if it is none, or has names that are not safe."""
    try:
        manifest = json.loads(text)
        files, kind = manifest["files"], manifest["kind"]
        good = kind in get_args(Kind) and manifest["stage"] in STAGES and PROVENANCE in files
        good = good and all(re.fullmatch(pattern, manifest[key]) for key, pattern in _PATTERNS.items())
        good = good and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    except (ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        raise UserError(f"{where}: {MANIFEST} there is not one of prefdist hub push")
    unsafe = [name for name in files if not _is_safe(name)]
    if unsafe:
        raise UserError(f"{where}: {MANIFEST} lists {unsafe[0]!r}, which is not fetched; files are {', '.join(ALLOWED)}")
    return dict(manifest)


def check_name(repo: str) -> None:
    """UserError unless it can be the name of a repository of the hub."""
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UserError(f"{repo}: a repository of the hub is owner/name")


def check(folder: Path, manifest: dict[str, Any], where: str) -> None:
    """Every file is the one that was pushed, and the provenance is of the artefact that the manifest names.

    UserError names the file. Of a model or tables, the files are those of the provenance, too.
    """
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file():
            raise UserError(f"{where}: {name} is missing, though {MANIFEST} lists it")
        if _sha256(folder / name) != digest:
            raise UserError(f"{where}: {name} is not the file that was pushed: its SHA-256 is not what {MANIFEST} says")
    record = provenance(folder)
    named = all(record.get(key) == manifest[key] for key in _IDENTITY)
    if not named or identity_of(record) != record["digest"]:
        raise UserError(f"{where}: {PROVENANCE} is of another artefact than {MANIFEST} names")
    if manifest["kind"] != "adapter" and verify(folder) != manifest["content"]:
        raise UserError(f"{where}: its content is not what {MANIFEST} says")


def identity_of(record: dict[str, Any]) -> str:
    """The digest that follows from a provenance's stage, specification and inputs, as the plan computes it."""
    inputs = {role: source["path"].rpartition("-")[2] for role, source in record["inputs"].items()}
    content = {"stage": record["stage"], "spec": record["spec"], "inputs": inputs}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]


def _is_safe(name: Any) -> bool:
    if not isinstance(name, str) or not re.fullmatch(r"[\w.+/-]+", name) or not name.endswith(ALLOWED):
        return False
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and str(path) == name


def _sha256(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
