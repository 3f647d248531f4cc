"""Read a suite: workflow/suites/<name>.yaml, checked. The key `kind` says which model of the configuration it follows."""

import json
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from prefdist.config.adl import AdlSuite
from prefdist.config.exact import ExactSuite
from prefdist.config.models import MODEL_KINDS
from prefdist.config.pad import PadSuite
from prefdist.config.spl import SplSuite
from prefdist.config.testbed import TEXT_KINDS, Suite
from prefdist.errors import UserError
from prefdist.objectives.rows import ObjectiveRow
from prefdist.paths import SUITES
from prefdist.published.records import Work

AnySuite = Suite | ExactSuite | AdlSuite | PadSuite | SplSuite
KINDS: dict[str, type[Suite] | type[ExactSuite] | type[AdlSuite] | type[PadSuite] | type[SplSuite]] = {
    "testbed": Suite,
    "adl": AdlSuite,
    "exact": ExactSuite,
    "pad": PadSuite,
    "spl": SplSuite,
}


def load_suite(name: str, root: Path) -> AnySuite:
    """The checked suite workflow/suites/<name>.yaml. UserError names file, key and value."""
    path = SUITES / f"{name}.yaml"
    if not (root / path).is_file():
        known = sorted(file.stem for file in (root / SUITES).glob("*.yaml"))
        raise UserError(f"{path}: no such suite; known are {', '.join(known)}")
    try:
        mapping = yaml.safe_load((root / path).read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(mapping, dict):
        raise UserError(f"{path}: a suite is a mapping of keys, found {type(mapping).__name__}")
    return parse_suite(mapping, path)


def parse_suite(mapping: dict[str, Any], path: Path) -> AnySuite:
    """A suite from its mapping, with `defaults.run` merged into every run."""
    if mapping.get("suite") != path.stem:
        raise UserError(f"{path}: suite: {mapping.get('suite')!r} must be the file's name, {path.stem!r}")
    kind = mapping.get("kind", "testbed")
    if kind not in KINDS:
        raise UserError(f"{path}: kind: {kind!r} is not one of {', '.join(KINDS)}")
    model = KINDS[kind]
    mapping = dict(mapping)
    defaults = mapping.pop("defaults", {})
    for name, run in (mapping.get("runs") or {}).items():
        mapping["runs"][name] = merge(defaults, run or {})
    try:
        return model.model_validate(mapping)
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` on top of `base`, mappings merged key by key; a null in `over` removes the key."""
    merged = dict(base)
    for key, value in over.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            merged[key] = merge(base[key], value)
        elif value is None:
            merged.pop(key, None)
        else:
            merged[key] = value
    return merged


def _first_problem(error: ValidationError) -> str:
    problem = error.errors()[0]
    # Which kind of model or text was meant is in pydantic's path, but no key of the file.
    tags = {*MODEL_KINDS, *TEXT_KINDS.values()}
    where = ".".join(str(part) for part in problem["loc"] if part not in tags)
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such key (value {problem['input']!r}); remove it or mend its spelling{more}"
    if problem["type"] == "missing":
        return f"{where}: this key is missing{more}"
    if problem["type"] == "value_error":
        sentence = problem["msg"].removeprefix("Value error, ")
        return f"{where}: {sentence}{more}" if where else f"{sentence}{more}"
    return f"{where}: {problem['msg']}, found {problem['input']!r}{more}"


def json_schemas() -> dict[str, str]:
    """The generated JSON schemas, by file name (workflow/schemas/)."""
    schemas = {kind: model.model_json_schema() for kind, model in KINDS.items()}
    schemas["objective"] = TypeAdapter(ObjectiveRow).json_schema()
    schemas["published"] = Work.model_json_schema()
    return {f"{name}.schema.json": json.dumps(schema, indent=2) + "\n" for name, schema in schemas.items()}
