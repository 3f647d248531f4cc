"""Committed suites with other values in them."""

from pathlib import Path
from typing import Any, TypeVar

import yaml
from checkouts import ROOT

from prefdist import suites

Kind = TypeVar("Kind")


def committed(name: str) -> dict[str, Any]:
    mapping = yaml.safe_load((ROOT / f"workflow/suites/{name}.yaml").read_text())
    assert isinstance(mapping, dict)
    return mapping


def changed(name: str, kind: type[Kind], **changes: Any) -> Kind:
    """A committed suite of this kind with other values at keys joined by slashes; None removes a key."""
    mapping = committed(name)
    for keys, value in changes.items():
        node = mapping
        *parents, last = keys.split("/")
        for key in parents:
            node = node.setdefault(key, {})
        node[last] = value
        if value is None:
            del node[last]
    suite = suites.parse_suite(mapping, Path(f"workflow/suites/{name}.yaml"))
    assert isinstance(suite, kind)
    return suite
