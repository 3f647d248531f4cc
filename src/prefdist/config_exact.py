"""The configuration of the exact suite: a section a study, whose keys are the keyword arguments of its module's function."""

from typing import Annotated, Literal

from pydantic import Field

from prefdist.config import VERSION, Strict

Outputs = Annotated[int, Field(ge=2, le=1000)]
Beta = Annotated[float, Field(gt=0)]


class Optima(Strict):
    """Objectives' optima against their closed forms."""

    worlds: int = Field(default=5, gt=0, description="random worlds, seeds 0 … worlds−1")
    contexts: int = Field(default=10, gt=0, description="contexts of a table")
    actions: int = Field(default=10, gt=1, description="actions of a table")
    sequence_contexts: int = Field(default=4, gt=0, description="contexts of an autoregressive world")
    vocabulary: int = Field(default=3, gt=1, description="tokens of an autoregressive world")
    length: int = Field(default=3, gt=0, description="longest response of an autoregressive world")
    gamma: float = Field(default=0.1, gt=0, description="γ of the preferences; equal to the rows' γ")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")


class Estimators(Strict):
    """Gradient estimators against enumeration."""

    worlds: int = Field(default=5, gt=0, description="random worlds, seeds 0 … worlds−1")
    vocabulary: int = Field(default=3, gt=1, description="tokens")
    length: int = Field(default=3, gt=0, description="longest response")
    spread: float = Field(default=1.0, gt=0, description="standard deviation of all logits")


class OutputShift(Strict):
    """Mass of the aligned component of a mixture after tuning: Huang's Lemma 1 and Theorem 2."""

    worlds: int = Field(default=50_000, gt=0, description="random worlds a cell, all meeting the hypotheses of Theorem 2")
    outputs: list[Outputs] = Field(
        default=[2, 3, 4, 5, 6, 10, 30, 100], min_length=1, description="numbers of outputs, each a cell, with normal rewards"
    )
    pooled: list[Outputs] = Field(
        default=[3, 4, 5, 6],
        min_length=1,
        description="numbers of outputs taken together: for laws of rewards, identities and conditions; worlds of each",
    )
    rewards: list[Literal["normal", "uniform", "exponential", "integers", "binary"]] = Field(
        default=["normal", "uniform", "exponential", "integers", "binary"], min_length=1, description="laws of rewards"
    )
    betas: list[Beta] = Field(
        default=[0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], min_length=1, description="β of the tilt, in units of r"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class ChosenRejected(Strict):
    """Win rates of tuned models against the reference that the labelled pairs came from."""

    worlds: int = Field(default=5_000, gt=0, description="random worlds of each annotator and number of responses")
    outputs: list[Outputs] = Field(default=[2, 3, 5, 10, 30], min_length=1, description="numbers of responses")
    annotators: list[Literal["bradley_terry", "noisy", "intransitive"]] = Field(
        default=["bradley_terry", "noisy", "intransitive"], min_length=1, description="who labels the pairs"
    )
    betas: list[Beta] = Field(default=[0.05, 0.1, 0.5, 1.0, 2.0], min_length=1, description="β, weight of the cross-entropy")
    taus: list[Annotated[float, Field(gt=1)]] = Field(
        default=[1.2, 1.5, 2.0, 4.0, 11.0], min_length=1, description="SPL's α/β; 1 is measured beside them"
    )
    seed: int = Field(default=0, ge=0, description="of all draws")


class ExactSuite(Strict):
    """Enumerable worlds: the theory of the four works without sampling noise. A section is a study."""

    kind: Literal["exact"]
    suite: str
    version: str = Field(pattern=VERSION)
    optima: Optima = Optima()
    estimators: Estimators = Estimators()
    output_shift: OutputShift = OutputShift()
    chosen_rejected: ChosenRejected = ChosenRejected()

    @property
    def studies(self) -> dict[str, dict[str, object]]:
        """Every study's specification by its name."""
        return self.model_dump(exclude={"kind", "suite", "version"})
