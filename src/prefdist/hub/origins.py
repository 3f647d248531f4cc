"""What an artefact comes from, as far as this checkout has it: models and datasets of the hub, texts, and their licences."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefdist.artefacts import PROVENANCE, provenance
from prefdist.errors import UserError
from prefdist.hub_models import hub_models

PROJECT_LICENCE = "apache-2.0"
STDLIB_LICENCE = "psf-2.0"
"""Of docstrings of Python's library: no identifier of the hub's, so that a card names it as another licence."""


@dataclass
class Origins:
    """Repository -> commit of models and datasets of the hub, kinds of text, and folders whose provenance is not here."""

    models: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    texts: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


def origins_of(record: dict[str, Any], root: Path) -> Origins:
    """Of an artefact with this provenance, through all that it was made from."""
    found, waiting, seen = Origins(), [record], set[str]()
    while waiting:
        one = waiting.pop()
        spec = one.get("spec", {})
        if one["stage"] == "model" and spec.get("hub"):
            found.models[spec["hub"]] = spec["revision"]
        elif one["stage"] in ("dataset", "prompts"):
            found.datasets[spec["dataset"]] = str(spec.get("revision"))
        elif one["stage"] == "text":
            found.texts.add(spec.get("kind", "stdlib"))
        for source in one["inputs"].values():
            if source["path"] in seen:
                continue
            seen.add(source["path"])
            if (root / source["path"] / PROVENANCE).is_file():
                waiting.append(provenance(root / source["path"]))
            else:
                found.gone.add(source["path"])
    return found


def licence(origins: Origins, root: Path, *, is_data: bool, given: str | None) -> str:
    """`given`, or the one that follows from the origins: that of all models and datasets, if they have one.

    Weights trained from scratch on a text of this project have the project's; tables that hold the text have its.
    UserError if it does not follow: something is unknown, or there are several.
    """
    if given is not None:
        return given
    known = hub_models(root)
    licences = {name: model.licence if (model := known.model(name)) else None for name in origins.models}
    licences |= {name: known.datasets.get(name) for name in origins.datasets}
    unknown = [name for name, of in licences.items() if of is None] + sorted(origins.gone)
    if unknown:
        raise UserError(f"--license is missing: that of {', '.join(unknown)} is not known here")
    if is_data and "stdlib" in origins.texts:
        licences["Python's standard library"] = STDLIB_LICENCE
    names = {str(of) for of in licences.values()} or {PROJECT_LICENCE}
    if len(names) > 1:
        several = ", ".join(f"{of} of {name}" for name, of in licences.items())
        raise UserError(f"--license is missing, as there are several: {several}")
    return names.pop()
