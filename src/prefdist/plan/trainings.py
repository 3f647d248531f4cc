"""The trainings on one set of preferences from one base, and what teaches a base to answer questions.

What trainings share is made once. Left out: where preferences come from, and what is measured of the models (the plans of each
kind of suite).
"""

from collections.abc import Callable, Sequence

from prefdist.config.common import RewardUse, Run
from prefdist.config.models import TrainingQuestions
from prefdist.objectives.registry import FAMILIES
from prefdist.plan.graph import Artefact, engine_code
from prefdist.plan.rows import read_row

QUESTIONS = "prefdist.training.questions"
"""Where the examples of a phase of questions are made."""
APART = 1000
"""Added to a seed, it names other pairs: those of the reward model that judges, and has seen none that policies learn from."""


class Trainings:
    """`base` is π₀, `preferences` gives the pairs of a seed, `probe` what learning curves are measured on.

    `reward_model`: how it is trained, or one that is. `prompts`: what runs on the policy's samples answer, where these are not
    the prompts of the pairs. Names of artefacts start with `prefix`.
    """

    def __init__(
        self,
        text: Artefact,
        base: Artefact,
        preferences: Callable[[int], Artefact],
        reward_model: Run | Artefact,
        probe: Artefact | None = None,
        prompts: Artefact | None = None,
        prefix: str = "",
    ) -> None:
        self.text, self.base, self.preferences, self.probe = text, base, preferences, probe
        self._reward_model, self._prompts, self._prefix = reward_model, prompts, prefix

    def trained(self, name: str, run: Run, seed: int) -> Artefact:
        """A run's model of a seed, trained on that seed's pairs."""
        row = read_row(run.objective, run.parameters)
        preferences = self.preferences(seed)
        code = [FAMILIES[row.family]]
        inputs = {"text": self.text, "init": self.base}
        if row.responses == "policy" and self._prompts is not None:
            inputs["prompts"] = self._prompts
        else:
            inputs["preferences"] = preferences
        regularised = getattr(row, "regulariser", None) is not None
        if regularised:
            code.append(FAMILIES["policy_gradient"])  # where the KL surrogate stands
        if regularised or row.responses == "policy":
            assert run.rollouts is not None  # the suite was checked
            inputs["prior"] = self.base
            code += ["prefdist.training.rollouts", *engine_code(run.rollouts.model_dump(), policy=True)]
        if row.responses == "policy":
            inputs["reward_model"] = self.reward_model(seed + APART if run.reward_model == "apart" else seed)
        elif row.family == "preference" and row.score.against == "reference":
            reference = {"text": self.text, "preferences": preferences, "prior": self.base}
            inputs["reference"] = Artefact("reference", preferences.name, {}, reference)
        spec = {
            "data": {"kind": run.train_on} | ({"label_noise": run.label_noise} if run.label_noise else {}),
            "objective": row.model_dump(),
            "optimisation": run.optimisation.model_dump(mode="json"),
            "rollouts": run.rollouts.model_dump() if run.rollouts else None,
            "lora": run.lora.model_dump() if run.lora else None,
            "seed": seed,
        }
        if run.reward != RewardUse():
            spec["reward"] = run.reward.model_dump()
        if run.optimisation.probe_every:
            assert self.probe is not None  # the suite was checked
            inputs["probe"] = self.probe
        return Artefact("train", f"{self._prefix}{name}-seed{seed}", spec, inputs, tuple(code), run.optimisation.how())

    def reward_model(self, seed: int) -> Artefact:
        """Trained on the pairs of a seed; of seed + APART, on pairs of its own. One that is trained already is that of all."""
        if isinstance(self._reward_model, Artefact):
            return self._reward_model
        return self.trained("reward_model", self._reward_model, seed)


def taught(model: Artefact, phases: Sequence[TrainingQuestions], name: str, fraction: float) -> list[Artefact]:
    """The model and what it is after each phase of questions about a fraction of its text; the last one has the name."""
    models = [model]
    for i, phase in enumerate(phases):
        row = read_row(phase.objective)
        asked = phase.model_dump(exclude={"objective", "optimisation"})
        spec = {
            "data": {"examples": QUESTIONS, "fraction": fraction, **asked},
            "objective": row.model_dump(),
            "optimisation": phase.optimisation.model_dump(mode="json"),
            "seed": 0,
        }
        inputs = {"text": model.inputs["text"], "init": models[-1]}
        phase_name = name if i == len(phases) - 1 else f"{name}-phase{i + 1}"
        code = (FAMILIES[row.family], QUESTIONS)
        models.append(Artefact("train", phase_name, spec, inputs, code, phase.optimisation.how()))
    return models
