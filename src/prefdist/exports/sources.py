"""What every export of every suite is made from, in one file: data/plan.json, whose keys DVC's stages depend on.

A key changes exactly when what is exported under it would be made anew: by another specification or by other code.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefdist.paths import SUITES
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite

TABLES = ("prompts", "preferences", "pairs", "reference", "responses", "scores", "questions", "choices", "problems", "draws")
"""Stages whose artefacts are data to be shared; the prompts are beside them."""


def tables(made: Plan) -> list[Artefact]:
    """The artefacts that hold a suite's data, its own prompts first: none for enumerable worlds, which have no text."""
    prompts = [made.final.inputs["text"]] if "text" in made.final.inputs else []
    others = [artefact for stage in TABLES for artefact in made.of_stage(stage)]
    return list({artefact.path: artefact for artefact in [*prompts, *others]}.values())


def write_sources(file: Path, root: Path) -> None:
    """Suite -> data and ablations -> their sources."""
    plans = {path.stem: plan(load_suite(path.stem, root), root) for path in sorted((root / SUITES).glob("*.yaml"))}
    content = {name: _of_suite(made) for name, made in plans.items() if tables(made)}
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, file)


def _of_suite(made: Plan) -> dict[str, Any]:
    ablations = {name: _sources([ablation.final]) for name, ablation in made.ablations.items()}
    return {"data": _sources(tables(made)), "ablations": ablations}


def _sources(finals: Iterable[Artefact]) -> dict[str, str]:
    """Digests of the artefacts and of all code behind them, and the Python whose library was read, where one was."""
    artefacts = closure(finals)
    made_of = {
        "artefacts": _digest(str(artefact.path) for artefact in artefacts.values()),
        "code": _digest(f"{artefact.stage} {artefact.code_digest}" for artefact in artefacts.values()),
    }
    pythons = [artefact.spec["python"] for artefact in artefacts.values() if "python" in artefact.spec]
    return made_of | ({"python": pythons[0]} if pythons else {})


def closure(finals: Iterable[Artefact]) -> dict[str, Artefact]:
    """The artefacts and all that they are made from, by path; what is made from others comes after them."""
    found: dict[str, Artefact] = {}

    def visit(artefact: Artefact) -> None:
        if str(artefact.path) not in found:
            for source in artefact.inputs.values():
                visit(source)
            found[str(artefact.path)] = artefact

    for final in finals:
        visit(final)
    return found


def _digest(lines: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()[:12]
