"""Committed suites with other values in them."""

from pathlib import Path
from typing import Any, TypeVar

import pytest
import yaml
from checkouts import ROOT

from prefdist import suites
from prefdist.errors import UserError

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


def check_refused(name: str, kind: type[Any], changes: dict[str, Any], expected: list[str]) -> None:
    """A change is refused in one sentence that begins with the file and has these parts."""
    with pytest.raises(UserError) as caught:
        changed(name, kind, **changes)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(f"workflow/suites/{name}.yaml: ")
    for part in expected:
        assert part in sentence
