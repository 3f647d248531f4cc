"""What the studies of exact worlds have in common: small classes of policies, and what every study is held to."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

SHAPE: dict[str, Any] = {
    "actions": 5,
    "directions": 8,
    "octaves": 4,
    "reach": 2.0,
    "spread": 1.0,
    "far_spread": 2.0,
    "seed": 0,
}
"""Of classes of policies (exact/finite_classes.py)."""


def logs(*p: float) -> torch.Tensor:
    return torch.tensor(p, dtype=torch.float64).log()


def written_again(run: Callable[..., None], spec: dict[str, Any], written: Path) -> dict[str, bytes]:
    """Its files by name, made by `run` a second time: the same names and bytes as are in the folder `written`."""
    out = written / "again"
    out.mkdir()
    run(spec, {}, out, written)
    files = {file.name: file.read_bytes() for file in out.iterdir()}
    assert files
    assert files == {file.name: file.read_bytes() for file in written.iterdir() if file.is_file()}
    return files
