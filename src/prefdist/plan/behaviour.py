"""The artefacts of a suite of behaviour, each made once: samples are shared by all that is measured of them."""

from pathlib import Path
from typing import Any

from prefdist.config.spl import BASE, MEASURES, Choices, Decoder, Problems, SplSuite
from prefdist.plan.answers import dataset
from prefdist.plan.graph import Artefact, engine_code
from prefdist.plan.rows import read_row
from prefdist.plan.testbed import Testbed, load_world
from prefdist.plan.trainings import APART, Trainings, taught


class Behaviour:
    """From one set of preferences to models, their samples, and measures of them."""

    def __init__(self, suite: SplSuite, root: Path) -> None:
        self.suite = suite
        self.world = None if suite.world is None else load_world(suite.suite, suite.world, root)
        self.trainings = self._of_pairs() if self.world is None else self._of_world(self.world)
        self.text, self.base = self.trainings.text, self.trainings.base

    def _of_world(self, world: Testbed) -> Trainings:
        base = taught(world.prior, self.suite.questions, BASE, 1.0)[-1]
        return Trainings(world.text, base, world.preferences, world.suite.reward_model)

    def _of_pairs(self) -> Trainings:
        pairs, stored, reward_model = self.suite.pairs, self.suite.base, self.suite.reward_model
        assert pairs is not None and stored is not None and reward_model is not None  # the suite was checked
        base = Artefact("model", BASE, stored.model_dump(exclude={"dtype"}))
        spec = pairs.model_dump(exclude={"dataset", "revision"})
        inputs = {"base": base, "dataset": dataset(pairs)}
        policies, judge = (Artefact("pairs", part, {**spec, "part": part}, inputs) for part in ("policies", "judge"))
        return Trainings(policies, base, lambda seed: policies if seed < APART else judge, reward_model)

    def model(self, name: str, seed: int) -> Artefact:
        """π₀, or a run's model of a seed."""
        return self.base if name == BASE else self.trainings.trained(name, self.suite.runs[name], seed)

    def measure(self, measure: str, name: str) -> Artefact:
        """One measure of one policy, all seeds in one artefact: they share everything but the policies."""
        spec, inputs, code = getattr(self, f"_{measure}")(name)
        spec = {"run": name, "seeds": self.suite.seeds, **spec}
        return Artefact(measure, name, spec, inputs, code)

    def _draws(self, name: str, seed: int, wanted: dict[str, Any], text: Artefact, key: str) -> Artefact:
        """Samples of a policy. Equal keys give all policies equal random numbers."""
        decoder = self.suite.policies[name]
        law = decoder.model_dump(exclude={"run"}, exclude_defaults=True)
        inputs = {"text": text, "policy": self.model(decoder.run, seed)}
        if decoder.contrast is not None:
            inputs["reference"] = self.base
        if not decoder.in_vllm:
            wanted = {name: value for name, value in wanted.items() if name != "engine"}
        spec = {**wanted, "law": law, "key": key}
        return Artefact("draws", f"{name}-{key.replace('/', '-')}", spec, inputs, engine_code(spec))

    def _held_out_draws(self, name: str) -> dict[str, Artefact]:
        assert self.suite.draws is not None  # the suite was checked
        wanted = {"split": "test", **self.suite.draws.model_dump()}
        return {f"draws/{seed}": self._draws(name, seed, wanted, self.text, f"held_out/{seed}") for seed in self.suite.seeds}

    def _judged(self, name: str) -> dict[str, Artefact]:
        """A policy's samples and π₀'s, with what is needed to say how good they are."""
        inputs = {"text": self.text, "base": self.base} | self._held_out_draws(name)
        inputs |= {f"base_{role}": draws for role, draws in self._held_out_draws(BASE).items()}
        for seed in self.suite.seeds:
            inputs[f"own/{seed}"] = self.trainings.reward_model(seed)
            inputs[f"judge/{seed}"] = self.trainings.reward_model(seed + APART)
        return inputs | ({} if self.world is None else {"target": self.world.target})

    def _gamma(self) -> float | None:
        return None if self.world is None else self.world.suite.preferences.gamma

    def _diversity(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        assert self.suite.diversity is not None  # the suite was checked
        embedder = self.suite.diversity.embedder
        inputs = self._judged(name)
        if embedder.hub or embedder.folder:
            inputs["embedder"] = Artefact("model", "embedder", embedder.model_dump(include={"hub", "revision", "folder"}))
        return {"gamma": self._gamma(), **embedder.model_dump(include={"dimensions", "max_tokens"})}, inputs, ()

    def _shift(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        shift = self.suite.shift
        assert shift is not None  # the suite was checked
        inputs = self._judged(name)
        for seed in self.suite.seeds:
            inputs[f"policy/{seed}"] = self.model(name, seed)
            inputs[f"preferences/{seed}"] = self.trainings.preferences(seed)
            for side in ("chosen", "rejected", "both"):
                mixture = shift.mixture.model_copy(update={"train_on": side})
                inputs[f"{side}/{seed}"] = self.trainings.trained(f"sft_{side}", mixture, seed)
        run = self.suite.runs.get(name)
        row = None if run is None else read_row(run.objective, run.parameters).model_dump()
        code = ("prefdist.exact.closed_forms",)
        return {"gamma": self._gamma(), "pairs": shift.pairs, "objective": row}, inputs, code

    def _repeats(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        assert self.suite.repeats is not None  # the suite was checked
        decoder = self.suite.policies[name]
        inputs = {"text": self.text, "base": self.base}
        inputs |= {f"policy/{seed}": self.model(decoder.run, seed) for seed in self.suite.seeds}
        law = decoder.model_dump(exclude={"run"}, exclude_defaults=True)
        return {**self.suite.repeats.model_dump(), "law": law}, inputs, ()

    def _choices(self, name: str, choices: Choices) -> Artefact:
        inputs = {"text": self.text} if choices.dataset is None else {"dataset": dataset(choices.dataset)}
        return Artefact("choices", name, _read_from(choices), inputs)

    def _calibration(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        calibration = self.suite.calibration
        assert calibration is not None  # the suite was checked
        inputs = {f"choices/{key}": self._choices(key, choices) for key, choices in calibration.choices.items()}
        inputs |= {f"policy/{seed}": self.model(name, seed) for seed in self.suite.seeds}
        return {"choices": list(calibration.choices)}, inputs, ()

    def _problems(self) -> Artefact:
        assert self.suite.best_of_n is not None  # the suite was checked
        problems = self.suite.best_of_n.problems
        if problems.source == "world":
            return self.text
        assert problems.dataset is not None  # the suite was checked
        return Artefact("problems", problems.source, _read_from(problems), {"dataset": dataset(problems.dataset)})

    def _best_of_n(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        settings = self.suite.best_of_n
        assert settings is not None  # the suite was checked
        problems = self._problems()
        wanted = {"split": "test", "prompts": settings.problems.problems}
        wanted |= settings.model_dump(include={"max_new_tokens", "engine"})
        scored, other = (wanted | {"samples": n} for n in (settings.samples, settings.split_samples))
        inputs = {"problems": problems}
        for seed in self.suite.seeds:
            inputs[f"draws/{seed}"] = self._draws(name, seed, scored, problems, f"problems/{seed}")
            inputs[f"judge/{seed}"] = self.trainings.reward_model(seed + APART)
        inputs["split"] = self._draws(BASE, self.suite.seeds[0], other, problems, "split")
        return {"source": settings.problems.source, **settings.model_dump(include={"easy", "medium"})}, inputs, ()

    def _tax(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        assert self.suite.tax is not None  # the suite was checked
        inputs = {"text": self.text} | {f"policy/{seed}": self.model(name, seed) for seed in self.suite.seeds}
        return self.suite.tax.model_dump(), inputs, ()

    def _benchmarks(self, name: str) -> tuple[dict[str, Any], dict[str, Artefact], tuple[str, ...]]:
        assert self.suite.benchmarks is not None  # the suite was checked
        return self.suite.benchmarks.model_dump(), {f"policy/{seed}": self.model(name, seed) for seed in self.suite.seeds}, ()

    def _measures(self) -> list[str]:
        return [measure for measure in MEASURES if getattr(self.suite, measure) is not None]

    def results(self) -> Artefact:
        suite = self.suite
        measured = {measure: suite.measured(measure) for measure in self._measures()}
        inputs = {"text": self.text}
        inputs |= {f"{measure}/{name}": self.measure(measure, name) for measure, names in measured.items() for name in names}
        for name in suite.runs:
            inputs |= {f"policy/{name}/{seed}": self.model(name, seed) for seed in suite.seeds}
        families = {name: self._family(decoder) for name, decoder in suite.policies.items()}
        spec: dict[str, Any] = {"suite": suite.suite, "seeds": suite.seeds, "measured": measured, "families": families}
        spec["sweeps"] = sweeps(suite)
        if suite.calibration is not None:
            spec["bins"] = suite.calibration.bins
        if suite.best_of_n is not None:
            spec |= suite.best_of_n.model_dump(include={"easy", "medium"})
        return Artefact("spl_results", suite.suite, spec, inputs)

    def ablation(self, name: str) -> Artefact:
        """One ablation's table and figure, from one measure of its policies alone."""
        ablation = self.suite.ablations[name]
        inputs = {
            f"{ablation.measure}/{policy}": self.measure(ablation.measure, policy) for policy in ablation.policies.values()
        }
        spec: dict[str, Any] = {"name": name, "title": ablation.title, "measure": ablation.measure, "runs": ablation.policies}
        if ablation.measure == "calibration":
            assert self.suite.calibration is not None  # the suite was checked
            spec["bins"] = self.suite.calibration.bins
        return Artefact("ablation", f"{self.suite.suite}-{name}", spec, inputs)

    def _family(self, decoder: Decoder) -> str:
        """What kind of policy it is, for the figures."""
        law = decoder.model_dump(exclude={"run"}, exclude_defaults=True)
        if law:
            return ", ".join(sorted(law)).replace("_", "-")
        if decoder.run == BASE:
            return "π₀"
        run = self.suite.runs[decoder.run]
        return str(read_row(run.objective, run.parameters).title)


def sweeps(suite: SplSuite) -> list[list[str]]:
    """Policies that differ in one number, which figures join by a line, by that number: each run at token temperatures, and
    runs of one objective that differ in one parameter. A run is in one line of runs, the longest it fits."""
    found = []
    for model in suite.models:
        heated = {name: decoder.temperature for name, decoder in suite.policies.items() if _only_heated(decoder, model)}
        found.append(sorted(heated, key=heated.__getitem__))
    groups: dict[tuple[str, str], dict[str, float]] = {}
    for name, run in suite.runs.items():
        for changed, value in run.parameters.items():
            kept = {key: other for key, other in run.parameters.items() if key != changed}
            same = run.model_copy(update={"parameters": kept}).model_dump_json()
            groups.setdefault((changed, same), {})[name] = value
    left = set(suite.runs)
    for values in sorted(groups.values(), key=len, reverse=True):
        line = [name for name in sorted(values, key=values.__getitem__) if name in left]
        if len(line) > 1:
            found.append(line)
            left -= set(line)
    return [line for line in found if len(line) > 1]


def _only_heated(decoder: Decoder, run: str) -> bool:
    return decoder == Decoder(run=run, temperature=decoder.temperature)


def _read_from(asked: Choices | Problems) -> dict[str, Any]:
    """What a reader of a dataset or text is told; where the dataset lies is said by its input."""
    path = {} if asked.dataset is None else {"path": asked.dataset.path}
    return asked.model_dump(exclude={"dataset", "problems"}) | path
