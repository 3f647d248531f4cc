"""The work of an artefact: floating-point operations, passes through a model, bytes on disk, from sizes and lengths.

A forward pass over T tokens of which t are predicted costs 2·(body·T + head·t) operations: two a weight and token, the LM head
at predicted positions only; a packed row holds a prompt once and its n responses. Training costs three forward passes (one
forward, two backward: 6·N·tokens), with adapters two. Sampling costs one forward pass, with an efficiency of its own.
Left out: the quadratic part of attention (under a tenth up to some thousand tokens), padding, the optimiser's step.
"""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefdist.forecast.lengths import Lengths, lengths_of
from prefdist.forecast.parameters import Size, size_of
from prefdist.hub_models import hub_models
from prefdist.plan.graph import Artefact

ROWS, TOKENS = 512, 8192
"""Responses drawn side by side (sampling/engine.py) and tokens scored side by side (scoring/sequences.py)."""


class UnknownWork(Exception):
    """Says what is not known: the size of a model that is not there yet, say."""


@dataclass(frozen=True)
class Work:
    """Operations and passes by phase (train, score, sample; in 16 bits train_half, score_half); bytes of what stays on disk."""

    flops: dict[str, float] = field(default_factory=dict)
    passes: dict[str, float] = field(default_factory=dict)
    disk: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(_sum(self.flops, other.flops), _sum(self.passes, other.passes), self.disk + other.disk)

    def __mul__(self, times: float) -> "Work":
        return Work(
            {phase: times * value for phase, value in self.flops.items()},
            {phase: times * value for phase, value in self.passes.items()},
            times * self.disk,
        )

    @property
    def total_flops(self) -> float:
        return sum(self.flops.values())


def _sum(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {phase: one.get(phase, 0.0) + other.get(phase, 0.0) for phase in one | other}


def forward(size: Size, prompt: float, response: float, n: float) -> float:
    """Operations of one packed row: a prompt and n responses."""
    return 2 * (size.body * (prompt + n * response) + size.predicts * n * response)


def scored(size: Size, rows: float, prompt: float, response: float, n: float, *, half: bool = False) -> Work:
    """Log-probabilities (or rewards) of n responses to each of `rows` prompts, in batches of TOKENS tokens."""
    phase = "score_half" if half else "score"
    passes = math.ceil(rows * (prompt + n * response) / TOKENS)
    return Work({phase: rows * forward(size, prompt, response, n)}, {phase: passes})


def sampled(size: Size, rows: float, prompt: float, response: float, n: float) -> Work:
    """n responses to each of `rows` prompts: a pass for the prompts and one a token, for ROWS responses at a time."""
    passes = math.ceil(rows * n / ROWS) * (1 + response)
    return Work({"sample": rows * forward(size, prompt, response, n)}, {"sample": passes})


def stored(rows: float, bytes_a_row: float) -> Work:
    """A table."""
    return Work(disk=rows * bytes_a_row)


def response_bytes(tokens: float) -> float:
    """Of a sampled response: its ids and text (about 8 bytes a token before Parquet's encodings) and its other columns."""
    return 60 + 8 * tokens


SCORE_BYTES = 40
"""Of a row of numbers with its key."""


class Facts:
    """Sizes and lengths, looked up once; `root` is the checkout, in which a model's config.json and text may lie.

    `listed` are the models of the hub that are not fetched, whose shapes workflow/hub_models.yaml gave.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.listed: set[str] = set()
        self._lengths: dict[str, Lengths] = {}

    @property
    def counted(self) -> bool:
        """Whether all texts that were asked for are made, so that their tokens were counted."""
        return all(lengths.counted for lengths in self._lengths.values())

    def lengths(self, artefact: Artefact) -> Lengths:
        """Of the text, prompts or problems that an artefact is made from."""
        return self.lengths_of(artefact.inputs["text" if "text" in artefact.inputs else "problems"])

    def reference(self, artefact: Artefact) -> float:
        """Tokens of a reference of its text; where none were counted, the limit that stored responses are cut at.

        UnknownWork if there is neither.
        """
        lengths, text = self.lengths(artefact), artefact.inputs["text" if "text" in artefact.inputs else "problems"]
        limit = text.spec.get("max_response_tokens")
        if lengths.reference is None and limit is None:
            raise UnknownWork(f"the references of {text.name} are not counted yet")
        return lengths.response(2**31 if limit is None else limit)

    def lengths_of(self, text: Artefact) -> Lengths:
        """Of an artefact with a table of prompts."""
        if str(text.path) not in self._lengths:
            self._lengths[str(text.path)] = lengths_of(text, self.root)
        return self._lengths[str(text.path)]

    def size(self, artefact: Artefact) -> Size:
        """Of a model. UnknownWork, naming it, where its configuration is not there or of a family that is not known."""
        spec = artefact.spec
        if artefact.stage == "model":
            folder = self.root / (spec["folder"] or artefact.path)
            return self._stored(folder, spec["hub"] or spec["folder"])
        if spec.get("init") == "scratch":
            config = {**spec["architecture"], "vocab_size": artefact.inputs["text"].spec["vocabulary"]}
            return self._known(size_of(config), str(config.get("model_type")))
        if "init" in artefact.inputs:
            return self.size(artefact.inputs["init"])
        return self._stored(self.root / spec["init"], spec["init"])

    def _stored(self, folder: Path, name: str) -> Size:
        file = folder / "config.json"
        if file.is_file():
            return self._known(size_of(json.loads(file.read_text())), name)
        listed = hub_models(self.root).model(name)
        if listed is None:
            raise UnknownWork(f"{name} is not fetched yet")
        self.listed.add(name)
        return self._known(size_of(listed.config), name)

    def _known(self, size: Size | None, name: str) -> Size:
        if size is None:
            raise UnknownWork(f"no formula for the size of {name}")
        return size


Formula = Callable[[Artefact, Facts], Work]


def spec_of(artefact: Artefact, *keys: str) -> tuple[Any, ...]:
    return tuple(artefact.spec[key] for key in keys)
