"""The artefacts of a suite with a known target, each made once."""

from pathlib import Path

from prefdist.config.common import Run
from prefdist.config.testbed import AnyText, Arithmetic, ModelRun, Suite
from prefdist.containers import python_version
from prefdist.errors import UserError
from prefdist.objectives.registry import FAMILIES
from prefdist.plan.graph import Artefact
from prefdist.plan.rows import read_row
from prefdist.plan.trainings import Trainings
from prefdist.suites import load_suite


class Testbed:
    """The artefacts of a suite with a known target, each made once."""

    def __init__(self, suite: Suite) -> None:
        self.suite = suite
        self.text = _text(suite.text)
        self.prior = self._model("prior", suite.prior)
        self.target = self._model("target", suite.target)
        evaluation = suite.evaluation.model_dump()
        self.baselines = Artefact(
            "baselines", "baselines", evaluation, {"text": self.text, "target": self.target, "prior": self.prior}
        )
        self.trainings = Trainings(self.text, self.prior, self.preferences, suite.reward_model, self.baselines)

    def _model(self, name: str, run: ModelRun) -> Artefact:
        row = read_row(run.objective)
        data = {"noise": run.noise, "fraction": run.fraction}
        spec = {
            "data": {"kind": "references", **data},
            "objective": row.model_dump(),
            "optimisation": run.optimisation.model_dump(mode="json"),
            "architecture": self.suite.architecture,
            "init": run.init,
            "temperature": run.temperature,
            "seed": 0,
        }
        inputs = {"text": self.text} | ({"init": self.prior} if run.init == "prior" else {})
        return Artefact("train", name, spec, inputs, (FAMILIES[row.family],), run.optimisation.how())

    def preferences(self, seed: int) -> Artefact:
        """Pairs that no other seed has, drawn from π₀ and labelled by π*."""
        spec = {**self.suite.preferences.model_dump(), "seed": seed}
        return Artefact("preferences", f"seed{seed}", spec, {"text": self.text, "prior": self.prior, "target": self.target})

    def _evaluation(self, name: str, policies: dict[int, Artefact]) -> Artefact:
        """One artefact for all seeds of a run: they share the target, the prior and the process."""
        suite = self.suite
        spec = {**suite.evaluation.model_dump(), "gamma": suite.preferences.gamma, "run": name, "seeds": suite.seeds}
        inputs = {"text": self.text, "baselines": self.baselines, "target": self.target, "prior": self.prior}
        for seed, policy in policies.items():
            inputs |= {f"policy/{seed}": policy, f"reward_model/{seed}": self.trainings.reward_model(seed)}
        return Artefact("evaluate", name, spec, inputs)

    def results(self) -> Artefact:
        suite = self.suite
        inputs = {"text": self.text, "baselines": self.baselines, "prior": self.prior, "target": self.target}
        inputs["evaluation/prior"] = self._evaluation("prior", dict.fromkeys(suite.seeds, self.prior))
        for name, run in suite.runs.items():
            policies = {seed: self.trainings.trained(name, run, seed) for seed in suite.seeds}
            inputs |= {f"policy/{name}/{seed}": policy for seed, policy in policies.items()}
            inputs[f"evaluation/{name}"] = self._evaluation(name, policies)
        calibration = {"text": self.text}
        for seed in suite.seeds:
            calibration |= {
                f"reward_model/{seed}": self.trainings.reward_model(seed),
                f"preferences/{seed}": self.preferences(seed),
            }
        inputs["calibration"] = Artefact("calibrate", "reward_model", {"seeds": suite.seeds}, calibration)
        families = {"prior": "π₀"} | {name: _family(run) for name, run in suite.runs.items()}
        spec = {"suite": suite.suite, "seeds": suite.seeds, "runs": list(families), "families": families}
        return Artefact("results", suite.suite, spec, inputs)


def load_world(suite: str, world: str, root: Path) -> Testbed:
    """The testbed suite that another suite takes its text, π₀ and preferences from.

    UserError, which names the suite that asks, if there is none or it is of another kind.
    """
    try:
        found = load_suite(world, root)
    except UserError as error:
        raise UserError(f"suite {suite}: world: {error}") from error
    if not isinstance(found, Suite):
        raise UserError(f"suite {suite}: world: {world} is of kind {found.kind}; name a testbed suite")
    return Testbed(found)


def _text(text: AnyText) -> Artefact:
    if isinstance(text, Arithmetic):
        return Artefact("text", text.kind, text.model_dump(mode="json"))
    # It is read from the interpreter, so another Python is another text. Digests of what was published know no kind.
    return Artefact("text", text.kind, {**text.model_dump(exclude={"kind"}), "python": python_version()})


def _family(run: Run) -> str:
    """Which kind of method a run is, for the figures."""
    row = read_row(run.objective, run.parameters)
    if row.family != "preference":
        return row.family.replace("_", " ")
    return "preferences, from data" if row.responses == "dataset" else "preferences, on policy"
