"""The stage `dataset`: the files of a dataset that hold data, as they are."""

from pathlib import Path
from typing import Any

from prefdist.data.hub import fetch_dataset


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Files of rows, or those that the specification lists as `files`, of one commit or a local folder; no script is taken."""
    fetch_dataset(spec["dataset"], spec["revision"], out, spec.get("files"))
