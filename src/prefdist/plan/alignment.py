"""The artefacts of a suite of ADL at the paper's scale, each made once: for every base its data, π₀, reward models and runs."""

from typing import Any

from prefdist.config.adl import AdlSuite
from prefdist.config.models import StoredModel
from prefdist.config.sets import Decoding
from prefdist.config.spl import BASE
from prefdist.objectives.registry import FAMILIES
from prefdist.plan.answers import JUDGED, Answers, dataset
from prefdist.plan.graph import Artefact
from prefdist.plan.rows import read_row
from prefdist.plan.trainings import Trainings

MEASURE = "alignment"


class Alignment:
    """From stored models and datasets to policies, their answers, and measures of them."""

    def __init__(self, suite: AdlSuite) -> None:
        self.suite = suite
        self.models = {
            name: Artefact("model", name, _stored(base) | {"template": base.template}) for name, base in suite.bases.items()
        }
        external = suite.external_reward_model
        self._external = None if external is None else Artefact("model", "reward_model", _stored(external))
        self.answers = Answers(suite.evaluation, self._budget())
        self.trainings = {base: self._trainings(base) for base in suite.bases}

    def _trainings(self, base: str) -> Trainings:
        suite, pairs = self.suite, self._pairs(base)
        demonstrations = self._demonstrations(base)
        reward_model = self._external or suite.reward_model
        assert reward_model is not None  # the suite was checked
        return Trainings(
            pairs,
            self.models[base] if demonstrations is None else self._fine_tuned(base, demonstrations),
            lambda seed: pairs,
            reward_model,
            prompts=demonstrations if suite.prompts_from == "demonstrations" else None,
            prefix=f"{base}-",
        )

    def _budget(self) -> dict[str, Any]:
        return {"max_prompt_tokens": self.suite.prompts.max_tokens, "too_long": self.suite.prompts.too_long}

    def _pairs(self, base: str) -> Artefact:
        """All of them are for policies and reward model alike."""
        pairs = self.suite.pairs
        spec = pairs.model_dump(include={"format", "path", "splits", "on_defect", "train_pairs", "max_response_tokens"})
        whole = {"part": "policies", "judge_share": 0.0, "max_prompt_chars": None, "repeated_prompts": "all"}
        spec |= {**whole, "test_prompts": pairs.test_pairs, **self._budget()}
        return Artefact("pairs", f"{base}-pairs", spec, {"base": self.models[base], "dataset": dataset(pairs)})

    def _demonstrations(self, base: str) -> Artefact | None:
        found = self.suite.demonstrations
        if found is None:
            return None
        spec = found.model_dump(include={"format", "path", "splits", "on_defect"}) | self._budget()
        return Artefact("prompts", f"{base}-demonstrations", spec, {"base": self.models[base], "dataset": dataset(found)})

    def _fine_tuned(self, base: str, demonstrations: Artefact) -> Artefact:
        """π₀; all of its weights are trained."""
        settings = self.suite.demonstrations
        assert settings is not None  # there are some
        row = read_row(settings.objective)
        spec = {
            "data": {"kind": "references", "noise": 0.0, "fraction": 1.0},
            "objective": row.model_dump(),
            "optimisation": settings.optimisation.model_dump(mode="json"),
            "seed": 0,
        }
        inputs = {"text": demonstrations, "init": self.models[base]}
        code = (FAMILIES[row.family],)
        return Artefact("train", f"{base}-{BASE}", spec, inputs, code, settings.optimisation.how())

    def model(self, policy: str, seed: int) -> Artefact:
        """π₀ of a base, or a run's model of a seed."""
        base, run = self.suite.policies[policy]
        trainings = self.trainings[base]
        return trainings.base if run == BASE else trainings.trained(run, self.suite.runs[run], seed)

    def draws(self, policy: str, name: str, law: Decoding, seed: int) -> Artefact:
        """Answers to a set under a law."""
        base, _ = self.suite.policies[policy]
        return self.answers.draws(policy, self.model(policy, seed), self.models[base], name, law, seed)

    def laws(self, policy: str) -> dict[str, Decoding]:
        """That which all policies have in common, and the policy's own."""
        _, run = self.suite.policies[policy]
        return {"common": Decoding(temperature=self.suite.evaluation.temperature), "own": self.suite.decoding(run)}

    def measure(self, policy: str) -> Artefact:
        """One policy, all seeds in one artefact: they share π₀ and the process."""
        suite, (base, _), laws = self.suite, self.suite.policies[policy], self.laws(policy)
        inputs = {"base": self.trainings[base].base}
        for seed in suite.seeds:
            inputs[f"reward_model/{seed}"] = self.trainings[base].reward_model(seed)
        for name in suite.evaluation.sets:
            inputs[f"prompts/{name}"] = self.answers.prompts(self.models[base], name)
            for label, law in laws.items():
                inputs |= {f"draws/{name}/{label}/{seed}": self.draws(policy, name, law, seed) for seed in suite.seeds}
        spec = {
            "run": policy,
            "seeds": suite.seeds,
            "sets": list(suite.evaluation.sets),
            "laws": {label: law.model_dump() for label, law in laws.items()},
        }
        return Artefact(MEASURE, policy, spec, inputs)

    def judgements(self, policy: str) -> dict[str, Artefact]:
        """What judges say of a policy's own answers, by set and seed."""
        base, run = self.suite.policies[policy]
        found = {}
        for name, of_set in self.suite.evaluation.sets.items():
            judging = of_set.judging
            if judging is None or run not in (judging.runs or [BASE, *self.suite.runs]):
                continue
            for seed in self.suite.seeds:
                answers = self.draws(policy, name, self.suite.decoding(run), seed)
                start = self.draws(f"{base}-{BASE}", name, self.suite.decoding(BASE), seed)
                reward_model = self.trainings[base].reward_model(seed)
                found[f"{name}/{seed}"] = self.answers.judgement(policy, answers, name, seed, start, reward_model)
        return found

    def results(self) -> Artefact:
        suite = self.suite
        inputs = {"text": self.trainings[next(iter(suite.bases))].text}
        inputs |= {f"{MEASURE}/{policy}": self.measure(policy) for policy in suite.policies}
        for policy in suite.policies:
            inputs |= {f"{JUDGED}/{policy}/{which}": artefact for which, artefact in self.judgements(policy).items()}
            if suite.policies[policy][1] != BASE:
                inputs |= {f"policy/{policy}/{seed}": self.model(policy, seed) for seed in suite.seeds}
        spec = {
            "suite": suite.suite,
            "seeds": suite.seeds,
            "measured": {MEASURE: list(suite.policies)},
            "families": {policy: self._family(run) for policy, (_, run) in suite.policies.items()},
            "bases": {base: [p for p, (of, _) in suite.policies.items() if of == base] for base in suite.bases},
            "sets": list(suite.evaluation.sets),
            "compared": self._compared(),
        }
        return Artefact("adl_results", suite.suite, spec, inputs)

    def ablation(self, name: str) -> Artefact:
        """One ablation's table and figure, from the measures of its policies alone."""
        ablation = self.suite.ablations[name]
        runs = {value: f"{ablation.base}-{run}" for value, run in ablation.runs.items()}
        inputs = {f"{MEASURE}/{policy}": self.measure(policy) for policy in runs.values()}
        spec = {"name": name, "title": ablation.title, "measure": MEASURE, "runs": runs}
        return Artefact("ablation", f"{self.suite.suite}-{name}", spec, inputs)

    def _compared(self) -> dict[str, str]:
        """Policy -> the one on the same base that it is compared with, where the base has both."""
        named = {of: policy for policy, of in self.suite.policies.items()}
        pairs = [(base, *pair) for base in self.suite.bases for pair in self.suite.baselines.items()]
        return {named[b, run]: named[b, other] for b, run, other in pairs if (b, run) in named and (b, other) in named}

    def _family(self, run: str) -> str:
        """What kind of policy it is, for the figure."""
        if run == BASE:
            return "π₀"
        return str(read_row(self.suite.runs[run].objective, self.suite.runs[run].parameters).title)


def _stored(model: StoredModel) -> dict[str, Any]:
    """Licences are for people: no digest knows them."""
    return model.model_dump(include={"hub", "revision", "folder"})
