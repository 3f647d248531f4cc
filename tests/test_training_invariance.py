"""A step is the same whatever it is split over: micro-batches, ragged ones, and processes."""

import os
import socket
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import OBJECTIVES, World, read_log
from safetensors.torch import load_file
from torch import Tensor

from prefdist.training import stage

STEPS, BATCH = 8, 7  # 7 examples: no split of them is even


def run(world: World, objective: str, out: Path, **optimisation: Any) -> tuple[list[dict[str, float]], dict[str, Tensor]]:
    log = world.train(objective, out, steps=STEPS, batch_size=BATCH, **optimisation)
    return log, load_file(out / "model.safetensors")
