"""Rows of the objective table, read once each: a plan names the same few hundreds of times."""

from collections.abc import Mapping
from functools import cache
from typing import Any

from prefdist.objectives import registry


def read_row(objective: str, parameters: Mapping[str, float] | None = None) -> Any:
    """The checked row, which is not to be changed; see objectives/registry.py."""
    return _read(objective, tuple(sorted((parameters or {}).items())))


@cache
def _read(objective: str, parameters: tuple[tuple[str, float], ...]) -> Any:
    return registry.read_row(objective, dict(parameters))
