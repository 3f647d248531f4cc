"""What a suite of ADL at the paper's scale may say: base models, demonstrations, pairs, reward model, runs, what is measured.

Every base is fine-tuned on demonstrations (or is an instruct model already) and is then π₀ of all runs. Left out: which
artefacts follow from it (plan/alignment.py), and suites with a known target (testbed.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prefdist.config.common import VERSION, Optimisation, Run, Strict, check_objective
from prefdist.config.models import StoredModel
from prefdist.config.sets import QUESTIONS_ONLY, Answered, AnsweredSets, Decoding, Licensed, Name, Prompts, Source
from prefdist.config.spl import BASE

BaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]*$")]
"""Without a dash, which stands between it and the name of a run in that of a policy."""
Split = Literal["train", "test"]


class LicensedModel(StoredModel, Licensed):
    """A model of the hub, or a folder."""


class BaseModel(LicensedModel):
    """A model that runs start from, by itself or after its fine-tuning."""

    template: str = Field("own", description="own: the chat template that it brings; otherwise one, as Jinja")


class Demonstrations(Answered):
    """What a base is fine-tuned on; its prompts may be those of the runs on the policy's samples."""

    splits: dict[Split, str] = Field(description="train and test -> the dataset's names for them")
    objective: str = "sft"
    optimisation: Optimisation


class LabelledPairs(Source, Licensed):
    """Labelled pairs of responses, all of a prompt's."""

    format: Literal["messages", "tldr_oai", "tldr_trl"] = Field(description="which columns: see data/columns.py")
    splits: dict[Split, str] = Field(description="train and test -> the dataset's names for them")
    on_defect: Literal["drop", "refuse"] = Field("drop", description="of rows that are no comparison; dropped ones are listed")
    train_pairs: int = Field(gt=0, description="at most so many")
    test_pairs: int = Field(gt=0, description="likewise")
    max_response_tokens: int = Field(gt=0, description="longer responses are cut off, and have no EOS")


class AdlRun(Run):
    """A method, on one base or on all of them."""

    bases: list[str] | None = Field(None, description="default: all")
    decoding: Decoding = Decoding()


class AdlEvaluation(AnsweredSets):
    temperature: float = Field(1.0, gt=0, description="common to all methods: their KL compares at equal temperature only")


class AdlAblation(Strict):
    """Runs on one base that differ in one thing."""

    title: str
    base: str
    runs: dict[str, str] = Field(description="value of what differs -> run", min_length=2)


class AdlSuite(Strict):
    """ADL's methods and their baselines on stored models and datasets of the hub."""

    kind: Literal["adl"]
    suite: str
    version: str = Field(pattern=VERSION)
    seeds: list[int] = Field(min_length=1)
    bases: dict[BaseName, BaseModel] = Field(min_length=1)
    prompts: Prompts = Prompts()
    demonstrations: Demonstrations | None = Field(None, description="without: bases are π₀ as they are")
    pairs: LabelledPairs
    prompts_from: Literal["demonstrations", "pairs"] = Field(description="whose prompts runs on the policy's samples answer")
    reward_model: Run | None = Field(None, description="how it is trained on the pairs, from π₀")
    external_reward_model: LicensedModel | None = Field(
        None, description="instead: a sequence classifier with one label that reads the bases' token ids"
    )
    runs: dict[Name, AdlRun]
    baselines: dict[str, str] = Field(default_factory=dict, description="run -> the run that it is compared with")
    evaluation: AdlEvaluation
    ablations: dict[str, AdlAblation] = Field(default_factory=dict)

    def runs_on(self, base: str) -> dict[str, AdlRun]:
        """The runs of a base."""
        return {name: run for name, run in self.runs.items() if run.bases is None or base in run.bases}

    @property
    def policies(self) -> dict[str, tuple[str, str]]:
        """Name -> base and run; π₀, under the name base, is first of each."""
        return {f"{base}-{run}": (base, run) for base in self.bases for run in (BASE, *self.runs_on(base))}

    def decoding(self, run: str) -> Decoding:
        """π₀ is decoded as it is."""
        return Decoding() if run == BASE else self.runs[run].decoding

    @model_validator(mode="after")
    def _consistent(self) -> "AdlSuite":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: each seed once, found {self.seeds}")
        if (self.reward_model is None) == (self.external_reward_model is None):
            raise ValueError("give reward_model (how it is trained) or external_reward_model (a stored one), one of them")
        if self.prompts_from == "demonstrations" and self.demonstrations is None:
            raise ValueError("prompts_from: there are no demonstrations; set it to pairs")
        for where, splits in self._splits().items():
            if set(splits) != {"train", "test"}:
                raise ValueError(f"{where}.splits: name both train and test, found {sorted(splits)}")
        if BASE in self.runs:
            raise ValueError(f"runs: {BASE} is the name of π₀; call the run otherwise")
        for name, run in self.runs.items():
            self._run(f"runs.{name}", run)
            for base in run.bases or []:
                self._known(f"runs.{name}.bases", base, self.bases)
        for name in (*self.baselines, *self.baselines.values()):
            self._known("baselines", name, self.runs)
        if self.reward_model is not None:
            self._reward_model(self.reward_model)
        if self.demonstrations is not None:
            self._demonstrations(self.demonstrations)
        for name, of_set in self.evaluation.sets.items():
            for run_name in (of_set.judging.runs or []) if of_set.judging else []:
                self._known(f"evaluation.sets.{name}.judging.runs", run_name, {BASE: None, **self.runs})
        for name, ablation in self.ablations.items():
            self._known(f"ablations.{name}.base", ablation.base, self.bases)
            for run_name in ablation.runs.values():
                self._known(f"ablations.{name}.runs", run_name, self.runs_on(ablation.base))
        return self

    def _splits(self) -> dict[str, dict[Split, str]]:
        return {"pairs": self.pairs.splits} | ({"demonstrations": self.demonstrations.splits} if self.demonstrations else {})

    def _known(self, where: str, name: str, among: dict[str, Any]) -> None:
        if name not in among:
            raise ValueError(f"{where}: {name!r} is not one of {', '.join(sorted(among)) or 'none'}")

    def _run(self, where: str, run: Run) -> None:
        check_objective(where, run)
        if run.optimisation.probe_every:
            raise ValueError(f"{where}.optimisation.probe_every: learning curves belong to testbed suites; set it to 0")
        if run.reward_model == "apart":
            raise ValueError(f"{where}.reward_model: an adl suite has one reward model; leave it out")

    def _reward_model(self, run: Run) -> None:
        from prefdist.objectives.registry import read_row

        self._run("reward_model", run)
        score = getattr(read_row(run.objective, run.parameters), "score", None)
        if score is None or score.of != "reward":
            raise ValueError(f"reward_model.objective: {run.objective} trains no reward model; take reward_model")

    def _demonstrations(self, demonstrations: Demonstrations) -> None:
        from prefdist.objectives.registry import read_row

        try:
            row = read_row(demonstrations.objective)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"demonstrations.objective: {error}") from error
        if row.family != "likelihood":
            raise ValueError(f"demonstrations.objective: {demonstrations.objective} learns from more than answers; take sft")
        if demonstrations.format in QUESTIONS_ONLY:
            raise ValueError(f"demonstrations.format: {demonstrations.format} has no answers to learn from")
