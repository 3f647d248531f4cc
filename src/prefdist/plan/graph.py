"""Planned artefacts: a name, a specification, inputs, and the digest that follows from them. Nothing is made here."""

import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from prefdist.code import code_digest
from prefdist.paths import ARTEFACTS, RESULTS

STAGES = {
    "text": "prefdist.data.stage",
    "prompts": "prefdist.data.prompts",
    "model": "prefdist.data.models",
    "train": "prefdist.training.stage",
    "preferences": "prefdist.scoring.preferences",
    "reference": "prefdist.scoring.reference",
    "responses": "prefdist.sampling.stage",
    "scores": "prefdist.scoring.teacher",
    "questions": "prefdist.scoring.mcq",
    "baselines": "prefdist.evaluation.baselines",
    "calibrate": "prefdist.evaluation.reward_model",
    "evaluate": "prefdist.evaluation.policy",
    "held_out": "prefdist.evaluation.held_out",
    "teacher": "prefdist.evaluation.teacher",
    "student": "prefdist.evaluation.student",
    "dataset": "prefdist.data.dataset",
    "pairs": "prefdist.data.pairs",
    "choices": "prefdist.data.choices",
    "problems": "prefdist.data.problems",
    "draws": "prefdist.behaviour.draws",
    "alignment": "prefdist.behaviour.alignment",
    "diversity": "prefdist.behaviour.diversity",
    "shift": "prefdist.behaviour.shift",
    "repeats": "prefdist.behaviour.repeats",
    "calibration": "prefdist.behaviour.calibration",
    "best_of_n": "prefdist.behaviour.best_of_n",
    "tax": "prefdist.behaviour.tax",
    "benchmarks": "prefdist.behaviour.benchmarks",
    "judge": "prefdist.judging.stage",
    "judge_local": "prefdist.judging.stage",
    "results": "prefdist.results.stage",
    "ablation": "prefdist.results.ablation",
    "pad_results": "prefdist.results.distillation",
    "spl_results": "prefdist.results.behaviour",
    "adl_results": "prefdist.results.alignment",
    "exact_optima": "prefdist.exact.studies.optima",
    "exact_estimators": "prefdist.exact.studies.estimators",
    "exact_convergence": "prefdist.exact.studies.convergence",
    "exact_coverage": "prefdist.exact.studies.coverage",
    "exact_misspecification": "prefdist.exact.studies.misspecification",
    "exact_degeneracy": "prefdist.exact.studies.degeneracy",
    "exact_prior_smoothing": "prefdist.exact.studies.prior_smoothing",
    "exact_representation": "prefdist.exact.studies.representation",
    "exact_temperature": "prefdist.exact.studies.temperature",
    "exact_output_shift": "prefdist.exact.studies.output_shift",
    "exact_chosen_rejected": "prefdist.exact.studies.chosen_rejected",
    "exact_unification": "prefdist.exact.studies.unification",
    "exact_results": "prefdist.exact.results",
}
"""Stage -> the module whose `run(spec, inputs, out, scratch)` makes the artefact."""


def engine_code(spec: dict[str, Any], *, policy: bool = False) -> tuple[str, ...]:
    """The module that draws, where a specification names an engine that its stage does not import at top level."""
    return (f"prefdist.sampling.vllm.{'policy' if policy else 'engine'}",) if spec.get("engine") == "vllm" else ()


@dataclass(frozen=True)
class Artefact:
    """One folder to be made. `inputs` are other artefacts by the role they play.

    `how`: settings of its making that are no part of what it is, nor of its digest.
    """

    stage: str
    name: str
    spec: dict[str, Any]
    inputs: dict[str, "Artefact"] = field(default_factory=dict)
    code: tuple[str, ...] = ()
    how: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def digest(self) -> str:
        content = {
            "stage": self.stage,
            "spec": self.spec,
            "inputs": {role: artefact.digest for role, artefact in self.inputs.items()},
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:10]

    @property
    def path(self) -> Path:
        return ARTEFACTS / self.stage / f"{self.name}-{self.digest}"

    @property
    def code_digest(self) -> str:
        return code_digest(STAGES[self.stage], *self.code)


class Plan:
    """All artefacts of a suite. `final` is the last one, from which all others are reached; it is published in `results`.

    Each ablation is a plan of its own, whose artefacts the suite's are, too.
    """

    def __init__(self, final: Artefact, results: Path, ablations: dict[str, Artefact] | None = None) -> None:
        self.final, self.results = final, results
        folder = results.with_name(f"{results.name}-ablations")
        self.ablations = {name: Plan(ablation, folder / name) for name, ablation in (ablations or {}).items()}
        self.artefacts: dict[str, Artefact] = {}
        waiting = [final, *(plan.final for plan in self.ablations.values())]
        while waiting:
            artefact = waiting.pop()
            if str(artefact.path) not in self.artefacts:
                self.artefacts[str(artefact.path)] = artefact
                waiting += artefact.inputs.values()

    @property
    def published(self) -> Path:
        """Marks that the final artefact's tables were published, and where. Not in git: a fresh clone has run nothing."""
        folder = ARTEFACTS / "published" / self.results.parent.relative_to(RESULTS)
        return folder / f"{self.results.name}-{self.final.digest}.json"

    def of_stage(self, stage: str) -> list[Artefact]:
        return [artefact for artefact in self.artefacts.values() if artefact.stage == stage]
