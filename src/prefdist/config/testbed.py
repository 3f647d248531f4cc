"""What a suite of language models with a known target may say: text, target, π₀, preferences, runs.

Left out: reading a file (suites.py), which artefacts follow (plan/testbed.py).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from prefdist.config.common import VERSION, Optimisation, Run, Strict, check_objective
from prefdist.errors import UserError
from prefdist.paths import check_model_folder


class Text(Strict):
    """Documented functions of the running interpreter's standard library."""

    kind: Literal["stdlib"] = "stdlib"
    seed: int = 0
    train: float = Field(default=0.8, gt=0, lt=1, description="fraction of the top-level modules")
    validation: float = Field(default=0.08, gt=0, lt=1)
    test: float = Field(default=0.12, gt=0, lt=1)
    max_prompt_chars: int = Field(default=100, gt=10)
    max_reference_chars: int = Field(default=70, gt=10)
    vocabulary: int = Field(default=1024, gt=300, description="size of the byte-level BPE tokenizer")


class Arithmetic(Strict):
    """Generated word problems of graded difficulty, answered step by step."""

    kind: Literal["arithmetic"]
    seed: int = 0
    train: int = Field(gt=0, description="training rows")
    validation: int = Field(gt=0, description="problems")
    test: int = Field(gt=0, description="problems")
    levels: list[Annotated[int, Field(ge=1, le=9)]] = Field(
        [1, 2, 3, 4, 5, 6], min_length=1, description="steps; they take turns"
    )
    vocabulary: int = Field(default=386, gt=300, description="size of the byte-level BPE tokenizer")
    choice_share: float = Field(0.0, ge=0, lt=1, description="training rows that are lettered questions, answered by a letter")
    choice_levels: list[Annotated[int, Field(ge=1, le=9)]] = Field([1, 2], min_length=1, description="of these questions")
    choice_options: list[Annotated[int, Field(ge=2, le=8)]] = Field([2, 4], min_length=1, description="they take turns")
    choice_after_steps: bool = Field(False, description="lettered questions show the worked steps before the options")


TEXT_KINDS = {"stdlib": "text of the library", "arithmetic": "arithmetic text"}
"""Value of `kind` -> pydantic's tag, which is no key of a suite."""


def _text_kind(text: Any) -> str | None:
    kind = text.get("kind", "stdlib") if isinstance(text, dict) else getattr(text, "kind", None)
    return TEXT_KINDS.get(kind) if isinstance(kind, str) else None


AnyText = Annotated[
    Annotated[Text, Tag(TEXT_KINDS["stdlib"])] | Annotated[Arithmetic, Tag(TEXT_KINDS["arithmetic"])],
    Discriminator(
        _text_kind,
        custom_error_type="text_kind",
        custom_error_message=f"kind is not one of {', '.join(TEXT_KINDS)}",
    ),
]


class ModelRun(Strict):
    """A language model trained on references."""

    init: str = Field(default="scratch", description="scratch, prior (the target only), or a model folder")
    objective: str = "sft"
    noise: float = Field(default=0.0, ge=0, lt=1, description="fraction of references whose words are put in random order")
    fraction: float = Field(default=1.0, gt=0, le=1, description="fraction of the training prompts used")
    temperature: float = Field(default=1.0, gt=0, description="folded into the weights after training: < 1 is a sharper model")
    optimisation: Optimisation


class Preferences(Strict):
    """Pairs sampled from π₀ and labelled by ADL Eq. 2 with π*."""

    gamma: float = Field(gt=0, description="γ: P(a ≻ b) = σ(γ·(log π*(a) − log π*(b)))")
    pairs_per_prompt: int = Field(default=1, gt=0)
    train_prompts: int = Field(gt=0)
    test_prompts: int = Field(gt=0)
    max_new_tokens: int = Field(gt=0)


class Evaluation(Strict):
    prompts: int = Field(gt=0, description="held-out prompts")
    samples: int = Field(gt=0, description="responses a prompt")
    probe_prompts: int = Field(default=64, gt=0, description="validation prompts of the learning curves")
    max_new_tokens: int = Field(gt=0)


class Suite(Strict):
    """An experiment of language models with a known target."""

    kind: Literal["testbed"] = "testbed"
    suite: str
    version: str = Field(pattern=VERSION, description="names the folder of the tables: results/<suite>/<version>")
    seeds: list[int] = Field(min_length=1)
    text: AnyText
    architecture: dict[str, Any] = Field(description="model_type and the keys of its transformers config")
    target: ModelRun
    prior: ModelRun
    preferences: Preferences
    reward_model: Run
    runs: dict[str, Run]
    evaluation: Evaluation

    @model_validator(mode="after")
    def _consistent(self) -> "Suite":
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds: each seed once, found {self.seeds}")
        for name, model in {"target": self.target, "prior": self.prior}.items():
            if model.init != "scratch" and not (name == "target" and model.init == "prior"):
                try:
                    check_model_folder(Path(model.init))
                except UserError as error:
                    raise ValueError(f"{name}.init: {error}") from error
        for name, run in {**self.runs, "reward_model": self.reward_model}.items():
            check_objective(f"runs.{name}", run)
        return self
