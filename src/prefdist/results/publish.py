"""Publish an artefact's tables: into results/<suite>/<version>, which is written once and never changed.

Where that folder holds other values, it is kept, and the new ones go to a local version beside it, <version>+<8 hex of
them>: another machine or another Python's text gives other numbers, and a changed suite must not overwrite a release.
"""

import json
import os
import shutil
import sys
from pathlib import Path

from filelock import FileLock

from prefdist.artefacts import verify
from prefdist.errors import UserError
from prefdist.paths import SUITES
from prefdist.plan import Plan
from prefdist.published.document import PAGE, page
from prefdist.results.marker import write_marker
from prefdist.results.release import RECORD, SUITE, Release, folder_of, new_record
from prefdist.results.values import values_digest


def publish(made: Plan, root: Path) -> Path:
    """Put the tables of a plan's final artefact in place, unless they are; returns the folder, relative to the checkout."""
    artefact, marker = root / made.final.path, root / made.published
    verify(artefact)
    marker.parent.mkdir(parents=True, exist_ok=True)
    planned = Release(root, made.results)
    values = values_digest(artefact)
    with FileLock(marker.parent / f".{planned.suite}.lock"):
        release = planned
        if planned.path.exists() and values_digest(planned.path) != values:
            version = f"{planned.version}+{values[:8]}"
            release = Release(root, folder_of(planned.suite, version, planned.ablation))
            _explain(planned, release)
        if not release.path.exists() or values_digest(release.path) != values:  # a local version that was edited
            _write(artefact, release)
        write_marker(marker, release.folder, values)
    return release.folder


def _write(artefact: Path, release: Release) -> None:
    temporary = release.path.with_name(f".{release.path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        shutil.copytree(artefact, temporary, ignore=shutil.ignore_patterns(".snakemake*"))
        shutil.copyfile(release.root / SUITES / f"{release.suite}.yaml", temporary / SUITE)
        if release.ablation is None:
            _write_page(release, temporary)
        record = new_record(release.root, release, temporary)
        (temporary / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        shutil.rmtree(release.path, ignore_errors=True)
        os.replace(temporary, release.path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write_page(release: Release, content: Path) -> None:
    """Published numbers beside the suite's, if there are any. A mistake in what was published keeps no tables back."""
    try:
        beside = page(release.root, release.suite, content)
    except UserError as error:
        print(f"prefdist: {release.folder} goes without {PAGE}: {error}", file=sys.stderr)
        return
    if beside is not None:
        (content / PAGE).write_text(beside, encoding="utf-8")


def _explain(planned: Release, local: Release) -> None:
    of = f" --ablation {planned.ablation}" if planned.ablation else ""
    print(
        f"prefdist: {planned.folder} holds other values and is kept as it is; the new ones are in {local.folder}.\n"
        f"    how they differ:   prefdist results diff {planned.suite} {planned.version} {local.version}{of}\n"
        f"    to release them:   a new `version:` in {SUITES / planned.suite}.yaml",
        file=sys.stderr,
    )
