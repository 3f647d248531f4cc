"""What a suite may say of a model: stored on the hub or in a folder, or trained by the suite itself."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from prefdist.config.common import Optimisation, Strict
from prefdist.errors import UserError
from prefdist.paths import check_model_folder

MAX_OPTIONS = 26
"""Options of a question (scoring/questions.py, whose import costs that of torch)."""


class TrainingQuestions(Strict):
    """A phase of a teacher's training on multiple-choice questions: which summary belongs to this function?"""

    objective: str = "sft_mean"
    optimisation: Optimisation
    repeats: int = Field(4, gt=0, description="questions made of each training prompt")
    max_options: int = Field(4, ge=2, le=MAX_OPTIONS)
    nearby: float = Field(0.5, ge=0, le=1, description="questions whose wrong options are of nearby functions; others' of any")
    none_share: float = Field(0.1, ge=0, lt=1, description="questions without the right option, to be answered None")
    template: Literal["short", "judge"] = "short"


class TrainedModel(Strict):
    """A model that the suite trains on references, with a tokenizer of its own size."""

    vocabulary: int = Field(gt=300)
    architecture: dict[str, Any] = Field(description="model_type and the keys of its transformers config")
    fraction: float = Field(default=1.0, gt=0, le=1, description="fraction of the training prompts used")
    objective: str = "sft"
    temperature: float = Field(default=1.0, gt=0, description="folded into the weights after training")
    questions: list[TrainingQuestions] = Field([], description="phases after the language model: choices of two before four")
    optimisation: Optimisation


class StoredModel(Strict):
    """A model of the hub, or a folder."""

    hub: str | None = Field(None, description="owner/name")
    revision: str | None = Field(None, description="commit; needed with hub")
    folder: str | None = None
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="of the frozen model, when it scores")

    @model_validator(mode="after")
    def _one_place(self) -> "StoredModel":
        if (self.hub is None) == (self.folder is None):
            raise ValueError("give hub (with revision) or folder, one of them")
        if self.hub is not None and self.revision is None:
            raise ValueError(f"hub: {self.hub} needs revision, the commit to take: a branch moves")
        if self.folder is not None:
            try:
                check_model_folder(Path(self.folder))
            except UserError as error:
                raise ValueError(f"folder: {error}") from error
        return self


MODEL_KINDS = ("trained model", "stored model")
Model = Annotated[
    Annotated[TrainedModel, Tag(MODEL_KINDS[0])] | Annotated[StoredModel, Tag(MODEL_KINDS[1])],
    Discriminator(lambda model: MODEL_KINDS[_is_stored(model)]),
]


def _is_stored(model: Any) -> bool:
    """Of what a suite says, or of what was read from it."""
    return bool(model.keys() & {"hub", "revision", "folder"}) if isinstance(model, dict) else isinstance(model, StoredModel)
