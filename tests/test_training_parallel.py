"""A training in two processes is the training in one: replicated and sharded, whatever is learnt, and resumed.

One pair of processes (CPU, gloo) goes through all trainings of this file, as its start costs more than they do. Bounds: those
of test_training_invariance.py, whose reasons hold here. Batches are of 7 examples: 4 in one process and 3 in the other, in 2
micro-batches and 1, so that a process has to wait for the other's second pass.
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
from conftest import RUNS, World
from test_training_invariance import check_same
from test_training_resume import Stopped, same_training, stop_at

from prefdist.models import load_policy
from prefdist.training import checkpoint, stage
from prefdist.training.parallel import Parallel

DDP, FSDP = {"sharding": "ddp"}, {"sharding": "fsdp"}
RECOMPUTED = {"sharding": "fsdp", "gradient_checkpointing": True}
FAST = [("dpo", DDP), ("dpo_lora", FSDP), ("pmle", FSDP), ("rlhf_ppo", RECOMPUTED)]
"""A pair objective, adapters, a regulariser on fresh samples, a critic and two rollouts. `slow` are all others."""
CHECKPOINTS = {"checkpoint_every": 2, "probe_every": 1}
RESUMED = [("dpo_lora", FSDP), ("rlhf_ppo", DDP), ("rlhf_ppo", FSDP)]


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
        stage._probe = stop_at(job.stop)  # type: ignore[assignment]
        stage.train = lambda *arguments, out=out, **options: seen(train, out, *arguments, **options)
        try:
            stage.run(spec, inputs, out, scratch)
        except Stopped:
            assert job.stop
    torch.distributed.destroy_process_group()


IDS = torch.tensor([[1, 5, 9, 30, 7], [1, 8, 8, 2, 100]])


def seen(train: Callable[..., Any], out: Path, parallel: Parallel, *arguments: Any, **options: Any) -> Any:
    """train(), and then what the policy in memory answers, written down to be compared with what was saved."""
    log = train(parallel, *arguments, **options)
    if parallel.learner.policy is not None:
        logits = parallel.learner.ask(lambda policy: policy(input_ids=IDS).logits.clone())
        if parallel.main:
            torch.save(logits, out / "logits.pt")
    return log


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


@pytest.fixture(scope="module")
def trained(world: World, processes: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pair made. It stopped `left`, and went on with `joined`, which one process had stopped."""
    root = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        in_one(world, Training("rlhf_ppo", {}, CHECKPOINTS, stop=5), root / "joined", patch)
    trainings = [(name_of(run, how), Training(run, how, steps(run))) for run, how in FAST]
    trainings += [("left", Training("dpo", FSDP, CHECKPOINTS, stop=5)), ("joined", Training("rlhf_ppo", FSDP, CHECKPOINTS))]
    trainings += in_parts(*RESUMED[0])
    in_a_pair(world, processes, trainings, root)
    return root


def steps(run: str) -> dict[str, int]:
    """Two rollouts of PPO, or fewer steps than a stopped training needs."""
    return {} if run.endswith("ppo") else {"steps": 4}


def in_parts(run: str, how: dict[str, Any]) -> list[tuple[str, Training]]:
    """A training by itself, and once more, stopped and gone on with."""
    name = name_of(run, how)
    stops = {"whole": [0], "parts": [5, 0]}
    return [(f"{name}-{kind}", Training(run, how, CHECKPOINTS, stop)) for kind in stops for stop in stops[kind]]


@pytest.mark.parametrize(("run", "how"), FAST)
def test_two_processes_are_one(run: str, how: dict[str, Any], trained: Path, world: World, tmp_path: Path) -> None:
    world.train(run, tmp_path / "one", **steps(run))
    check_same(tmp_path / "one", trained / name_of(run, how))


def test_what_is_saved_is_what_was_trained(trained: Path) -> None:
    """Bit for bit; of adapters, up to the rounding of the merge."""
    for name, tolerance in (("dpo-ddp", 0.0), ("rlhf_ppo-fsdp", 0.0), ("dpo_lora-fsdp", 1e-5)):
        wanted = torch.load(trained / name / "logits.pt", weights_only=True)
        with torch.no_grad():
            found = load_policy(trained / name)(input_ids=IDS).logits
        assert wanted.abs().max() > 1
        assert (found - wanted).abs().max() <= tolerance, name


def test_resumed_by_as_many(trained: Path) -> None:
    """Bit for bit, also the optimiser's moments, on which the last steps depend."""
    name = name_of(*RESUMED[0])
    assert same_training(trained / f"{name}-whole", trained / f"{name}-parts")


def test_resumed_by_fewer(trained: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes with a half each stop, one with all goes on."""
    training = Training("dpo", {}, CHECKPOINTS)
    in_one(world, training, tmp_path / "whole", monkeypatch)
    scratch = trained / "left.scratch"
    assert torch.load(scratch / checkpoint.NAME, weights_only=True)["step"] == 4
    in_one(world, training, trained / "left", monkeypatch)
    assert not scratch.exists()
    check_same(tmp_path / "whole", trained / "left")


def test_resumed_by_more(trained: Path, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_one(world, Training("rlhf_ppo", {}, CHECKPOINTS), tmp_path / "whole", monkeypatch)
    assert not (trained / "joined.scratch").exists()
    check_same(tmp_path / "whole", trained / "joined")


@pytest.mark.slow
def test_every_objective(world: World, processes: ForkServerContext, tmp_path: Path) -> None:
    rest = [(run, how) for run in RUNS for how in (DDP, FSDP) if (run, how) not in FAST]
    trainings = [(name_of(run, how), Training(run, how, steps(run))) for run, how in rest]
    for run, how in RESUMED[1:]:
        trainings += in_parts(run, how)
    in_a_pair(world, processes, trainings, tmp_path)
    for run, how in rest:
        world.train(run, tmp_path / "one", **steps(run))
        check_same(tmp_path / "one", tmp_path / name_of(run, how))
    for name in (name_of(run, how) for run, how in RESUMED[1:]):
        assert same_training(tmp_path / f"{name}-whole", tmp_path / f"{name}-parts")
