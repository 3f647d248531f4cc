"""What a suite still lacks before anything is computed: `prefdist doctor <suite>`.

Of every model and dataset that the suite names: its licence, whether its commit is chosen, whether it may be fetched, and of
what is on this machine already whether template, PAD and vocabulary fit. Keys of judges, and the disk. Nothing is fetched and
no machine is asked.
"""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from prefdist.artefacts import PROVENANCE
from prefdist.data.models import OWN, check_template
from prefdist.doctor import GIB, Finding
from prefdist.errors import UserError
from prefdist.forecast.forecast import Forecaster
from prefdist.hub_models import hub_models
from prefdist.paths import SUITES, check_model_folder
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite
from prefdist.tokens import checked_codec

Terms = dict[str, tuple[str, bool]]
"""Name on the hub -> its licence, and whether it is gated."""


def examine_suite(name: str, root: Path) -> list[Finding]:
    """UserError if the suite itself is wrong."""
    suite = load_suite(name, root)
    made, terms = plan(suite, root), _known_terms(root) | dict(_terms(suite.model_dump()))
    read = [artefact for artefact in made.of_stage("prompts") if "dataset" in artefact.spec]  # without an artefact of their own
    sources = [*made.of_stage("model"), *made.of_stage("dataset"), *read]
    return [*(_source(name, artefact, terms, root) for artefact in sources), *_keys(made), _disk(made, root)]


def _known_terms(root: Path) -> Terms:
    """What workflow/hub_models.yaml says, where the suite does not."""
    known = hub_models(root)
    models = {name: (model.licence, model.gated) for model in known.models for name in model.names}
    return models | {name: (licence, False) for name, licence in known.datasets.items()}


def _terms(node: Any) -> Iterator[tuple[str, tuple[str, bool]]]:
    """Wherever the suite names something of the hub beside its licence; the last one that says it counts."""
    if isinstance(node, Mapping):
        source = node.get("hub") or node.get("dataset")
        if source and node.get("licence", "not stated") != "not stated":
            yield source, (node["licence"], node["gated"])
        for value in node.values():
            yield from _terms(value)


def _source(suite: str, artefact: Artefact, terms: Terms, root: Path) -> Finding:
    spec = artefact.spec
    source = spec["dataset"] if "dataset" in spec else spec["hub"] or spec["folder"]
    licence, gated = terms.get(source, ("", False))
    kind = "dataset" if "dataset" in spec else "model"
    what = f"{kind} {source}" + (f" ({licence}{', gated' if gated else ''})" if licence else "")
    if (root / artefact.path / PROVENANCE).is_file():
        problem = _trouble(root / artefact.path, spec) if artefact.stage == "model" else None
        return Finding(problem is None, f"{what}: {problem or 'fetched'}")
    if Path(source).is_dir():
        problem = _trouble(Path(source), spec) if artefact.stage == "model" else None
        return Finding(problem is None, f"{what}: {problem or 'on this machine'}")
    problem = _unfetched(suite, source, spec["revision"], gated)
    return Finding(problem is None, f"{what}: {problem or 'to be fetched, commit ' + spec['revision'][:9]}")


def _unfetched(suite: str, source: str, revision: str, gated: bool) -> str | None:
    """Why something of the hub cannot be fetched, as far as this machine knows."""
    from huggingface_hub import constants, get_token

    if not revision.strip("0"):
        return f"its revision in {SUITES / suite}.yaml is a placeholder; put there the commit that you accept"
    if gated and get_token() is None:
        return f"accept its licence on https://huggingface.co/{source}, then hf auth login, or set HF_TOKEN"
    if constants.HF_HUB_OFFLINE:
        return "not fetched yet, and HF_HUB_OFFLINE is set; unset it where the hub can be reached"
    return None


def _trouble(folder: Path, spec: dict[str, Any]) -> str | None:
    """What is wrong with a model folder. The template that a suite gives is put there when it is made."""
    try:
        check_model_folder(folder)
        if spec.get("template") == OWN:
            check_template(folder, str(folder))
        elif spec.get("template") is not None:
            checked_codec(folder)
    except UserError as error:
        return str(error)
    return None


def _keys(made: Plan) -> Iterator[Finding]:
    """Of judges behind an endpoint: the variables that are to hold their keys, which are never shown."""
    judges = [artefact.spec["judge"] for artefact in made.of_stage("judge")]
    for variable in dict.fromkeys(judge["key_variable"] for judge in judges if judge["key_variable"] is not None):
        models = ", ".join(dict.fromkeys(judge["model"] for judge in judges if judge["key_variable"] == variable))
        there = bool(os.environ.get(variable, "").strip())
        text = f"key of the judge {models}: {variable}"
        yield Finding(there, text if there else f"{text} is not set; export it, or remove the suite's sections judging")


def _disk(made: Plan, root: Path) -> Finding:
    finals = [made.final, *(ablation.final for ablation in made.ablations.values())]
    forecast = Forecaster(root).forecast(made, finals, None)
    lines = forecast.of_state("to make")
    wanted = sum(line.disk or 0.0 for line in lines)
    unknown = sum(line.disk is None for line in lines)
    more = f", and {unknown} artefacts of unknown size" if unknown else ""
    enough = wanted <= forecast.free
    text = f"disk: {wanted / GIB:.0f} GiB wanted{more}; {forecast.free / GIB:.0f} GiB free in the working folder"
    return Finding(enough, text if enough else f"{text}; make room, or work on another file system")
