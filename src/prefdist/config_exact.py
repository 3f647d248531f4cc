"""The configuration of the exact suite: a section a study, whose keys are the keyword arguments of its module's function."""

from typing import Literal

from pydantic import Field

from prefdist.config import VERSION, Strict


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


class ExactSuite(Strict):
    """Enumerable worlds: the theory of the four works without sampling noise. A section is a study."""

    kind: Literal["exact"]
    suite: str
    version: str = Field(pattern=VERSION)
    optima: Optima = Optima()
    estimators: Estimators = Estimators()

    @property
    def studies(self) -> dict[str, dict[str, object]]:
        """Every study's specification by its name."""
        return self.model_dump(exclude={"kind", "suite", "version"})
