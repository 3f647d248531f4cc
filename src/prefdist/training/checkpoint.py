"""Checkpoints: weights, optimiser, schedule position, random state and log in one file, replaced atomically.

They lie outside the declared outputs of the workflow, which deletes those before a retry.
"""

import os
from pathlib import Path
from typing import Any

import torch

from prefdist.training.learner import Learner

NAME = "checkpoint.pt"


def save(folder: Path, learner: Learner, optimiser: torch.optim.Optimizer, step: int, log: list[dict[str, float]]) -> None:
    """`step` is the number of finished optimiser steps."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "step": step,
        "trainable": {name: parameter.detach() for name, parameter in learner.trainable().items()},
        "optimiser": optimiser.state_dict(),
        "random_state": torch.get_rng_state(),
        "log": log,
    }
    temporary = folder / f"{NAME}.tmp"
    try:
        with temporary.open("wb") as handle:
            torch.save(state, handle)
            handle.flush()
            os.fsync(handle.fileno())
        os.replace(temporary, folder / NAME)
    finally:
        temporary.unlink(missing_ok=True)  # half a checkpoint would keep a full disk full


def load(folder: Path, learner: Learner, optimiser: torch.optim.Optimizer) -> tuple[int, list[dict[str, float]]]:
    """Restore the last checkpoint into learner and optimiser: (finished steps, log); (0, []) if there is none."""
    if not (folder / NAME).is_file():
        return 0, []
    device = next(learner.parameters()).device
    state: dict[str, Any] = torch.load(folder / NAME, map_location=device, weights_only=True)
    with torch.no_grad():
        for name, parameter in learner.trainable().items():
            parameter.copy_(state["trainable"][name])
    optimiser.load_state_dict(state["optimiser"])
    torch.set_rng_state(state["random_state"].cpu())
    return int(state["step"]), list(state["log"])
