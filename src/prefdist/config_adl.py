"""What a suite of ADL at the paper's scale may say: base models, demonstrations, pairs, reward model, runs, what is measured.

Every base is fine-tuned on demonstrations (or is an instruct model already) and is then π₀ of all runs. Left out: which
artefacts follow from it (plan/alignment.py), and suites with a known target (config.py).
"""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prefdist.config import TRANSFORMERS, VERSION, Engine, Optimisation, Run, Strict, check_objective, vllm_lacks
from prefdist.config_judge import Judging, KnownJudge
from prefdist.config_pad import StoredModel
from prefdist.config_spl import BASE, Source

BaseName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._]*$")]
"""Without a dash, which stands between it and the name of a run in that of a policy."""
Name = Annotated[str, Field(pattern=VERSION)]
Split = Literal["train", "test"]
DataFile = Annotated[str, Field(pattern=r"^[^/.*][^*]*\.(parquet|json|jsonl|jsonl\.gz|csv)$")]
"""Path of a file of data in a dataset; no script."""


class Licensed(Strict):
    """Under which terms something of the hub is to be had; `prefdist doctor <suite>` shows it."""

    licence: str = Field("not stated", description="its licence")
    gated: bool = Field(False, description="whether the hub gives it only to accounts that have accepted the licence")


class LicensedModel(StoredModel, Licensed):
    """A model of the hub, or a folder."""


class BaseModel(LicensedModel):
    """A model that runs start from, by itself or after its fine-tuning."""

    template: str = Field("own", description="own: the chat template that it brings; otherwise one, as Jinja")


class Prompts(Strict):
    """How long a prompt may be, and what becomes of longer ones; defects.json counts them."""

    max_tokens: int | None = Field(
        default=None, gt=0, description="with BOS and the template's own tokens; default: any length"
    )
    too_long: Literal["refuse", "drop", "truncate_left"] = Field(
        default="refuse", description="truncate_left keeps the end of the text"
    )


class Answered(Source, Licensed):
    """Prompts and, where the dataset has them, an answer to each."""

    format: Literal["messages", "tldr_oai", "tldr_trl", "alpaca_eval", "mt_bench", "arena_hard"] = Field(
        description="which columns: see data/columns.py"
    )
    on_defect: Literal["drop", "refuse"] = Field(
        "drop", description="of rows without prompt or answer; dropped ones are listed"
    )


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


class Decoding(Strict):
    """The law by which a run's answers are drawn, beside the common one."""

    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0, description="0: all tokens")
    top_p: float = Field(default=1.0, gt=0, le=1)

    @property
    def in_vllm(self) -> bool:
        """Whether vLLM has this law."""
        return vllm_lacks(self.temperature, self.top_p, 0.0) is None


class AdlRun(Run):
    """A method, on one base or on all of them."""

    bases: list[str] | None = Field(None, description="default: all")
    decoding: Decoding = Decoding()


class SetJudging(Judging):
    """Who judges each run's answers, drawn by its own law. Protocol mt_bench rates two turns and compares with nothing."""

    against: Literal["reference", "base"] = Field("reference", description="the dataset's own answers, or those of π₀")
    runs: list[str] | None = Field(None, description="whose answers, on every base; default: π₀'s and all runs'")
    difficulties: bool = Field(
        False,
        description="of protocol alpaca_eval: whether the dataset has alpaca_eval.json and df_gamed.csv, by which AlpacaEval "
        "controls length",
    )

    @model_validator(mode="after")
    def _available(self) -> "SetJudging":
        if isinstance(self.judge, KnownJudge):
            raise ValueError("judge.kind: known is the judge of a testbed; take endpoint or reward_model")
        if self.difficulties and self.protocol != "alpaca_eval":
            raise ValueError("difficulties: AlpacaEval's are of protocol alpaca_eval; leave it out")
        return self


class EvaluationSet(Answered):
    """Prompts that all policies answer."""

    split: str = Field("test", description="the dataset's name")
    prompts: int = Field(gt=0)
    answers: str | None = Field(None, description="of arena_hard: the dataset's file of a model's answers to compare with")
    files: list[DataFile] | None = Field(None, description="of the dataset, these alone are fetched; default: all of rows")
    judging: SetJudging | None = Field(None, description="who says which answers are better; default: nobody")

    @model_validator(mode="after")
    def _comparable(self) -> "EvaluationSet":
        wanted = {"alpaca_eval.json", "df_gamed.csv"}
        if self.judging is not None and self.judging.difficulties and not wanted <= set(self.files or ()):
            raise ValueError(f"judging.difficulties: name {' and '.join(sorted(wanted))} of the dataset in files")
        if self.answers is not None and self.format != "arena_hard":
            raise ValueError(f"answers: rows of {self.format} have their own, or none; leave it out")
        if self.judging is None:
            return self
        if self.judging.protocol == "mt_bench" and self.format != "mt_bench":
            raise ValueError(f"judging.protocol: mt_bench rates two turns, and {self.format} has one; take another protocol")
        has_answers = self.format not in _QUESTIONS_ONLY or self.answers is not None
        if self.judging.against == "reference" and self.judging.protocol != "mt_bench" and not has_answers:
            raise ValueError(f"judging.against: {self.format} has no answers to compare with; set it to base")
        return self


_QUESTIONS_ONLY = ("mt_bench", "arena_hard")
"""Formats whose rows have no answers."""


class AdlEvaluation(Strict):
    sets: dict[Name, EvaluationSet] = Field(min_length=1)
    samples: int = Field(gt=0, description="answers a prompt and law")
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(1.0, gt=0, description="common to all methods: their KL compares at equal temperature only")
    engine: Engine = TRANSFORMERS


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
        if demonstrations.format in _QUESTIONS_ONLY:
            raise ValueError(f"demonstrations.format: {demonstrations.format} has no answers to learn from")
