"""The one training loop, for every objective.

Per optimiser step: each source gives its batch, each micro-batch one forward pass that all terms of the source share, and
the losses are averaged over the global batch, so that micro-batch size, accumulation and processes do not matter. Left
out: what is learnt (learner.py), from what (batch.py, rollouts.py), and by which loss (terms.py).
"""

import math
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from prefdist.config.common import Optimisation
from prefdist.errors import UserError
from prefdist.progress import Progress
from prefdist.training import checkpoint
from prefdist.training.batch import Batch
from prefdist.training.parallel import Parallel
from prefdist.training.terms import Term, policy_metrics


class Source(Protocol):
    """Gives this process's share of the global batch of a step."""

    batch_size: int

    def batch(self, step: int) -> Batch: ...

    def metrics(self) -> dict[str, float]: ...


@dataclass(frozen=True)
class Stream:
    """A source and the terms that its batches feed."""

    source: Source
    terms: Sequence[Term]
    temperature: float = 1.0


def train(
    parallel: Parallel,
    streams: Sequence[Stream],
    settings: Optimisation,
    *,
    pad_id: int,
    scratch: Path,
    seed: int = 0,
    rollout_steps: int = 1,
    probe: Callable[[], float] | None = None,
) -> list[dict[str, float]]:
    """Run all steps, from the last checkpoint in `scratch` if there is one; returns the log, one row a step.

    `seed`: of dropout in adapters. `rollout_steps`: optimiser steps that share a rollout; checkpoints fall between
    rollouts. UserError when the loss is not finite or above max_loss, or the gradient not finite, naming the step, the
    batch's ids and the checkpoint.
    """
    learner = parallel.learner
    optimiser = torch.optim.AdamW(
        learner.trainable().values(),
        lr=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        fused=False,  # fused and plain differ bitwise; resume and CPU runs need one of them
    )
    start, log = checkpoint.load(scratch, learner, optimiser)
    if start and parallel.main:
        print(f"resumed at step {start} from {scratch}", file=sys.stderr)
    every = math.ceil(settings.checkpoint_every / rollout_steps) * rollout_steps
    progress = Progress("step", settings.steps, start, shown=parallel.main)
    for step in range(start, settings.steps):
        began = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = settings.learning_rate * schedule(settings, step)
        # A function of the step, as all else is: no generator's state goes from one step, or run, to the next.
        torch.manual_seed(((seed * 1_000_003 + step) * 4096 + parallel.share.rank) % 2**63)
        row = _step(parallel, streams, settings, pad_id, step, scratch)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        row["seconds"] = time.perf_counter() - began
        if probe is not None and settings.probe_every and (step + 1) % settings.probe_every == 0:
            row["probe"] = probe()
        log.append({"step": step, **row})
        if (step + 1) % every == 0 and step + 1 < settings.steps and (parallel.sharded or parallel.main):
            checkpoint.save(scratch, learner, optimiser, step + 1, log, write=parallel.main)
        progress.show(step + 1, f"loss {row['loss']:.4f}")
    return log


def schedule(settings: Optimisation, step: int) -> float:
    """The factor on the learning rate at a step (from 0): linear warm-up, then the chosen decay to 0 at the end."""
    if step < settings.warmup_steps:
        return (step + 1) / settings.warmup_steps
    done = (step - settings.warmup_steps) / max(1, settings.steps - settings.warmup_steps)
    if settings.schedule == "constant":
        return 1.0
    return 1 - done if settings.schedule == "linear" else 0.5 * (1 + math.cos(math.pi * done))


def _step(
    parallel: Parallel, streams: Sequence[Stream], settings: Optimisation, pad_id: int, step: int, scratch: Path
) -> dict[str, float]:
    """Accumulate and clip the gradient of one optimiser step; returns its metrics, summed over processes."""
    parts = []
    for stream in streams:
        batch = stream.source.batch(step)
        parts += [(stream, micro) for micro in batch.micro_batches(settings.micro_batch_size)]
    passes = parallel.passes(len(parts))
    sums: dict[str, Tensor] = {}
    for number in range(passes):
        stream, micro = parts[min(number, len(parts) - 1)]
        counts = number < len(parts)  # the last part again, at weight 0, while other processes have more of them
        with parallel.accumulate(last=number + 1 == passes):
            packed = micro.packed(pad_id).to(parallel.device)
            micro = micro.to(parallel.device)
            outputs = parallel.module(packed, stream.temperature)
            losses = torch.stack([term(outputs, micro, packed) for term in stream.terms]).sum(0)
            share = losses.sum() / stream.source.batch_size
            _check("loss", float(share.detach()), settings.max_loss, micro.ids, step, scratch)
            # Gradients are averaged over processes; the loss is a sum of shares.
            (share * parallel.share.world * counts).backward()
        found = {name: value / stream.source.batch_size for name, value in policy_metrics(outputs, micro).items()}
        for name, value in {"loss": share.detach(), **found}.items():
            sums[name] = sums.get(name, torch.zeros_like(value)) + value * counts
    tokens = sum(sum(micro.lengths()) for _, micro in parts)
    sums["tokens"] = torch.tensor(float(tokens), device=parallel.device)
    row = {name: float(parallel.sum(value)) for name, value in sums.items()}
    row["grad_norm"] = _clip(parallel, settings.max_grad_norm)
    _check("gradient's norm", row["grad_norm"], math.inf, [i for _, micro in parts for i in micro.ids], step, scratch)
    for stream in streams:
        row |= stream.source.metrics()
    return row


def _clip(parallel: Parallel, limit: float) -> float:
    """Scale the gradient down to the limit; returns the norm that it had, over all processes."""
    norm = torch.nn.utils.clip_grad_norm_(parallel.learner.parameters(), limit)
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def _check(what: str, value: float, limit: float, ids: Sequence[str], step: int, scratch: Path) -> None:
    if not math.isfinite(value) or abs(value) > limit:
        kept = scratch / checkpoint.NAME
        where = f"the last checkpoint is {kept}" if kept.is_file() else "no checkpoint was written yet"
        allowed = f"optimisation.max_loss is {limit}" if math.isfinite(limit) else "it must be finite"
        raise UserError(
            f"step {step}: the {what} is {value} ({allowed}); examples {', '.join(ids[:8])}"
            f"{' …' if len(ids) > 8 else ''}; {where}; lower optimisation.learning_rate"
        )
