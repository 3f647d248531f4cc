"""The stage `model`: a model of the hub, or of a local folder, as an artefact."""

from pathlib import Path
from typing import Any

from prefdist.data.hub import fetch_model, take_model
from prefdist.errors import UserError
from prefdist.tokens import checked_codec

OWN = "own"
"""The chat template that the model brings."""


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Weights, configuration and tokenizer; nothing else of the source is taken.

    With a `template` (Jinja, or "own" for the model's) its tokenizer is checked: the template, an EOS, a PAD that differs from
    it, and an embedding for every id. UserError names what is missing.
    """
    if spec["folder"] is not None:
        take_model(Path(spec["folder"]), out)
    else:
        fetch_model(spec["hub"], spec["revision"], out)
    template = spec.get("template")
    if template is not None:
        if template != OWN:
            (out / "chat_template.jinja").write_text(template, encoding="utf-8")
        check_template(out, spec["hub"] or spec["folder"])


def check_template(folder: Path, name: str) -> None:
    """UserError unless the model folder has a chat template and a tokenizer that fits it."""
    if not checked_codec(folder).has_template:
        raise UserError(f"{name}: its tokenizer has no chat template; set template to one, as Jinja")
