"""How the processes of a training are started, and how they end: together, with one error, and with the checkpoint left."""

import os
import signal
import subprocess
import sys
import time
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from conftest import World
from test_training_invariance import check_same

from prefdist import artefacts
from prefdist.errors import UserError
from prefdist.training import checkpoint, launch


@pytest.mark.parametrize(
    ("gpus", "batches", "wanted", "count"),
    [(0, (32, None), None, 1), (4, (32, None), None, 4), (4, (32, 2), None, 2), (4, (3, 8), None, 3), (0, (8, None), 2, 2)],
)
def test_as_many_as_there_are_gpus(
    gpus: int, batches: tuple[int, int | None], wanted: int | None, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One each, unless a batch has fewer examples; on CPUs one, unless more are asked for."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    rollouts = {"batch_size": batches[1]} if batches[1] else None
    assert launch.processes({"optimisation": {"batch_size": batches[0]}, "rollouts": rollouts}, wanted) == count


@pytest.mark.parametrize(("gpus", "wanted"), [(0, 0), (2, 3), (2, -1)])
def test_more_than_there_are_gpus_are_refused(gpus: int, wanted: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
    with pytest.raises(UserError, match=rf"--processes is {wanted}"):
        launch.processes({"optimisation": {"batch_size": 32}}, wanted)


@pytest.mark.parametrize(
    ("rollouts", "key"), [(None, "optimisation.batch_size is 4"), ({"batch_size": 3}, "rollouts.batch_size is 3")]
)
def test_more_than_a_batch_has_examples_are_refused(rollouts: dict[str, int] | None, key: str) -> None:
    """Before any process is started."""
    with pytest.raises(UserError, match=rf"^--processes is 5, and {key}: each needs an example; start fewer, or raise"):
        launch.processes({"optimisation": {"batch_size": 4}, "rollouts": rollouts}, 5)
    assert launch.processes({"optimisation": {"batch_size": 4}, "rollouts": rollouts}, 3) == 3


@pytest.fixture
def quick_start(processes: ForkServerContext, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes forked from the server that has imported the packages already; a spawned one imports them for seconds."""
    monkeypatch.setattr(launch, "LaunchConfig", partial(launch.LaunchConfig, start_method="forkserver"))


def test_the_first_error_is_the_one_that_is_told(quick_start: None, world: World, tmp_path: Path) -> None:
    """A loss that is too large in one process: it says so itself, and the other, which waits for it, says nothing."""
    spec, inputs = world.training("sft", learning_rate=100.0, schedule="constant", steps=4)
    (tmp_path / "out").mkdir()
    with pytest.raises(UserError, match=r"^step 1: the loss is \S+ \(optimisation.max_loss is 10000.0\); examples "):
        launch.run(spec | {"how": {"processes": 2}}, inputs, tmp_path / "out", tmp_path / "scratch")


def test_another_error_comes_with_its_traceback(quick_start: None, world: World, tmp_path: Path) -> None:
    spec, inputs = world.training("dpo")
    with pytest.raises(RuntimeError, match=r"(?s)process \d of 2 of the training failed.*Traceback.*KeyError: 'text'"):
        launch.run(spec | {"how": {"processes": 2}}, {"preferences": inputs["preferences"]}, tmp_path, tmp_path / "scratch")


def make(world: World, run: str, *arguments: str) -> "subprocess.Popen[str]":
    """`prefdist make` of a training of the tiny suite, on CPUs."""
    path = str(world.artefacts[f"{run}-seed0"].path)
    command = [sys.executable, "-m", "prefdist.cli", "make", path, "--suite", "tiny", *arguments]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=world.root, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.slow
def test_make_in_two_processes(world: World, tmp_path: Path) -> None:
    """As a user does it: the artefact is what one process makes, and says how it was made."""
    started = make(world, "simpo", "--processes", "2")
    _, said = started.communicate(timeout=600)
    assert started.returncode == 0, said
    out = world.root / world.artefacts["simpo-seed0"].path
    artefacts.verify(out)
    assert artefacts.provenance(out)["how"] == {"processes": 2}
    assert all(left.suffix == ".lock" for left in out.parent.glob(".*")), "a process left its folder behind"
    world.train("simpo", tmp_path / "one")
    check_same(tmp_path / "one", out)
    again = make(world, "simpo")  # in one process now: the same artefact
    assert "verified and kept" in again.communicate(timeout=600)[1]


@pytest.mark.slow
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 128 + signal.SIGTERM), (signal.SIGINT, 128 + signal.SIGINT)])
def test_a_signal_ends_all(signum: int, code: int, world: World, tmp_path: Path) -> None:
    """The checkpoint stays, nothing else does, and no process."""
    spec, inputs = world.training("ipo", steps=100_000, checkpoint_every=1)
    scratch, out = tmp_path / "scratch", tmp_path / "out"
    program = (
        "import sys, torch; from pathlib import Path; from prefdist import artefacts; from prefdist.training import launch\n"
        "if __name__ == '__main__':\n"
        f"    spec, inputs = {spec | {'how': {'processes': 2}}!r}, { ({k: str(v) for k, v in inputs.items()})!r}\n"
        "    inputs = {role: Path(path) for role, path in inputs.items()}\n"
        f"    artefacts.make(Path({str(out)!r}), identity={{}}, inputs=inputs,\n"
        f"        run=lambda folder: launch.run(spec, inputs, folder, Path({str(scratch)!r})))\n"
    )
    (tmp_path / "program.py").write_text(program)
    started = psutil.Popen([sys.executable, str(tmp_path / "program.py")], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (scratch / checkpoint.NAME).is_file() and time.monotonic() < deadline:
        time.sleep(0.2)
    family = started.children(recursive=True)
    assert len(family) >= 2
    started.send_signal(signum)
    _, said = started.communicate(timeout=120)
    assert started.returncode == code, said
    assert "Traceback" not in said
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    assert torch.load(scratch / checkpoint.NAME, weights_only=True)["step"] > 0
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".tmp")]
    assert not out.exists()


@pytest.mark.slow
def test_a_killed_process_ends_all(quick_start: None, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the kernel does when memory runs out."""
    monkeypatch.setattr(launch, "_one", kill_second)
    spec, inputs = world.training("dpo")
    with pytest.raises(UserError, match=r"process 1 of 2 of the training was killed \(SIGKILL"):
        launch.run(spec | {"how": {"processes": 2}}, inputs, tmp_path, tmp_path / "scratch")


def kill_second(*_: Any) -> None:
    if os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(600)
