"""What suites of several kinds may say: engines, and how a model is trained. Unknown keys and wrong types are refused."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

VERSION = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
"""Of tables; a + marks what is no release, but one checkout's."""


TRANSFORMERS: Literal["transformers"] = "transformers"


Engine = Annotated[
    Literal["transformers", "vllm"],
    # An artefact's specification, and with it its digest, says which engine made it only where it is not the first.
    Field(description="what draws them; vllm: see docs/engines.md", exclude_if=lambda engine: engine == TRANSFORMERS),
]


def vllm_lacks(temperature: float, top_p: float, min_p: float) -> str | None:
    """Why vLLM cannot draw from a law as the project defines it (sampling/law.py); None if it can."""
    if min_p and top_p < 1:
        return (
            f"min_p: {min_p} with top_p {top_p}: vLLM drops by min_p first and takes the nucleus of the rest, another law than "
            f"ours; set one of them, or engine to {TRANSFORMERS}"
        )
    if temperature < 0.01:
        return f"temperature: {temperature}: vLLM draws at 0.01 or above; raise it, or set engine to {TRANSFORMERS}"
    return None


class Strict(BaseModel):
    """Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Optimisation(Strict):
    """One optimiser step uses `batch_size` examples, however they are split over micro-batches and processes.

    `precision` is part of what an artefact is. `sharding` and `gradient_checkpointing` change no more than the order of
    sums, as the number of processes does: they are left out of it, and nothing is made anew when they change.
    """

    steps: int = Field(gt=0)
    batch_size: int = Field(default=32, gt=0, description="examples (a prompt with its responses) an optimiser step")
    micro_batch_size: int = Field(default=32, gt=0, description="examples held in memory at once, per process")
    learning_rate: float = Field(gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(default=0, ge=0)
    weight_decay: float = Field(default=0.0, ge=0)
    betas: tuple[float, float] = (0.9, 0.999)
    max_grad_norm: float = Field(default=1.0, gt=0)
    max_loss: float = Field(default=1e4, gt=0, description="a larger loss stops the run")
    checkpoint_every: int = Field(default=50, gt=0, description="optimiser steps; rounded up to whole rollouts")
    probe_every: int = Field(default=0, ge=0, description="optimiser steps between points of the learning curve; 0 = none")
    precision: Literal["float32", "bfloat16"] = Field(
        default="float32",
        exclude_if=lambda precision: precision == "float32",
        description="of matrix products; bfloat16 keeps weights, optimiser, log-softmax, losses and sums in float32",
    )
    gradient_checkpointing: bool = Field(
        default=False, exclude=True, description="compute activations again instead of keeping them: slower, less memory"
    )
    sharding: Literal["ddp", "fsdp"] = Field(
        default="ddp", exclude=True, description="with several processes: all weights in each (ddp), or a part (fsdp)"
    )

    def how(self) -> dict[str, Any]:
        """The settings that are left out of an artefact's specification, where they are not the default."""
        fields = {name: field for name, field in type(self).model_fields.items() if field.exclude}
        return {name: value for name, field in fields.items() if (value := getattr(self, name)) != field.default}


class Lora(Strict):
    """Low-rank adapters (peft); everything else is frozen."""

    r: int = Field(gt=0)
    lora_alpha: int = Field(gt=0)
    lora_dropout: float = Field(default=0.0, ge=0, lt=1)
    target_modules: list[str]


class Rollouts(Strict):
    """Fresh responses of the policy. A rollout feeds minibatches·epochs optimiser steps."""

    samples: int = Field(default=2, gt=0, description="responses a prompt")
    max_new_tokens: int = Field(gt=0)
    temperature: float = Field(default=1.0, gt=0)
    minibatches: int = Field(default=1, gt=0)
    epochs: int = Field(default=1, gt=0)
    batch_size: int | None = Field(
        default=None, gt=0, description="prompts an optimiser step; default: optimisation.batch_size"
    )
    engine: Engine = TRANSFORMERS

    @model_validator(mode="after")
    def _drawn(self) -> "Rollouts":
        if self.engine == "vllm" and (reason := vllm_lacks(self.temperature, 1.0, 0.0)):
            raise ValueError(reason)
        return self


class RewardUse(Strict):
    """What an objective makes of r̂. Without a key, r̂ as it is."""

    scale: float = Field(default=1.0, gt=0, description="multiplies r̂: reward models differ in their units")
    unfinished: float | None = Field(
        default=None, description="in place of r̂ of a response that has no end, before it is scaled"
    )


class Run(Strict):
    """One method: a row of the objective table, its parameters and how it is optimised."""

    objective: str
    parameters: dict[str, float] = Field(default_factory=dict, description="override the row's parameters")
    train_on: Literal["pairs", "chosen", "rejected", "both"] = Field("pairs", description="both: each response by itself")
    label_noise: float = Field(0.0, ge=0, le=0.5, description="share of the training pairs whose label is turned round")
    reward_model: Literal["own", "apart"] = Field("own", description="that of its pairs, or the one trained on other pairs")
    reward: RewardUse = RewardUse()
    optimisation: Optimisation
    rollouts: Rollouts | None = None
    lora: Lora | None = None


def check_objective(where: str, run: Run) -> None:
    """The row exists, learns from pairs, and has the rollouts it needs. ValueError begins with `where`, the run's place."""
    from prefdist.objectives.registry import read_row

    try:
        row = read_row(run.objective, run.parameters)
    except (ValueError, FileNotFoundError) as error:
        raise ValueError(f"{where}: {error}") from error
    if row.responses == "scored" or row.family == "token_distillation":
        raise ValueError(f"{where}: objective {run.objective} learns from a teacher; only a suite of kind pad has one")
    regulariser = getattr(row, "regulariser", None)
    on_policy = row.responses == "policy" or regulariser is not None
    if on_policy and run.rollouts is None:
        raise ValueError(f"{where}: objective {run.objective} samples from the policy; give rollouts")
    if run.rollouts is not None and regulariser is not None and run.rollouts.minibatches * run.rollouts.epochs > 1:
        raise ValueError(f"{where}: the KL regulariser is on-policy; minibatches and epochs must be 1")
    if on_policy and run.rollouts is not None and run.rollouts.engine == "vllm" and run.optimisation.sharding == "fsdp":
        raise ValueError(f"{where}.rollouts.engine: vllm is handed whole weights; set optimisation.sharding to ddp")
    if on_policy and run.lora is not None and run.lora.lora_dropout:
        raise ValueError(f"{where}: lora.lora_dropout would change the policy that samples; set it to 0")
    if run.lora is not None and getattr(row, "score", None) is not None and row.score.of == "reward":
        raise ValueError(f"{where}.lora: a reward model trains all its weights; leave it out")
    if run.train_on != "pairs" and row.family != "likelihood":
        raise ValueError(f"{where}.train_on: objective {run.objective} compares pairs, found {run.train_on}; leave it out")
    if run.label_noise and row.responses == "policy":
        raise ValueError(f"{where}.label_noise: objective {run.objective} sees no labels; set it to 0")
    if run.reward_model == "apart" and row.responses != "policy":
        raise ValueError(f"{where}.reward_model: objective {run.objective} uses none; leave it out")
    if run.reward != RewardUse() and row.responses != "policy":
        raise ValueError(f"{where}.reward: objective {run.objective} sees no rewards; leave it out")
