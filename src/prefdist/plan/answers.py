"""Artefacts of policies' answers to sets of prompts, and of judges' verdicts on them, as suites of several kinds have them."""

from pathlib import Path
from typing import Any

from prefdist.config.sets import AnsweredSets, Decoding, SetJudging, Source
from prefdist.plan.graph import Artefact, engine_code

JUDGED = "judged"
"""Role of judgements among the inputs of results: judged/<policy>/<set>/<seed>."""


class Answers:
    """Each policy's answers to each set of a section. `budget`: what the stage `prompts` is told of long prompts."""

    def __init__(self, settings: AnsweredSets, budget: dict[str, Any]) -> None:
        self.settings, self._budget = settings, budget

    def prompts(self, base: Artefact, name: str) -> Artefact:
        """A set, within the budget of a model's tokens."""
        of_set = self.settings.sets[name]
        told = of_set.model_dump(include={"format", "path", "on_defect", "answers"})
        spec = told | {"splits": {"test": of_set.split}} | self._budget
        return Artefact("prompts", f"{base.name}-{name}", spec, {"base": base, "dataset": dataset(of_set)})

    def draws(self, policy: str, model: Artefact, base: Artefact, name: str, law: Decoding, seed: int) -> Artefact:
        """Answers to a set under a law. Equal keys give all policies equal random numbers."""
        wanted = {"split": "test", "prompts": self.settings.sets[name].prompts, "samples": self.settings.samples}
        wanted |= self.settings.model_dump(include={"max_new_tokens", "engine"} if law.in_vllm else {"max_new_tokens"})
        spec = wanted | {"law": law.model_dump(exclude_defaults=True), "key": f"{name}/{seed}"}
        inputs = {"text": self.prompts(base, name), "policy": model}
        return Artefact("draws", f"{policy}-{name}-{law_name(law)}-{seed}", spec, inputs, engine_code(spec))

    def judgement(
        self, policy: str, answers: Artefact, name: str, seed: int, baseline: Artefact, reward_model: Artefact | None = None
    ) -> Artefact:
        """What the set's judge says of a policy's answers. `baseline`: those of π₀, where the judge compares with them."""
        of_set = self.settings.sets[name]
        judging = of_set.judging
        assert judging is not None  # the caller asks for judged sets
        inputs = {"prompts": answers.inputs["text"], "answers": answers}
        if judging.protocol == "mt_bench":
            inputs["second_answers"] = _second_turns(answers, judging)
        elif judging.against == "base":
            inputs["baseline"] = baseline
        if judging.difficulties:
            inputs["alpaca_eval"] = dataset(of_set)
        stage = "judge"
        if judging.judge.kind == "reward_model":
            assert reward_model is not None  # the suite was checked
            stage, inputs["reward_model"] = "judge_local", reward_model
        spec = {"run": policy, "seed": seed, **judging.model_dump(exclude={"against", "runs", "difficulties"})}
        return Artefact(stage, f"{policy}-{name}-{seed}", spec, inputs)


def _second_turns(first: Artefact, judging: SetJudging) -> Artefact:
    """Answers to second questions, each behind one of the first answers."""
    spec = first.spec | {"key": f"{first.spec['key']}/second", "samples": judging.samples or first.spec["samples"]}
    return Artefact("draws", f"{first.name}-second", spec, first.inputs | {"first": first}, engine_code(spec))


def law_name(law: Decoding) -> str:
    """As it stands in names of artefacts: t0.7, or t0.8_p0.9."""
    parts = [f"t{law.temperature:g}"]
    parts += [f"k{law.top_k}"] if law.top_k else []
    parts += [f"p{law.top_p:g}"] if law.top_p < 1 else []
    return "_".join(parts)


def dataset(source: Source) -> Artefact:
    """The files of a dataset, which all that read it share."""
    return Artefact("dataset", Path(source.dataset).name, source.model_dump(include={"dataset", "revision", "files"}))
