"""Is a release what it was? The digest of every file, and every table that can be rebuilt from its metric rows."""

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from prefdist.artefacts import provenance
from prefdist.errors import UserError
from prefdist.results.differences import differences
from prefdist.results.from_rows import WRITERS
from prefdist.results.release import RECORD, Release, file_digests


@dataclass
class Verdict:
    """What was found of a release. `problems` name a file or a cell each; `rebuilt` and `by_digest` are file names."""

    problems: list[str] = field(default_factory=list)
    rebuilt: list[str] = field(default_factory=list)
    by_digest: list[str] = field(default_factory=list)
    cells: int = 0


def verify_release(release: Release) -> Verdict:
    """UserError if there is no record to verify it against."""
    verdict = Verdict()
    wanted, found = release.record()["files"], file_digests(release.path)
    for name, digest in wanted.items():
        if name not in found:
            verdict.problems.append(f"{name}: missing, though {RECORD} lists it")
        elif found[name] != digest:
            verdict.problems.append(f"{name}: its SHA-256 is not what {RECORD} says")
    verdict.problems += [f"{name}: not listed in {RECORD}" for name in found if name not in wanted]
    with tempfile.TemporaryDirectory() as temporary:
        rebuilt = Path(temporary)
        try:
            record = provenance(release.path)
            if record["stage"] in WRITERS:
                WRITERS[record["stage"]](record["spec"], release.path, rebuilt)
        except (UserError, OSError, ValueError, KeyError, TypeError) as error:  # a truncated Parquet file, an edited spec, …
            verdict.problems.append(f"tables could not be rebuilt from the metric rows: {error}")
        try:
            _compare(release, rebuilt, verdict)
        except UserError as error:
            verdict.problems.append(f"tables could not be compared: {error}")
    verdict.by_digest = [name for name in wanted if name not in verdict.rebuilt]
    return verdict


def _compare(release: Release, rebuilt: Path, verdict: Verdict) -> None:
    """CSV cell by cell at the precision they are written with, Markdown line by line."""
    verdict.rebuilt = sorted(file.name for file in rebuilt.iterdir())
    for difference in differences(release.path, rebuilt):
        if difference.table in verdict.rebuilt:
            verdict.cells += 1
            if difference.kind != "equal":
                verdict.problems.append(difference.as_words("the table has", "its metric rows give"))
    for name in verdict.rebuilt:
        if (release.path / name).is_file() and (release.path / name).read_bytes() != (rebuilt / name).read_bytes():
            verdict.problems.append(f"{name}: not the bytes that follow from the metric rows")
