"""The engines that draw: transformers in this process, or vLLM in its own. Which one is a setting of the suite.

vLLM's modules are imported where it was chosen alone, so that a change in them makes nothing again that it has not made.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor

from prefdist.models import load_frozen
from prefdist.sampling import engine
from prefdist.scoring.sequences import next_logps

VLLM = "prefdist.sampling.vllm.engine"
ABOUT = "engine.json"
"""Beside what another engine than transformers has drawn: its name and version."""


@dataclass(frozen=True)
class Source:
    """A model that is asked, `sample` and `next_logps` of its engine, the responses that are worth one call, and its version.

    sample: as sampling.engine's. next_logps(model, prompts, tokens): as scoring.sequences'.
    about: what responses depend on and the provenance does not say; {} for transformers, which it does say.
    """

    model: Any
    sample: Callable[..., Any]
    next_logps: Callable[..., Tensor]
    rows: int
    about: dict[str, Any]


@contextmanager
def opened(name: str, folder: Path, longest: int, dtype: str = "float32") -> Iterator[Source]:
    """The model in `folder` in the engine of this name; `longest`: tokens of the longest prompt with its response."""
    if name == "vllm":
        module = import_module(VLLM)
        model = module.Vllm(folder, longest=longest, dtype=dtype)
        try:
            yield Source(model, module.sample, module.next_logps, module.ROWS, model.about)
        finally:
            model.close()
    else:
        yield local(load_frozen(folder, dtype))


def write_about(about: dict[str, Any], out: Path) -> None:
    """engine.json, unless the provenance says it all."""
    if about:
        (out / ABOUT).write_text(json.dumps(about) + "\n")


def local(model: Any) -> Source:
    """A model of transformers, or a pair of them, in this process."""
    return Source(model, engine.sample, next_logps, engine.ROWS, {})
