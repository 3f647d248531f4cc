"""A learner in all processes of a training: replicated (DDP) or sharded (FSDP), on GPUs (NCCL) or CPUs (gloo).

The loop sees one module, its share of the work, and sums over processes. Process group, devices, DDP and sums are
accelerate's; sharding is torch's fully_shard itself, which accelerate wraps for GPUs alone. Left out: starting the
processes (launch.py).
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

from prefdist.models import Scorer
from prefdist.training.batch import Share
from prefdist.training.learner import Learner


class Parallel:
    """`learner` moved to this process's device and joined with those of the others.

    sharding: "ddp" (every process has all weights) or "fsdp" (a part of weights, gradients and optimiser state; frozen
    models inside the learner too). One process has all in either case.
    """

    def __init__(self, learner: Learner, sharding: str = "ddp") -> None:
        from accelerate import Accelerator

        self._accelerator: Any = Accelerator(cpu=not torch.cuda.is_available())
        self.learner = learner
        self.device: torch.device = self._accelerator.device
        self.main: bool = self._accelerator.is_main_process
        self.share = Share(self._accelerator.process_index, self._accelerator.num_processes)
        self.sharded = sharding == "fsdp" and self.share.world > 1
        self.module: nn.Module = learner
        if self.sharded:
            _shard(learner, self.device.type, self.share.world)
        else:
            learner.to(self.device)
            if self.share.world > 1:
                self.module = self._accelerator.prepare_model(learner)

    def place(self, frozen: Learner) -> Learner:
        """Models that are asked and do not learn, on this process's device, in parts where the learner is."""
        if self.sharded:
            _shard(frozen, self.device.type, self.share.world)
        else:
            frozen.to(self.device)
        return frozen

    def sum(self, value: Tensor) -> Tensor:
        """Over processes; all of them get it."""
        total: Tensor = self._accelerator.reduce(value, "sum")
        return total

    def passes(self, count: int) -> int:
        """How often this process must go through the module where it has work for `count` times.

        A pass through a sharded module needs all processes: as many as the busiest has work for.
        """
        if not self.sharded:
            return count
        most = torch.tensor(count, device=self.device)
        torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
        return int(most)

    def accumulate(self, last: bool) -> AbstractContextManager[Any]:
        """Around one of several backward passes of a step: replicas add their gradients up in the last one.

        Shards do so in each, as a process that kept a whole gradient would need the memory that sharding is to save.
        """
        if last or self.sharded or self.share.world == 1:
            return nullcontext()
        waiting: AbstractContextManager[Any] = self._accelerator.no_sync(self.module)
        return waiting


def checkpoint_activations(learner: Learner) -> None:
    """Keep what enters each transformer block alone, and compute the rest again in the backward pass."""
    for module in learner.children():
        model: Any = module.model if isinstance(module, Scorer) else module
        model.activation_checkpointing_enable({"use_reentrant": False})
    learner.train()  # transformers recomputes in training mode alone; nothing is dropped at random in it (models.py)


def _shard(learner: Learner, device: str, world: int) -> None:
    """Each transformer block is gathered by itself, when its turn comes; all else with the learner as a whole."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    mesh = init_device_mesh(device, (world,))
    for block in [module for module in learner.modules() if isinstance(module, GradientCheckpointingLayer)]:
        fully_shard(block, mesh=mesh)
    # A pass that is followed by no backward pass leaves nothing gathered.
    frozen = not learner.trainable()
    fully_shard(learner, mesh=mesh, reshard_after_forward=True if frozen else None)
    register_fsdp_forward_method(learner, "whole")
