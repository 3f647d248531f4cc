"""The artefacts of a suite of preference distillation, each made once: what runs share, they share by digest."""

from pathlib import Path
from typing import Any

from prefdist.config.models import StoredModel, TrainedModel
from prefdist.config.pad import PadRun, PadSuite, Questions, Reward, Samples
from prefdist.objectives.registry import FAMILIES
from prefdist.plan.answers import JUDGED, Answers
from prefdist.plan.graph import Artefact, engine_code
from prefdist.plan.rows import read_row
from prefdist.plan.testbed import load_world
from prefdist.plan.trainings import taught

LISTS = "prefdist.training.lists"
"""Where the examples of students are made."""


class Distillation:
    """From models, samples and scores to students, their evaluation and the tables of the ablations."""

    def __init__(self, suite: PadSuite, root: Path) -> None:
        self.suite = suite
        self.world = None if suite.world is None else load_world(suite.suite, suite.world, root)
        if self.world is not None:
            self.text = self.world.text
        else:
            assert suite.prompts is not None
            self.text = Artefact("prompts", "prompts", suite.prompts.model_dump())

    def model(self, name: str) -> Artefact:
        model = self.suite.models[name]
        if isinstance(model, StoredModel):
            return Artefact("model", name, model.model_dump(exclude={"dtype"}))
        assert self.world is not None  # the suite was checked
        text = Artefact("text", self.world.text.name, {**self.world.text.spec, "vocabulary": model.vocabulary})
        row = read_row(model.objective)
        spec = {
            "data": {"kind": "references", "noise": 0.0, "fraction": model.fraction},
            "objective": row.model_dump(),
            "optimisation": model.optimisation.model_dump(mode="json"),
            "architecture": model.architecture,
            "init": "scratch",
            "temperature": model.temperature,
            "seed": 0,
        }
        first = f"{name}-phase0" if model.questions else name
        trained = Artefact("train", first, spec, {"text": text}, (FAMILIES[row.family],), model.optimisation.how())
        return taught(trained, model.questions, name, model.fraction)[-1]

    def _dtype(self, name: str) -> str:
        model = self.suite.models[name]
        return model.dtype if isinstance(model, StoredModel) else "float32"

    def responses(self, name: str, policy: Artefact, samples: Samples, split: str, prompts: int, key: str) -> Artefact:
        spec = {**samples.model_dump(), "split": split, "prompts": prompts, "key": key}
        return Artefact("responses", name, spec, {"text": self.text, "policy": policy}, engine_code(spec))

    def _student_responses(self, run: PadRun, seed: int) -> Artefact:
        samples = self.suite.samples[run.samples]
        name = f"{run.student}-{run.samples}-seed{seed}"
        key = f"responses/{seed}"
        return self.responses(name, self.model(run.student), samples, "train", self.suite.train_prompts, key)

    def scores(self, responses: Artefact, teacher: str) -> Artefact:
        """Log-likelihoods under a teacher, or under π* (teacher: oracle)."""
        if teacher == "oracle":
            assert self.world is not None  # the suite was checked
            model, dtype = self.world.target, "float32"
        else:
            model, dtype = self.model(teacher), self._dtype(teacher)
        inputs = {"text": self.text, "responses": responses, "teacher": model}
        return Artefact("scores", f"{teacher}-{responses.name}", {"dtype": dtype}, inputs)

    def questions(self, responses: Artefact, teacher: str, asked: Questions, n: int) -> Artefact:
        spec = {**asked.model_dump(), "n": n, "dtype": self._dtype(teacher)}
        inputs = {"text": self.text, "responses": responses, "teacher": self.model(teacher)}
        return Artefact("questions", f"{teacher}-{asked.kind}{n}-{responses.name}", spec, inputs, engine_code(spec))

    def _reward_inputs(self, reward: Reward, responses: Artefact, teacher: str, n: int) -> dict[str, Artefact]:
        """What a reward is computed from: only what its alpha needs."""
        inputs = {}
        if reward.alpha < 1:
            inputs["scores"] = self.scores(responses, "oracle" if reward.scorer == "oracle" else teacher)
        if reward.alpha > 0:
            assert reward.questions is not None  # the suite was checked
            inputs["questions"] = self.questions(responses, teacher, self.suite.questions[reward.questions], n)
        return inputs

    def policies(self, name: str, seed: int) -> list[Artefact]:
        """The run's students, one after another: one, unless its lists are drawn from the student that the last one trained."""
        run = self.suite.runs[name]
        chain = run.decomposition is not None and run.decomposition.resample
        if not chain:
            return [self._trained(f"{name}-seed{seed}", run, seed, self.model(run.student), self._student_responses(run, seed))]
        assert run.decomposition is not None
        size, parts = run.decomposition.size, run.n // run.decomposition.size
        steps = run.optimisation.steps // parts
        shorter = run.optimisation.model_copy(update={"steps": steps, "warmup_steps": run.optimisation.warmup_steps // parts})
        part = run.model_copy(update={"n": size, "decomposition": None, "optimisation": shorter})
        samples = self.suite.samples[run.samples]
        fewer = samples.model_copy(update={"n": size, "draws": max(size, samples.draws * size // samples.n)})
        students = [
            self._trained(f"{name}-part0-seed{seed}", part, seed, self.model(run.student), self._student_responses(run, seed))
        ]
        for i in range(1, parts):
            key, who = f"responses/{seed}/part{i}", f"{name}-part{i}-seed{seed}"
            drawn = self.responses(who, students[-1], fewer, "train", self.suite.train_prompts, key)
            students.append(self._trained(who, part, seed, students[-1], drawn))
        return students

    def _trained(self, name: str, run: PadRun, seed: int, init: Artefact, responses: Artefact) -> Artefact:
        row = read_row(run.objective, run.parameters)
        inputs = {"text": self.text, "init": init, "responses": responses}
        data: dict[str, Any] = {"examples": LISTS, "kind": run.train_on, "n": run.n}
        if run.train_on in ("lists", "best_worst", "random_pair"):
            inputs |= self._reward_inputs(run.reward, responses, run.teacher, run.n)
            data["reward"] = _of_rewards(run.reward)
        if run.train_on == "teacher_responses":
            samples = self.suite.samples[run.samples]
            inputs["teacher_responses"] = self.responses(
                f"{run.teacher}-{run.samples}-seed{seed}",
                self.model(run.teacher),
                samples,
                "train",
                self.suite.train_prompts,
                f"teacher/{seed}",
            )
        if row.family == "token_distillation":
            inputs["teacher"] = self.model(run.teacher)
        if run.decomposition is not None:
            data["decomposition"] = run.decomposition.model_dump(exclude={"resample"})
        spec = {
            "data": data,
            "objective": row.model_dump(),
            "optimisation": run.optimisation.model_dump(mode="json"),
            "seed": seed,
        }
        return Artefact("train", name, spec, inputs, (FAMILIES[row.family], LISTS), run.optimisation.how())

    def _candidates(self, student: str) -> Artefact:
        """Lists of the untrained student on held-out prompts, which students and teacher rank."""
        evaluation = self.suite.evaluation
        samples = self.suite.samples[evaluation.candidates]
        return self.responses(f"{student}-candidates", self.model(student), samples, "test", evaluation.prompts, "candidates")

    def _held_out(self, name: str) -> Artefact:
        """Samples of an untrained model on held-out prompts, with their log π* where it is known."""
        spec = self._evaluation_spec("prompts", "samples", "max_new_tokens")
        return Artefact("held_out", name, spec, {"text": self.text, "policy": self.model(name)} | self._oracle())

    def _evaluation_spec(self, *keys: str) -> dict[str, Any]:
        return self.suite.evaluation.model_dump(include=set(keys))

    def _oracle(self) -> dict[str, Artefact]:
        return {} if self.world is None else {"target": self.world.target}

    def _ranked(self, student: str, teacher: str) -> dict[str, Artefact]:
        """The candidates with all that is known of them."""
        candidates, reward = self._candidates(student), self.suite.evaluation.reward
        n = self.suite.samples[self.suite.evaluation.candidates].n
        inputs = {"text": self.text, "responses": candidates} | self._reward_inputs(reward, candidates, teacher, n)
        return inputs if self.world is None else inputs | {"oracle": self.scores(candidates, "oracle")}

    def _student(self, name: str) -> Artefact:
        """Evaluation of a run: all seeds in one artefact, which share everything but the policies."""
        suite, run = self.suite, self.suite.runs[name]
        spec = suite.evaluation.model_dump(mode="json", exclude={"candidates", "reward"})
        spec |= {"run": name, "seeds": suite.seeds, "n": suite.samples[suite.evaluation.candidates].n}
        spec |= {"reward": _of_rewards(suite.evaluation.reward), "gamma": self._gamma()}
        inputs = self._ranked(run.student, run.teacher) | self._oracle()
        inputs |= {"start": self._held_out(run.student), "held_out_teacher": self._held_out(run.teacher)}
        inputs |= {f"policy/{seed}": self.policies(name, seed)[-1] for seed in suite.seeds}
        return Artefact("student", name, spec, inputs)

    def _gamma(self) -> float | None:
        return None if self.world is None else self.world.suite.preferences.gamma

    def _teacher(self, student: str, teacher: str) -> Artefact:
        """How far the teacher's preferences can be trusted, before and after its calibration."""
        suite, n = self.suite, self.suite.samples[self.suite.evaluation.candidates].n
        inputs = self._ranked(student, teacher)
        inputs |= {
            f"questions/{name}": self.questions(inputs["responses"], teacher, q, n) for name, q in suite.questions.items()
        }
        inputs["scores"] = self.scores(inputs["responses"], teacher)
        spec = {"n": n, "reward": _of_rewards(suite.evaluation.reward), "gamma": self._gamma()}
        spec |= self._evaluation_spec("beta_teacher")
        model = suite.models[teacher]
        if isinstance(model, TrainedModel) and model.questions:
            inputs["trained"] = self.model(teacher)
            spec["template"] = model.questions[-1].template
        return Artefact("teacher", f"{teacher}-{student}", spec, inputs)

    def _judgements(self) -> dict[str, Artefact]:
        """What judges say of students and of what they start from."""
        judged = self.suite.judged
        if judged is None:
            return {}
        budget = {"max_prompt_tokens": judged.prompts.max_tokens, "too_long": judged.prompts.too_long}
        answers, found = Answers(judged, budget), {}
        for name, of_set in judged.sets.items():
            assert of_set.judging is not None  # the suite was checked
            for policy in of_set.judging.runs or self.suite.policies:
                start = self.suite.policies[policy]
                base = self.model(start)
                for seed in self.suite.seeds:
                    model = base if policy == start else self.policies(policy, seed)[-1]
                    drawn = answers.draws(policy, model, base, name, judged.decoding, seed)
                    baseline = answers.draws(start, base, base, name, judged.decoding, seed)
                    found[f"{JUDGED}/{policy}/{name}/{seed}"] = answers.judgement(policy, drawn, name, seed, baseline)
        return found

    def results(self) -> Artefact:
        suite = self.suite
        pairs = sorted({(run.student, run.teacher) for run in suite.runs.values()})
        inputs = {"text": self.text}
        for student, teacher in pairs:
            inputs[f"teacher/{teacher}/{student}"] = self._teacher(student, teacher)
        for name in suite.runs:
            inputs[f"student/{name}"] = self._student(name)
            for seed in suite.seeds:
                for i, policy in enumerate(self.policies(name, seed)):
                    inputs[f"policy/{name}/{seed}/{i}"] = policy
                    inputs |= {f"{role}/{name}/{seed}/{i}": policy.inputs[role] for role in _COSTS if role in policy.inputs}
        spec = {"suite": suite.suite, "seeds": suite.seeds, "runs": list(suite.runs), "pairs": pairs}
        if suite.judged is not None:
            inputs |= self._judgements()
            spec["judged"] = list(suite.judged.sets)
        return Artefact("pad_results", suite.suite, spec, inputs)

    def ablation(self, name: str) -> Artefact:
        """One ablation's table and figure, from the evaluations of its runs alone."""
        ablation = self.suite.ablations[name]
        inputs = {f"student/{run}": self._student(run) for run in ablation.runs.values()}
        return Artefact("ablation", f"{self.suite.suite}-{name}", {"name": name, **ablation.model_dump()}, inputs)


_COSTS = ("responses", "scores", "questions", "teacher_responses")
"""Inputs of a training whose making is part of its cost."""


def _of_rewards(reward: Reward) -> dict[str, Any]:
    """What scoring.rewards takes; where the scores come from is said by the inputs."""
    return reward.model_dump(include={"alpha", "normalisation", "orders", "renormalise"})
