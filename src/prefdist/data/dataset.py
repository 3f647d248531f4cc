"""The stage `dataset`: the files of rows of a dataset, as they are."""

from pathlib import Path
from typing import Any

from prefdist.data.hub import fetch_dataset


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """JSON-lines and Parquet files of one commit, or of a local folder; no script is taken."""
    fetch_dataset(spec["dataset"], spec["revision"], out)
