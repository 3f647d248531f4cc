"""Checkpoints: weights, optimiser, schedule position and log in one file, replaced atomically.

They lie outside the declared outputs of the workflow, which deletes those before a retry. Sharded tensors are gathered, one
after the other, so that the file is the same however many processes wrote it, and any number of them may go on from it.
"""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils._pytree import tree_map_only

from prefdist.training.learner import Learner

NAME = "checkpoint.pt"


def save(
    folder: Path,
    learner: Learner,
    optimiser: torch.optim.Optimizer,
    step: int,
    log: list[dict[str, float]],
    *,
    write: bool = True,
) -> None:
    """`step` is the number of finished optimiser steps. All processes of a training call it, and one of them writes."""
    state = {
        "step": step,
        "trainable": whole({name: parameter.detach() for name, parameter in learner.trainable().items()}, keep=write),
        "optimiser": whole(optimiser.state_dict(), keep=write),
        "log": log,
    }
    if not write:
        return
    folder.mkdir(parents=True, exist_ok=True)
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
    # Mapped: each of several processes reads what it needs of the one file.
    state: dict[str, Any] = torch.load(folder / NAME, map_location="cpu", mmap=True, weights_only=True)
    restore(learner, state["trainable"])
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    for number, moments in state["optimiser"]["state"].items():
        for name, value in moments.items():
            moments[name] = _placed(value, parameters[number]) if name != "step" else value.clone()
    optimiser.load_state_dict(state["optimiser"])
    return int(state["step"]), list(state["log"])


def whole(tree: Any, *, keep: bool) -> Any:
    """The tree with its sharded tensors gathered on the CPU where they are kept, and dropped elsewhere. Others stay."""

    def gathered(tensor: DTensor) -> Tensor | None:
        full = tensor.full_tensor()
        return full.cpu() if keep else None

    return tree_map_only(DTensor, gathered, tree)


@torch.no_grad()
def restore(learner: Learner, weights: dict[str, Tensor]) -> None:
    """Set the trainable parameters to whole tensors."""
    for name, parameter in learner.trainable().items():
        parameter.copy_(_placed(weights[name], parameter))


def _placed(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A copy on the parameter's device; of a sharded one, the same part of it."""
    if isinstance(parameter, DTensor):
        placed: Tensor = distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)
        return placed.clone()
    return tensor.to(parameter.device, copy=True)
