"""What every study of exact worlds is held to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any


def written_again(run: Callable[..., None], spec: dict[str, Any], written: Path) -> dict[str, bytes]:
    """Its files by name, made by `run` a second time: the same names and bytes as are in the folder `written`."""
    out = written / "again"
    out.mkdir()
    run(spec, {}, out, written)
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    assert files
    assert files == {file.name: file.read_bytes() for file in written.iterdir() if file.is_file()}
    return files
