"""What a suite of behaviour may say (SPL, Huang): trainings, laws of sampling, and what of the resulting models is measured.

A suite trains on the preferences of a testbed suite (`world`) or on a dataset of pairs (`pairs` and `base`). Each run, and
π₀ under the name base, is measured as it is; `decoders` add other laws of sampling. Left out: which artefacts follow from
it (plan/behaviour.py).
"""

from typing import Any, Literal

from pydantic import Field, model_validator

from prefdist.config.common import TRANSFORMERS, VERSION, Engine, Run, Strict, check_objective, vllm_lacks
from prefdist.config.models import MAX_OPTIONS, StoredModel, TrainingQuestions
from prefdist.config.sets import Source

BASE = "base"
"""The name of π₀ among the runs."""
MEASURES = ("diversity", "shift", "repeats", "calibration", "best_of_n", "tax", "benchmarks")
"""Sections of a suite: what is measured, each by a stage of its own."""


class Pairs(Source):
    """Labelled pairs of responses."""

    format: Literal["dialogues", "messages"] = Field(
        description="dialogues: HH-RLHF's transcripts; messages: columns prompt, chosen and rejected, as of UltraFeedback"
    )
    splits: dict[Literal["train", "test"], str] = Field(description="train and test -> the dataset's names for them")
    on_defect: Literal["drop", "refuse"] = Field("drop", description="of rows that are no comparison; dropped ones are listed")
    train_pairs: int = Field(gt=0)
    test_prompts: int = Field(gt=0)
    judge_share: float = Field(
        0.5, gt=0, lt=1, description="share of the training pairs that only the judging reward model sees"
    )
    max_prompt_chars: int | None = Field(None, gt=0, description="pairs of longer prompts are left out")
    max_response_tokens: int = Field(512, gt=0, description="longer responses are cut off, and have no EOS")


class Contrasted(Strict):
    """Contrastive decoding: logits a·log π − b·log π₀ (Huang)."""

    a: float
    b: float
    plausibility: float = Field(
        0.1, ge=0, le=1, description="tokens less probable than this share of the likeliest are left out"
    )


class Decoder(Strict):
    """A run (or base) and a law of sampling its tokens; filters act on logits/temperature in the order top-k, top-p, min-p."""

    run: str
    temperature: float = Field(default=1.0, gt=0)
    top_k: int = Field(default=0, ge=0, description="0: all tokens")
    top_p: float = Field(default=1.0, gt=0, le=1)
    min_p: float = Field(default=0.0, ge=0, le=1)
    contrast: Contrasted | None = None

    @property
    def in_vllm(self) -> bool:
        """Whether vLLM has this law: of one model, and with its filters in this order."""
        return self.contrast is None and vllm_lacks(self.temperature, self.top_p, self.min_p) is None


class Draws(Strict):
    """Samples that several measures share. A decoder whose law vLLM lacks draws with transformers, whatever the engine."""

    prompts: int = Field(gt=0, description="held-out prompts")
    samples: int = Field(16, gt=1, description="responses a prompt; the paper's 16")
    max_new_tokens: int = Field(gt=0)
    engine: Engine = TRANSFORMERS


class Embedder(Strict):
    """Texts as vectors: latent semantic analysis of the training references, or a sentence-transformers model."""

    dimensions: int = Field(default=128, gt=1, description="of latent semantic analysis")
    hub: str | None = Field(default=None, description="owner/name of a sentence-transformers model, instead")
    revision: str | None = Field(default=None, description="its commit")
    folder: str | None = Field(default=None, description="a local model, instead")
    max_tokens: int = Field(default=256, gt=0, description="of a text that a sentence-transformers model reads")

    @model_validator(mode="after")
    def _pinned(self) -> "Embedder":
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub and revision go together: a branch moves")
        if self.hub is not None and self.folder is not None:
            raise ValueError("give hub (with revision) or folder, one of them")
        return self


class Diversity(Strict):
    """Quality against diversity (SPL, section 4.1)."""

    embedder: Embedder = Embedder()


class Shift(Strict):
    """Output shift (Huang): total probability mass, slopes, log-probabilities of rejected responses."""

    pairs: int = Field(gt=0, description="held-out pairs whose log-probabilities are followed")
    mixture: Run = Field(description="how SFT on chosen, on rejected and on both is done (definition D1)")


class Repeats(Strict):
    """Single-token repeats in front of a prompt (Huang), with controls of the same length."""

    prompts: int = Field(gt=0)
    samples: int = Field(4, gt=0, description="continuations a context")
    counts: list[int] = Field(min_length=2, description="numbers of repeats, 0 among them")
    tokens: int = Field(4, gt=0, description="different tokens that are repeated, one a prompt in turn")
    max_new_tokens: int = Field(gt=0)
    policies: list[str] | None = Field(None, description="runs, and decoders with a contrast; default: all of these")

    @model_validator(mode="after")
    def _zero(self) -> "Repeats":
        if 0 not in self.counts or min(self.counts) < 0 or len(set(self.counts)) != len(self.counts):
            raise ValueError(f"counts: different numbers with 0 among them, found {self.counts}")
        return self


class Choices(Strict):
    """Multiple-choice questions with one right option."""

    source: Literal["references", "arithmetic", "mmlu", "truthfulqa"] = Field(
        description="references: which summary belongs to this function; arithmetic: which result; the others: their datasets"
    )
    dataset: Source | None = Field(None, description="of mmlu and truthfulqa")
    split: str = "test"
    questions: int = Field(gt=0)
    options: int = Field(4, ge=2, le=MAX_OPTIONS, description="of references and arithmetic; datasets have their own")
    seed: int = Field(0, description="of the order of the options")
    shots: int = Field(0, ge=0, description="questions with their answers that stand before each one")
    template: Literal["short", "judge", "letters"] = Field("letters", description="how a question is put")


class Calibration(Strict):
    """Stated probabilities of the options against what is right (SPL, section 4.3)."""

    choices: dict[str, Choices] = Field(min_length=1)
    bins: int = Field(10, gt=1, description="of the expected calibration errors, of equal width and of equal mass")


class Problems(Strict):
    """Problems whose answers can be checked: those of an arithmetic world, or a dataset's."""

    source: Literal["world", "gsm8k", "math"]
    dataset: Source | None = None
    split: str = "test"
    problems: int = Field(gt=0)
    instruction: str = Field("", description="stands behind each of a dataset's problems, such as where to put the answer")


class BestOfN(Strict):
    """Coverage, and the best of N by a reward model (SPL, section 4.2)."""

    problems: Problems
    samples: int = Field(128, gt=1, description="answers a problem that are scored")
    split_samples: int = Field(128, gt=1, description="other answers of π₀, which say how difficult a problem is")
    easy: int = Field(4, gt=0, description="easy: solved within so many samples")
    medium: int = Field(64, gt=0, description="medium: within so many; hard: beyond")
    max_new_tokens: int = Field(gt=0)
    policies: list[str] | None = Field(None, description="runs and decoders; default: all")
    engine: Engine = TRANSFORMERS


class Tax(Strict):
    """What an alignment costs elsewhere: perplexity of text. Questions and problems are measured by themselves."""

    texts: int = Field(gt=0, description="held-out references")


class Benchmarks(Strict):
    """Academic benchmarks of lm-evaluation-harness."""

    tasks: dict[str, int] = Field(min_length=1, description="task or group of tasks -> shots")
    folder: str | None = Field(None, description="folder with YAML files of tasks of one's own")
    limit: int | None = Field(None, gt=0, description="documents a task")


class PolicyAblation(Strict):
    """Policies that differ in one thing."""

    title: str
    measure: Literal["diversity", "shift", "calibration", "best_of_n", "tax", "benchmarks"] = "diversity"
    policies: dict[str, str] = Field(description="value of what differs -> run or decoder", min_length=2)


class SplSuite(Strict):
    """Behaviour of aligned models: diversity, calibration, best-of-N, alignment tax, output shift."""

    kind: Literal["spl"]
    suite: str
    version: str = Field(pattern=VERSION)
    seeds: list[int] = Field(min_length=1)
    world: str | None = Field(None, description="testbed suite that lends text, π₀, known preferences and reward model")
    pairs: Pairs | None = None
    base: StoredModel | None = Field(None, description="π₀, with pairs")
    reward_model: Run | None = Field(None, description="how reward models are trained on pairs; a world has its own")
    questions: list[TrainingQuestions] = Field([], description="phases that teach the world's π₀ to answer by letter")
    runs: dict[str, Run]
    decoders: dict[str, Decoder] = Field(default_factory=dict)
    draws: Draws | None = Field(None, description="needed for diversity and shift")
    diversity: Diversity | None = None
    shift: Shift | None = None
    repeats: Repeats | None = None
    calibration: Calibration | None = None
    best_of_n: BestOfN | None = None
    tax: Tax | None = None
    benchmarks: Benchmarks | None = None
    ablations: dict[str, PolicyAblation] = Field(default_factory=dict)

    @property
    def models(self) -> list[str]:
        """π₀ and the runs, each with the plain law of its tokens."""
        return [BASE, *self.runs]

    @property
    def policies(self) -> dict[str, Decoder]:
        """Everything that is sampled from."""
        return {name: Decoder(run=name) for name in self.models} | self.decoders

    def measured(self, measure: str) -> list[str]:
        """The policies of a measure: those of other laws of sampling where samples are what is measured."""
        if measure == "diversity":
            return list(self.policies)
        if measure == "repeats":
            assert self.repeats is not None
            return self.repeats.policies or [*self.models, *self._contrasts]
        if measure == "best_of_n":
            assert self.best_of_n is not None
            return self.best_of_n.policies or list(self.policies)
        return self.models

    @property
    def _contrasts(self) -> list[str]:
        return [name for name, decoder in self.decoders.items() if decoder.contrast]

    @model_validator(mode="after")
    def _consistent(self) -> "SplSuite":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: each seed once, found {self.seeds}")
        if (self.world is None) == (self.pairs is None):
            raise ValueError("give world (a testbed suite) or pairs (a dataset), one of them")
        if (self.pairs is None) != (self.base is None) or (self.pairs is None) != (self.reward_model is None):
            raise ValueError("pairs, base and reward_model go together; a world has its own")
        if self.questions and self.world is None:
            raise ValueError("questions: only the π₀ of a world is taught to answer; a stored base answers as it does")
        if not any(getattr(self, name) for name in MEASURES):
            raise ValueError(f"nothing is measured; give one of {', '.join(MEASURES)}")
        if (self.diversity or self.shift) and self.draws is None:
            raise ValueError("draws: diversity and shift are measured on samples; say how many")
        if BASE in self.runs or set(self.decoders) & set(self.models):
            raise ValueError(f"runs and decoders have different names, and none is called {BASE}")
        shift = {"shift.mixture": self.shift.mixture.model_copy(update={"train_on": "both"})} if self.shift else {}
        of_pairs = {"reward_model": self.reward_model} if self.reward_model else {}
        for where, run in ({f"runs.{name}": run for name, run in self.runs.items()} | shift | of_pairs).items():
            check_objective(where, run)
            if run.optimisation.probe_every:
                raise ValueError(f"{where}.optimisation.probe_every: learning curves belong to testbed suites; set it to 0")
        for name, decoder in self.decoders.items():
            self._known(f"decoders.{name}.run", decoder.run, self.models)
        for name in (self.best_of_n.policies or []) if self.best_of_n else []:
            self._known("best_of_n.policies", name, self.policies)
        for name in (self.repeats.policies or []) if self.repeats else []:
            self._known("repeats.policies", name, [*self.models, *self._contrasts])
        for name, ablation in self.ablations.items():
            if getattr(self, ablation.measure) is None:
                raise ValueError(f"ablations.{name}.measure: the suite has no section {ablation.measure}")
            for policy in ablation.policies.values():
                self._known(f"ablations.{name}", policy, self.measured(ablation.measure))
        self._sources()
        return self

    def _known(self, where: str, name: str, among: Any) -> None:
        if name not in among:
            raise ValueError(f"{where}: {name!r} is not one of {', '.join(sorted(among))}")

    def _sources(self) -> None:
        """Questions and problems of datasets name them; those of a world need one."""
        for name, choices in self.calibration.choices.items() if self.calibration else ():
            _sourced(f"calibration.choices.{name}", choices.source in ("references", "arithmetic"), choices.dataset, self.world)
        if self.best_of_n:
            problems = self.best_of_n.problems
            _sourced("best_of_n.problems", problems.source == "world", problems.dataset, self.world)
            if problems.instruction and problems.source == "world":
                raise ValueError("best_of_n.problems.instruction: a world's models know their problems; leave it out")


def _sourced(where: str, of_world: bool, dataset: Source | None, world: str | None) -> None:
    if of_world and world is None:
        raise ValueError(f"{where}.source: this source is a world's text; give world, or a source with a dataset")
    if of_world == (dataset is not None):
        raise ValueError(f"{where}.dataset: {'a world brings its own' if of_world else 'this source needs one'}")
