"""From a row of the objective table to a callable: `load("dpo")`, `load(Path("my.yaml"))` or `load({...})`."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import yaml

from prefdist.objectives import rows

if TYPE_CHECKING:  # reading a row at parse time must not cost the import of torch
    from torch import Tensor

_HERE = Path(__file__).resolve().parent
_CHECKOUT = _HERE.parents[2] / "workflow" / "objectives"
ROWS_FOLDER = _CHECKOUT if _CHECKOUT.is_dir() else _HERE / "rows"
"""The rows lie in the checkout; a wheel carries a copy."""

FAMILIES = {
    "preference": "prefdist.objectives.preference",
    "likelihood": "prefdist.objectives.likelihood",
    "token_distillation": "prefdist.objectives.token_distillation",
    "policy_gradient": "prefdist.objectives.policy_gradient",
}
"""Family -> module, imported only when a row asks for it, so that a change in one family leaves the others' digests."""


class Objective(Protocol):
    """Per-example losses from log-probabilities and columns; one example is a prompt with its n responses."""

    row: Any
    needs: frozenset[str]
    """What must be in `logps` and `columns` beside logps["policy"]."""

    def __call__(self, logps: "Mapping[str, Tensor]", columns: "Mapping[str, Tensor]") -> "Tensor":
        """Losses [B]."""
        ...


def read_row(name_or_mapping: str | Path | Mapping[str, Any], parameters: Mapping[str, float] | None = None) -> Any:
    """The checked row, its parameters overridden. ValueError or FileNotFoundError says what is wrong."""
    if isinstance(name_or_mapping, Mapping):
        mapping = dict(name_or_mapping)
    else:
        path = Path(name_or_mapping)
        if path.suffix != ".yaml":
            path = ROWS_FOLDER / f"{name_or_mapping}.yaml"
        if not path.is_file():
            known = sorted(file.stem for file in ROWS_FOLDER.glob("*.yaml"))
            raise FileNotFoundError(f"{path}: no such objective; known are {', '.join(known)}")
        mapping = yaml.safe_load(path.read_text())
    if parameters:
        known_parameters = mapping.get("parameters", {})
        unknown = set(parameters) - set(known_parameters)
        if unknown:
            raise ValueError(f"parameters {sorted(unknown)} are not in the row, which has {sorted(known_parameters)}")
        mapping = {**mapping, "parameters": {**known_parameters, **parameters}}
    return rows.parse(mapping)


def load(name_or_mapping: str | Path | Mapping[str, Any], parameters: Mapping[str, float] | None = None) -> Objective:
    """The objective of a row: by name, by path, or given as a mapping; `parameters` override the row's."""
    row = read_row(name_or_mapping, parameters)
    objective: Objective = import_module(FAMILIES[row.family]).build(row)
    return objective
