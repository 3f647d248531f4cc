"""What a suite of preference distillation (PAD) may say: samples, questions, rewards, runs and ablations.

Left out: which artefacts follow from it (plan/distillation.py).
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from prefdist.config.common import TRANSFORMERS, VERSION, Engine, Optimisation, Strict, vllm_lacks
from prefdist.config.models import MAX_OPTIONS, Model, TrainedModel
from prefdist.config.sets import AnsweredSets, Decoding, HubPrompts, Prompts

MAX_ITEMS = 14
"""Longest list of the exact divergences of rankings (objectives/plackett_luce.py, whose import costs that of torch)."""
MAX_PERMUTED = 4
"""Options of a question of which all orders are asked (scoring/questions.py, likewise)."""


class Samples(Strict):
    """Responses drawn from a model, n distinct ones a prompt."""

    n: int = Field(gt=0)
    draws: int = Field(gt=0, description="responses drawn, of which n distinct ones are kept")
    temperature: float = Field(default=1.0, gt=0)
    top_p: float = Field(default=1.0, gt=0, le=1)
    select: Literal["first", "max_min"] = Field("first", description="max_min: a diverse subset, by edit distance")
    max_new_tokens: int = Field(gt=0)
    engine: Engine = TRANSFORMERS

    @model_validator(mode="after")
    def _enough(self) -> "Samples":
        if self.draws < self.n:
            raise ValueError(f"draws: {self.draws} is less than n, {self.n}")
        if self.engine == "vllm" and (reason := vllm_lacks(self.temperature, self.top_p, 0.0)):
            raise ValueError(reason)
        return self


class Questions(Strict):
    """Multiple-choice questions about a prompt's responses."""

    kind: Literal["n_way", "pairwise"] = Field(description="all n options at once (the paper) or two (the released code)")
    orders: Literal["all", "cyclic", "fixed"] = Field("cyclic", description="orders of the options that are asked")
    template: Literal["short", "judge"] = "short"
    longest: int | None = Field(None, gt=0, description="characters of a response that are shown; the rest is an ellipsis")
    engine: Engine = TRANSFORMERS


class Reward(Strict):
    """r̂ = (1−alpha)·ℓ + alpha·log p_sel (PAD's calibrated reward)."""

    scorer: str = Field("teacher", description="teacher, or oracle: the known preferences of the world")
    alpha: float = Field(ge=0, le=1, description="weight of the questions, as in the paper (the released code's is 1−alpha)")
    normalisation: Literal["tokens", "tokens_without_end", "bytes", "sum"] = "tokens"
    questions: str | None = Field(None, description="which of `questions`; needed where alpha > 0")
    orders: Literal["averaged", "fixed"] = Field("averaged", description="fixed: the first order alone, position bias left in")
    renormalise: bool = Field(True, description="divide by the mass on the letters, so that None does not count")

    @model_validator(mode="after")
    def _questions(self) -> "Reward":
        if self.scorer not in ("teacher", "oracle"):
            raise ValueError(f"scorer: {self.scorer!r} is neither teacher nor oracle")
        if self.alpha > 0 and self.questions is None:
            raise ValueError(f"alpha: {self.alpha} weights questions; name them, or set alpha to 0")
        if self.scorer == "oracle" and self.alpha > 0:
            raise ValueError("scorer: oracle asks no questions; set alpha to 0")
        return self


class Decomposition(Strict):
    """Lists of n as n/size lists of `size`."""

    size: int = Field(ge=2)
    shuffle: bool = Field(False, description="other lists in every epoch, rather than always the same")
    resample: bool = Field(False, description="lists one after another, each drawn from the student that the last one trained")

    @model_validator(mode="after")
    def _one_way(self) -> "Decomposition":
        if self.shuffle and self.resample:
            raise ValueError("shuffle and resample exclude each other: lists that are drawn anew have nothing to exchange")
        return self


class PadRun(Strict):
    """One method: student, teacher, samples, reward, objective."""

    student: str
    teacher: str
    objective: str
    parameters: dict[str, float] = Field(default_factory=dict, description="override the row's parameters")
    samples: str = Field(description="which of `samples`")
    n: int = Field(ge=2, description="the first n samples of a prompt")
    reward: Reward
    train_on: Literal["lists", "best_worst", "random_pair", "references", "teacher_responses"] = "lists"
    decomposition: Decomposition | None = None
    optimisation: Optimisation


class PadEvaluation(Strict):
    prompts: int = Field(gt=0, description="held-out prompts")
    samples: int = Field(gt=0, description="responses a prompt of every student")
    max_new_tokens: int = Field(gt=0)
    candidates: str = Field(description="which of `samples`: lists of the untrained student, ranked by student and teacher")
    reward: Reward = Field(description="of the candidates: what the students' rankings are held against")
    beta: float = Field(10.0, gt=0, description="multiplies a student's mean log-probabilities: its law of rankings")
    beta_teacher: float = Field(1.0, gt=0, description="multiplies the teacher's rewards: its law of rankings")
    clearly: float = Field(0.6, gt=0.5, lt=1, description="known probability of the other, from which a teacher is wrong")


class Judged(AnsweredSets):
    """Sets of prompts that students answer, and the models that they start from, for judges."""

    prompts: Prompts = Prompts()
    decoding: Decoding = Field(Decoding(), description="the law of all answers")


class Ablation(Strict):
    """Runs that differ in one thing."""

    title: str
    runs: dict[str, str] = Field(description="value of what differs -> run", min_length=2)


class PadSuite(Strict):
    """Preference distillation from teachers to students."""

    kind: Literal["pad"]
    suite: str
    version: str = Field(pattern=VERSION)
    seeds: list[int] = Field(min_length=1)
    world: str | None = Field(None, description="testbed suite that lends text, π₀ and the known preferences of π*")
    prompts: HubPrompts | None = None
    train_prompts: int = Field(gt=0)
    models: dict[str, Model]
    samples: dict[str, Samples]
    questions: dict[str, Questions] = Field(default_factory=dict)
    runs: dict[str, PadRun]
    evaluation: PadEvaluation
    judged: Judged | None = Field(None, description="what judges say of answers; default: nobody is asked")
    ablations: dict[str, Ablation] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _consistent(self) -> "PadSuite":
        if (self.world is None) == (self.prompts is None):
            raise ValueError("give world (a testbed suite) or prompts (a dataset), one of them")
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: each seed once, found {self.seeds}")
        for name, model in self.models.items():
            if isinstance(model, TrainedModel):
                self._trained(f"models.{name}", model)
        self._known("evaluation.candidates", self.evaluation.candidates, self.samples)
        n = self.samples[self.evaluation.candidates].n
        if not 2 <= n <= MAX_ITEMS:
            raise ValueError(f"evaluation.candidates: lists of {n}; their laws of rankings are compared for 2 to {MAX_ITEMS}")
        for name in self.questions:  # a teacher is asked all of them
            self._asked(f"questions.{name}", name, n)
        self._reward("evaluation.reward", self.evaluation.reward, n)
        for name, run in self.runs.items():
            self._run(f"runs.{name}", run)
        for name, ablation in self.ablations.items():
            for run_name in ablation.runs.values():
                self._known(f"ablations.{name}", run_name, self.runs)
        if self.judged is not None:
            self._judged(self.judged)
        return self

    @property
    def policies(self) -> dict[str, str]:
        """Who answers: models that students start from, and runs; each with the model that it starts from."""
        starts = dict.fromkeys(run.student for run in self.runs.values())
        return {name: name for name in starts} | {name: run.student for name, run in self.runs.items()}

    def _judged(self, judged: Judged) -> None:
        if self.world is not None:
            raise ValueError("judged: a world has known preferences, by which students are judged; leave it out")
        both = sorted(self.runs.keys() & self.models.keys())
        if both:
            raise ValueError(f"runs: {both[0]} is a model, too, and judges' tables name both; call the run otherwise")
        for name, of_set in judged.sets.items():
            where = f"judged.sets.{name}"
            if of_set.judging is None:
                raise ValueError(f"{where}: nobody judges it; give judging, or leave the set out")
            if of_set.judging.judge.kind != "endpoint":
                raise ValueError(f"{where}.judging.judge.kind: a suite of kind pad has no reward model; take endpoint")
            for policy in of_set.judging.runs or []:
                self._known(f"{where}.judging.runs", policy, self.policies)

    def _known(self, where: str, name: str, among: dict[str, Any]) -> None:
        if name not in among:
            raise ValueError(f"{where}: {name!r} is not one of {', '.join(sorted(among)) or 'none'}")

    def _reward(self, where: str, reward: Reward, n: int) -> None:
        if reward.questions is not None:
            self._known(f"{where}.questions", reward.questions, self.questions)
            if reward.alpha > 0:
                self._asked(f"{where}.questions", reward.questions, n)
        if reward.scorer == "oracle" and self.world is None:
            raise ValueError(f"{where}.scorer: oracle needs a world, whose preferences are known")

    def _asked(self, where: str, name: str, n: int) -> None:
        """Questions about n responses at once have letters for them, and not too many orders."""
        asked = self.questions[name]
        most = MAX_PERMUTED if asked.orders == "all" else MAX_OPTIONS
        if asked.kind == "n_way" and n > most:
            raise ValueError(f"{where}: {n} options in orders {asked.orders} are too many; at most {most}")

    def _row(self, where: str, objective: str, parameters: dict[str, float]) -> Any:
        from prefdist.objectives.registry import read_row

        try:
            return read_row(objective, parameters)
        except (ValueError, FileNotFoundError) as error:
            raise ValueError(f"{where}: {error}") from error

    def _trained(self, where: str, model: TrainedModel) -> None:
        if self.world is None:
            raise ValueError(f"{where}: only a suite with a world trains models from scratch; give hub or folder")
        phases = {f"questions.{i}.objective": phase.objective for i, phase in enumerate(model.questions)}
        for key, objective in {"objective": model.objective, **phases}.items():
            if self._row(f"{where}.{key}", objective, {}).family != "likelihood":
                raise ValueError(f"{where}.{key}: {objective} does not learn from references alone; take sft")

    def _run(self, where: str, run: PadRun) -> None:
        self._known(f"{where}.student", run.student, self.models)
        self._known(f"{where}.teacher", run.teacher, self.models)
        self._known(f"{where}.samples", run.samples, self.samples)
        if run.n > self.samples[run.samples].n:
            raise ValueError(f"{where}.n: {run.n}, but samples {run.samples} has n = {self.samples[run.samples].n}")
        together = run.decomposition.size if run.decomposition and run.decomposition.resample else run.n
        self._reward(f"{where}.reward", run.reward, together)
        row = self._row(where, run.objective, run.parameters)
        self._lists(where, run, row)
        if row.family == "token_distillation":
            self._same_tokenizer(where, run)

    def _lists(self, where: str, run: PadRun, row: Any) -> None:
        """The rows' kind, the length of the lists and the decomposition fit together."""
        if row.responses == "policy" or getattr(row, "regulariser", None) is not None:
            raise ValueError(f"{where}: objective {run.objective} needs fresh samples, which only a testbed suite has")
        if getattr(row, "score", None) is not None and row.score.of == "reward":
            raise ValueError(f"{where}: objective {run.objective} trains a reward model, and a student is a policy")
        if row.responses == "scored" and run.train_on != "lists":
            raise ValueError(f"{where}.train_on: objective {run.objective} learns from scored lists; set it to lists")
        if (run.train_on in ("references", "teacher_responses")) != (row.family in ("likelihood", "token_distillation")):
            raise ValueError(f"{where}.train_on: {run.train_on} does not fit objective {run.objective}")
        lists = run.train_on == "lists"
        size = (run.decomposition.size if run.decomposition else run.n) if lists else 2
        if row.family == "preference" and row.model == "bradley_terry" and size != 2:
            raise ValueError(f"{where}: objective {run.objective} compares two; set train_on to best_worst or random_pair")
        exact = getattr(row, "model", "") == "plackett_luce" and row.divergence in ("kl", "jsd", "ag")
        if exact and size > MAX_ITEMS:
            raise ValueError(f"{where}.n: exact divergences take lists of {MAX_ITEMS}, not {size}; give decomposition.size")
        if run.decomposition is not None:
            if not lists:
                raise ValueError(f"{where}.decomposition: only lists are decomposed, train_on is {run.train_on}")
            if run.n % size:
                raise ValueError(f"{where}.decomposition.size: {size} does not divide n, {run.n}")
            if run.decomposition.resample and run.optimisation.steps % (run.n // size):
                raise ValueError(f"{where}.optimisation.steps: {run.optimisation.steps} is no multiple of {run.n // size}")

    def _same_tokenizer(self, where: str, run: PadRun) -> None:
        """Models that are stored are compared by their tokenizers when the run starts."""
        student, teacher = self.models[run.student], self.models[run.teacher]
        if isinstance(student, TrainedModel) and isinstance(teacher, TrainedModel) and student.vocabulary != teacher.vocabulary:
            raise ValueError(
                f"{where}: objective {run.objective} compares laws of tokens, but student {run.student} has a vocabulary of "
                f"{student.vocabulary} and teacher {run.teacher} of {teacher.vocabulary}; name models that share a tokenizer"
            )
