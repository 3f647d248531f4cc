"""A training in two processes is the training in one: replicated and sharded, whatever is learnt, and resumed.

One pair of processes goes through all trainings of this file (training_pairs.py). Bounds: those of
test_training_invariance.py, whose reasons hold here. (Lists, teachers and questions: test_training_parallel_pad.py.)
"""

from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import RUNS, World
from test_training_invariance import check_same
from test_training_resume import Stopped, same_training
from training_pairs import CHECKPOINTS, DDP, FSDP, IDS, RECOMPUTED, SEEN, Training, in_a_pair, in_one, in_parts, name_of

from prefdist.models import load_policy
from prefdist.training import checkpoint

FAST = [("dpo", DDP), ("dpo_lora", FSDP), ("pmle", FSDP), ("rlhf_ppo", RECOMPUTED)]
"""A pair objective, adapters, a regulariser on fresh samples, a critic and two rollouts. `slow` are all others."""
RESUMED = [("dpo_lora", FSDP), ("rlhf_ppo", DDP), ("rlhf_ppo", FSDP)]


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


@pytest.mark.parametrize(("run", "how"), FAST)
def test_two_processes_are_one(run: str, how: dict[str, Any], trained: Path, world: World, tmp_path: Path) -> None:
    world.train(run, tmp_path / "one", **steps(run))
    check_same(tmp_path / "one", trained / name_of(run, how))


def test_what_is_saved_is_what_was_trained(trained: Path) -> None:
    """Bit for bit; of adapters, up to the rounding of the merge."""
    for name, tolerance in (("dpo-ddp", 0.0), ("rlhf_ppo-fsdp", 0.0), ("dpo_lora-fsdp", 1e-5)):
        wanted = torch.load(trained / name / SEEN, weights_only=True)["logits"]
        with torch.no_grad():
            found = load_policy(trained / name)(input_ids=IDS).logits
        assert wanted.abs().max() > 1
        assert (found - wanted).abs().max() <= tolerance, name


def test_a_process_holds_all_or_half(trained: Path) -> None:
    """Sharded, half of every model: numbers agree without it, too. The critic's head has one row, 16 of its 7744 weights."""
    sharded = dict.fromkeys(("policy", "critic", "frozen policy", "frozen scorer"), 0.5)
    for name, expected in (("dpo-ddp", {"policy": 1.0}), ("rlhf_ppo-fsdp", sharded)):
        found = torch.load(trained / name / SEEN, weights_only=True)["held"]
        assert found == pytest.approx(expected, abs=16 / 7744)


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
