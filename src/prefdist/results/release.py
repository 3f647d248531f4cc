"""A published folder of results/ and its release.json: what it is, what it was made from, and the digest of every file.

results/<suite>/<version>/ holds a suite's tables, results/<suite>/<version>-ablations/<ablation>/ those of an ablation. A
version with a + is local: this checkout's values where they are not the release's.
"""

import datetime
import hashlib
import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.artefacts import provenance
from prefdist.errors import UserError
from prefdist.paths import RESULTS
from prefdist.results.values import values_digest

RECORD = "release.json"
SUITE = "suite.yaml"
"""The suite as it was, beside its tables."""
_DATA = ("text", "prompts", "preferences")
_ABLATIONS = "-ablations"


@dataclass(frozen=True)
class Release:
    """A folder below the checkout `root` that has a release.json."""

    root: Path
    folder: Path

    @property
    def suite(self) -> str:
        return self.folder.relative_to(RESULTS).parts[0]

    @property
    def version(self) -> str:
        return self.folder.relative_to(RESULTS).parts[1].removesuffix(_ABLATIONS)

    @property
    def ablation(self) -> str | None:
        return self.folder.name if len(self.folder.relative_to(RESULTS).parts) == 3 else None

    @property
    def path(self) -> Path:
        return self.root / self.folder

    def record(self) -> dict[str, Any]:
        """release.json. UserError if it isn't the record of a release."""
        try:
            record = json.loads((self.path / RECORD).read_text())
        except (OSError, ValueError):
            record = None
        if not isinstance(record, dict) or not isinstance(record.get("files"), dict):
            raise UserError(f"{self.folder / RECORD}: not the record of a release; `git checkout {self.folder}` restores it")
        return record

    def is_committed(self) -> bool:
        """Whether git has it, and it is no local version."""
        shown = _git(self.root, "ls-files", "--", str(self.folder / RECORD))
        return bool(shown) and "+" not in self.version


def releases(root: Path) -> list[Release]:
    """All of a checkout, by suite, version and ablation."""
    records = [*root.glob(f"{RESULTS}/*/*/{RECORD}"), *root.glob(f"{RESULTS}/*/*{_ABLATIONS}/*/{RECORD}")]
    found = [Release(root, record.parent.relative_to(root)) for record in records]
    return sorted(found, key=lambda release: (release.suite, release.version, release.ablation or ""))


def find(root: Path, suite: str, version: str, ablation: str | None = None) -> Release:
    """One of a checkout. UserError names what there is."""
    everything = releases(root)
    of_suite = [release for release in everything if release.suite == suite]
    if not of_suite:
        known = ", ".join(dict.fromkeys(release.suite for release in everything)) or "none"
        raise UserError(f"results/{suite}: no tables of a suite {suite}; there are tables of: {known}")
    if not any(release.version == version for release in of_suite):
        known = ", ".join(dict.fromkeys(release.version for release in of_suite))
        raise UserError(f"results/{suite}/{version}: no such version; there are: {known}")
    named = {release.ablation: release for release in of_suite if release.version == version}
    if ablation not in named:
        known = ", ".join(name for name in named if name) or "none"
        what = f"no ablation {ablation}" if ablation else "only ablations, name one with --ablation"
        raise UserError(f"results/{suite}/{version}: {what}; its ablations are: {known}")
    return named[ablation]


def folder_of(suite: str, version: str, ablation: str | None) -> Path:
    return RESULTS / suite / f"{version}{_ABLATIONS}" / ablation if ablation else RESULTS / suite / version


def new_record(root: Path, release: Release, content: Path) -> dict[str, Any]:
    """What release.json of a release says, before it is in place: its files lie in `content`, made in the checkout `root`."""
    return {
        "suite": release.suite,
        "version": release.version,
        "ablation": release.ablation,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "git": {
            "commit": _git(root, "rev-parse", "HEAD"),
            "tag": _git(root, "describe", "--tags", "--exact-match"),
            "dirty": _is_dirty(root),
        },
        **_made_from(content),
        "requirements": {file.name: _sha256(file) for file in sorted(root.glob("requirements/*.txt"))},
        "values": values_digest(content),
        "files": file_digests(content),
    }


def file_digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file but release.json itself."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / RECORD)
    return {str(file.relative_to(folder)): _sha256(file) for file in files}


def _made_from(content: Path) -> dict[str, Any]:
    """Digests of the configuration, the code and the data, and the container if any."""
    record = provenance(content)
    manifest = content / "manifest.json"
    artefacts = json.loads(manifest.read_text())["artefacts"].values() if manifest.is_file() else []
    inputs = [source for made in (record, *artefacts) for source in made["inputs"].values()]
    data = {source["path"]: source["content"] for source in inputs if Path(source["path"]).parts[1] in _DATA}
    return {
        "config": record["digest"],
        "code": record["code"],
        "data": dict(sorted(data.items())),
        "container": record["environment"].get("container"),
    }


def _is_dirty(root: Path) -> bool | None:
    """Whether files that git knows differ from the commit, results apart; None where there is no git."""
    status = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", f":!{RESULTS}")
    return None if status is None else bool(status)


def _git(root: Path, *arguments: str) -> str | None:
    """What git says; None where it fails: no repository, no tag."""
    environment = {**os.environ, "GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(["git", *arguments], cwd=root, env=environment, capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git in a container
        return None
    return None if done.returncode else done.stdout.strip()


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
