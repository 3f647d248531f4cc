"""What is measured: the systems that are compared, the options of each, and which is the unit of the ratios."""

from dataclasses import dataclass, field
from typing import Any

from prefdist.bench.measure_trl import BEST

BATCH_SIZE = 32
STEPS, WARM = 8, 2
"""Optimiser steps of a measurement, and how many of the first are not timed."""
LOGPROBS = {"vocabulary": 50_000, "tokens": 8 * 1000, "hidden": 256}


@dataclass(frozen=True)
class System:
    """One line of the speed table: a training of `responses` responses a prompt by one program with its settings."""

    name: str
    kind: str
    description: str
    responses: int = 2
    options: dict[str, Any] = field(default_factory=dict)

    def spec(self, folder: str, model: str, steps: int, warm: int) -> dict[str, Any]:
        """What worker.py reads."""
        common = {"steps": steps, "warm": warm, "batch_size": BATCH_SIZE, "seed": 0}
        if self.kind == "own":
            common["responses"] = self.responses
        return {"kind": self.kind, "folder": folder, "model": model, "options": {**common, **self.options}}


def _trl(name: str, description: str, options: dict[str, Any], micro_batch_size: int) -> System:
    return System(name, "trl", description, options={"options": options, "micro_batch_size": micro_batch_size})


def _own(name: str, description: str, responses: int, shared: bool) -> System:
    options = {"shared": shared, "micro_batch_size": BATCH_SIZE}
    return System(name, "own", description, responses, options)


PAIRS = [
    _own("prefdist", "our loop at its defaults", 2, True),
    _trl("trl_best", "DPOTrainer: float32, no gradient checkpointing, precomputed reference", BEST, BATCH_SIZE),
    _trl("trl_sorted", "the same, micro-batches of 8, its rows sorted by hand so that each has similar lengths", BEST, 8),
    _trl(
        "trl_default", "DPOTrainer as it comes: bf16 autocast, gradient checkpointing, reference in every step", {}, BATCH_SIZE
    ),
]
RANKINGS = [
    _own("prefdist_n4", "Plackett-Luce over 4 responses, the prompt once", 4, True),
    _own("prefdist_n4_unshared", "the same, a row a response; TRL has no trainer for rankings", 4, False),
]
MODELS = ("1M", "5M")
