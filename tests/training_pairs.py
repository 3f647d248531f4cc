"""Trainings in two processes and in one: a pair (CPU, gloo) that goes through many, as its start costs more than they do.

A batch of 7 examples is 4 in one process and 3 in the other, in 2 micro-batches and 1, so that a process has to wait for the
other's second pass.
"""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World
from test_training_resume import Stopped, stop_at
from torch.distributed.tensor import DTensor

from prefdist.training import stage
from prefdist.training.learner import Learner
from prefdist.training.parallel import Parallel

DDP: dict[str, Any] = {"sharding": "ddp"}
FSDP: dict[str, Any] = {"sharding": "fsdp"}
RECOMPUTED: dict[str, Any] = {"sharding": "fsdp", "gradient_checkpointing": True}
SEEN = "seen.pt"
CHECKPOINTS = {"checkpoint_every": 2, "probe_every": 1}


@dataclass(frozen=True)
class Training:
    """One training of a pair: `how` it is spread, what is changed of its optimisation, after which step it is stopped."""

    run: str
    how: dict[str, Any]
    optimisation: dict[str, Any] = field(default_factory=dict)
    stop: int = 0


def pair(rank: int, port: int, jobs: list[tuple[Training, Any, Any, Path, Path]]) -> None:
    """One of two processes: what launch.py starts, but for many trainings."""
    torch.set_num_threads(1)
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": port}
    os.environ.update({name: str(value) for name, value in place.items()})
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo"}
    train = stage.train
    for job, spec, inputs, out, scratch in jobs:
        out.mkdir(exist_ok=True)
        stage._probe = stop_at(job.stop)
        stage.train = lambda *arguments, out=out, **options: seen(train, out, *arguments, **options)
        try:
            stage.run(spec, inputs, out, scratch)
        except Stopped:
            assert job.stop
    torch.distributed.destroy_process_group()


IDS = torch.tensor([[1, 5, 9, 30, 7], [1, 8, 8, 2, 100]])


def seen(train: Callable[..., Any], out: Path, parallel: Parallel, *arguments: Any, **options: Any) -> Any:
    """train(), and then what is in memory, written down: what the policy answers, and how much of each model a process has."""
    log = train(parallel, *arguments, **options)
    if parallel.learner.policy is not None:
        logits = parallel.learner.ask(lambda policy: policy(input_ids=IDS).logits.clone())
        if parallel.main:
            parts = held(parallel.learner)
            for stream in arguments[0]:
                for model in filter(None, (getattr(stream.source, name, None) for name in ("prior", "reward_model"))):
                    parts |= {f"frozen {name}": part for name, part in held(model).items()}
            torch.save({"logits": logits, "held": parts}, out / SEEN)
    return log


def held(learner: Learner) -> dict[str, float]:
    """Which part of the weights of each of its models this process holds."""
    parts = {}
    for name, model in learner.named_children():
        weights = list(model.parameters())
        local = sum((weight.to_local() if isinstance(weight, DTensor) else weight).numel() for weight in weights)
        parts[name] = local / sum(weight.numel() for weight in weights)
    return parts


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])


def prepared(world: World, training: Training, out: Path) -> tuple[Training, Any, Any, Path, Path]:
    """With specification, inputs, and folders: a training that was stopped goes on from the scratch folder of its name."""
    spec, inputs = world.training(training.run, **training.optimisation)
    if "probe_every" in training.optimisation:
        inputs["probe"] = world.root
    return training, spec | {"how": training.how}, inputs, out, out.with_name(out.name + ".scratch")


def in_one(world: World, training: Training, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out.mkdir(exist_ok=True)
    monkeypatch.setattr(stage, "_probe", stop_at(training.stop))
    _, *arguments = prepared(world, training, out)
    stage.run(*arguments)


def in_a_pair(world: World, processes: ForkServerContext, trainings: list[tuple[str, Training]], root: Path) -> None:
    jobs = [prepared(world, training, root / name) for name, training in trainings]
    port = free_port()
    started = [processes.Process(target=pair, args=(rank, port, jobs)) for rank in range(2)]
    for process in started:
        process.start()
    for process in started:
        process.join(600)  # seconds on a machine of its own
        if process.is_alive():
            process.kill()
    assert [process.exitcode for process in started] == [0, 0]


def name_of(run: str, how: dict[str, Any]) -> str:
    return f"{run}-{how['sharding']}"


def in_parts(run: str, how: dict[str, Any]) -> list[tuple[str, Training]]:
    """A training by itself, and once more, stopped and gone on with."""
    name = name_of(run, how)
    stops = {"whole": [0], "parts": [5, 0]}
    return [(f"{name}-{kind}", Training(run, how, CHECKPOINTS, stop)) for kind in stops for stop in stops[kind]]
