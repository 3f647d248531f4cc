"""In what two releases were made differently: configuration, data, code, packages, container."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from prefdist.artefacts import provenance
from prefdist.results.release import SUITE, Release


def differing_origins(a: Release, b: Release) -> list[str]:
    """A line for each thing that differs."""
    of_a, of_b = a.record(), b.record()
    lines = _changed("configuration", _suite(a), _suite(b))
    if of_a["config"] != of_b["config"] and not lines:
        lines.append("configuration: rows of workflow/objectives, or defaults of the suite's keys")
    lines += _changed("data", of_a["data"], of_b["data"])
    lines += _changed("code", _code(a), _code(b))
    lines += _changed("environment", _environment(a), _environment(b))
    lines += _changed("requirements", of_a["requirements"], of_b["requirements"])
    return lines + _changed("git", of_a["git"], of_b["git"])


def _changed(what: str, a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    keys = [key for key in dict.fromkeys([*a, *b]) if a.get(key) != b.get(key)]
    return [f"{what}: {key}: {_short(a.get(key))} -> {_short(b.get(key))}" for key in keys]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _suite(release: Release) -> dict[str, Any]:
    file = release.path / SUITE
    return dict(_leaves(yaml.safe_load(file.read_text()))) if file.is_file() else {}


def _code(release: Release) -> dict[str, str]:
    """Stage -> digest of its code. Trainings of several families have several."""
    record, file = provenance(release.path), release.path / "manifest.json"
    artefacts = json.loads(file.read_text())["artefacts"].values() if file.is_file() else []
    stages: dict[str, set[str]] = {}
    for made in (record, *artefacts):
        stages.setdefault(made["stage"], set()).add(made["code"])
    return {stage: ", ".join(sorted(digests)) for stage, digests in sorted(stages.items())}


def _environment(release: Release) -> dict[str, Any]:
    return dict(_leaves(provenance(release.path)["environment"]))


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Of nested mappings, by dotted key."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, f"{key}.{name}" if key else str(name))
    else:
        yield key, value
