"""The stage `model`: a model of the hub, or of a local folder, as an artefact."""

from pathlib import Path
from typing import Any

from prefdist.data.hub import fetch_model, take_model


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Weights, configuration and tokenizer; nothing else of the source is taken."""
    if spec["folder"] is not None:
        take_model(Path(spec["folder"]), out)
    else:
        fetch_model(spec["hub"], spec["revision"], out)
