"""What workflow/hub_models.yaml knows of models and datasets of the hub: shapes for forecasts, licences for cards."""

from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from prefdist.config.common import Strict
from prefdist.errors import UserError
from prefdist.paths import HUB_MODELS


class HubModel(Strict):
    """Repositories of one shape and licence. `config` has keys of their config.json."""

    names: list[str] = Field(min_length=1)
    licence: str = Field(description="the hub's identifier of it, as on the model's page")
    gated: bool = Field(False, description="whether the hub gives it only to accounts that have accepted the licence")
    evidence: Literal["read", "memory"] = Field(description="whether a copy of the config.json was read")
    config: dict[str, Any]


class HubModels(Strict):
    models: list[HubModel]
    datasets: dict[str, str] = Field(default_factory=dict, description="repository -> the hub's identifier of its licence")

    def model(self, repo: str) -> HubModel | None:
        return next((model for model in self.models if repo in model.names), None)


@lru_cache
def hub_models(root: Path) -> HubModels:
    """Of a checkout; nothing is known where it has no such file. UserError names file and key."""
    file = root / HUB_MODELS
    if not file.is_file():
        return HubModels(models=[])
    try:
        return HubModels.model_validate(yaml.safe_load(file.read_text()))
    except (yaml.YAMLError, ValidationError) as error:
        raise UserError(f"{HUB_MODELS}: {' '.join(str(error).split())}") from error
