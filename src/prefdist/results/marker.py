"""The marker that Snakemake sees: which folder of results/ holds the tables of an artefact of this checkout.

It lies in artefacts/, outside git: a fresh clone has tables, but has made nothing.
"""

import json
import os
from pathlib import Path

from prefdist.results.release import RECORD


def write_marker(marker: Path, folder: Path, values: str) -> None:
    """Say that `folder` (relative to the checkout) holds these values."""
    temporary = marker.with_name(f".{marker.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps({"folder": str(folder), "values": values}) + "\n")
    os.replace(temporary, marker)


def published_folder(root: Path, marker: Path) -> Path | None:
    """The folder that a marker names, relative to the checkout, while it has the marker's values; else None."""
    try:
        content = json.loads((root / marker).read_text())
        record = json.loads((root / content["folder"] / RECORD).read_text())
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return Path(content["folder"]) if record.get("values") == content["values"] else None


def discard_if_stale(root: Path, marker: Path) -> None:
    """Remove a marker whose folder was removed or replaced, so that Snakemake publishes again."""
    if (root / marker).exists() and published_folder(root, marker) is None:
        (root / marker).unlink(missing_ok=True)
