"""A training that was stopped anywhere and run again ends with the weights of one that was never stopped, bit for bit."""

import json
import os
import random
import signal
import time
from collections.abc import Callable
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUNS, World, read_log

from prefdist import artefacts
from prefdist.training import checkpoint, stage


def same_training(a: Path, b: Path) -> bool:
    """All weights bitwise equal (adapters too), and the logs equal."""
    weights = sorted(file.relative_to(a) for file in a.rglob("*.safetensors"))
    assert weights == sorted(file.relative_to(b) for file in b.rglob("*.safetensors"))
    assert weights
    return read_log(a) == read_log(b) and all((a / name).read_bytes() == (b / name).read_bytes() for name in weights)


class Stopped(Exception):
    pass


def stop_at(step: int) -> Callable[..., Callable[[], float]]:
    """In place of the probe, which is called after every step: raises at the given one (from 1), once."""
    calls = 0

    def probe() -> float:
        nonlocal calls
        calls += 1
        if calls == step:
            raise Stopped
        return 0.0

    return lambda *_: probe


@pytest.mark.parametrize("run", RUNS)
def test_stopped_by_an_exception(run: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after steps 3 and 6 of 8, with checkpoints every 2: the steps since the last one are taken again."""
    spec, inputs = world.training(run, checkpoint_every=2, probe_every=1)
    inputs["probe"] = world.root
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(stage, "_probe", stop_at(0))
    stage.run(spec, inputs, tmp_path / "whole", tmp_path / "unused")
    started_at: list[int] = []
    for stop in (3, 6):
        monkeypatch.setattr(stage, "_probe", stop_at(stop - (started_at[-1] if started_at else 0)))
        with pytest.raises(Stopped):
            stage.run(spec, inputs, tmp_path / "parts", scratch)
        started_at.append(torch.load(scratch / checkpoint.NAME, weights_only=True)["step"] if list(scratch.glob("*")) else 0)
    # A rollout of PPO feeds 4 steps here, and no checkpoint falls inside of one.
    assert started_at == ([0, 4] if run.endswith("ppo") else [2, 4])
    monkeypatch.setattr(stage, "_probe", stop_at(0))
    stage.run(spec, inputs, tmp_path / "parts", scratch)
    assert same_training(tmp_path / "whole", tmp_path / "parts")
    assert [row["step"] for row in read_log(tmp_path / "parts")] == list(range(8))
    assert not scratch.exists()


def make_as_the_cli_does(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """What the killed processes run. Each is a fresh one, so nothing but the disk carries state over."""
    torch.set_num_threads(1)
    artefacts.make(out, identity={}, inputs=inputs, run=lambda folder: stage.run(spec, inputs, folder, scratch))


def finished_steps(scratch: Path) -> int:
    try:
        return int(torch.load(scratch / checkpoint.NAME, weights_only=True)["step"])
    except FileNotFoundError:
        return 0


def kill_at(process: BaseProcess, step: int, scratch: Path, delay: float) -> None:
    """SIGKILL once `step` steps are in a checkpoint and `delay` seconds have gone by."""
    process.start()
    deadline = time.monotonic() + 60
    while process.is_alive() and finished_steps(scratch) < step and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)


@pytest.mark.parametrize("run", ["dpo", "dpo_lora", "pmle", "reverse_kl_ppo"])
def test_killed(run: str, world: World, tmp_path: Path, processes: ForkServerContext) -> None:
    """SIGKILL three times, within a step or within the writing of a checkpoint: there is one after every step.

    (After every rollout for PPO.) A busy machine may kill later than asked, which the number of steps leaves room for.
    """
    steps = 60
    spec, inputs = world.training(run, steps=steps, checkpoint_every=1)
    stage.run(spec, inputs, tmp_path / "whole", tmp_path / "unused")
    out, scratch = tmp_path / "parts", tmp_path / "scratch"
    arguments = (spec, inputs, out, scratch)
    generator = random.Random(run)
    reached = [0]
    for more in (1, 6, 6):
        process = processes.Process(target=make_as_the_cli_does, args=arguments)
        kill_at(process, reached[-1] + more, scratch, generator.uniform(0, 0.01))
        assert process.exitcode == -signal.SIGKILL, "the training ended before it could be killed"
        assert not out.exists()
        reached.append(finished_steps(scratch))
    assert 0 < reached[1] < reached[2] < reached[3] < steps
    last = processes.Process(target=make_as_the_cli_does, args=arguments)
    last.start()
    last.join(60)
    assert last.exitcode == 0
    assert same_training(tmp_path / "whole", out)
    assert [row["step"] for row in read_log(out)] == list(range(steps))
    assert artefacts.verify(out)


def test_a_checkpoint_is_replaced_whole(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it writes a checkpoint leaves the one before it."""
    spec, inputs = world.training("dpo", checkpoint_every=2)
    stage.run(spec, inputs, tmp_path / "whole", tmp_path / "unused")
    saves = 0

    def half_a_save(state: dict[str, Any], handle: Any) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:
            handle.write(b"PK\x03\x04 half")
            raise Stopped
        torch_save(state, handle)

    torch_save = torch.save
    monkeypatch.setattr(torch, "save", half_a_save)
    with pytest.raises(Stopped):
        stage.run(spec, inputs, tmp_path / "parts", tmp_path / "scratch")
    monkeypatch.undo()
    assert finished_steps(tmp_path / "scratch") == 4
    stage.run(spec, inputs, tmp_path / "parts", tmp_path / "scratch")
    assert same_training(tmp_path / "whole", tmp_path / "parts")


def test_the_comparison_sees_a_difference(world: World, tmp_path: Path) -> None:
    """Another seed is another training; and a log with a changed value is noticed."""
    spec, inputs = world.training("dpo")
    stage.run(spec, inputs, tmp_path / "a", tmp_path / "unused")
    stage.run(spec | {"seed": 1}, inputs, tmp_path / "b", tmp_path / "unused")
    stage.run(spec, inputs, tmp_path / "c", tmp_path / "unused")
    assert not same_training(tmp_path / "a", tmp_path / "b")
    assert same_training(tmp_path / "a", tmp_path / "c")
    rows = read_log(tmp_path / "c")
    rows[3]["loss"] += 1e-7
    (tmp_path / "c" / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert not same_training(tmp_path / "a", tmp_path / "c")
