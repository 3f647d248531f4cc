"""Two processes are one for what distillation trains on: lists and their sublists, a teacher's laws of tokens, questions.

The trainings are those that the plan of a PAD suite asks for, from samples and scores that the project's own stages make of
tiny models. One pair of processes goes through all of them (training_pairs.py). Bounds: those of
test_training_invariance.py, whose reasons hold here.
"""

from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World, _make
from test_training_invariance import MEAN, check_same, weights
from test_training_resume import Stopped
from training_pairs import CHECKPOINTS, DDP, FSDP, RECOMPUTED, SEEN, Training, in_a_pair, in_one, name_of

from prefdist.config.pad import PadSuite
from prefdist.plan.distillation import Distillation
from prefdist.suites import parse_suite
from prefdist.training import checkpoint

RUNS: dict[str, dict[str, Any]] = {
    "vpd": {"objective": "pad_vpd"},
    "ppd_jsd": {"objective": "pad_ppd_jsd"},
    "ppd_kl": {"objective": "pad_ppd_kl"},
    "ppd_ag": {"objective": "pad_ppd_ag"},
    "top1": {"objective": "pad_top1_jsd"},
    "vpd_parts": {"objective": "pad_vpd", "decomposition": {"size": 2}},
    "ppd_parts": {"objective": "pad_ppd_jsd", "decomposition": {"size": 2, "shuffle": True}},
    "dpo": {"objective": "dpo", "train_on": "best_worst"},
    "simpo": {"objective": "simpo", "train_on": "random_pair"},
    "kd_forward": {"objective": "token_kd_forward", "train_on": "references"},
    "kd_reverse": {"objective": "token_kd_reverse", "train_on": "teacher_responses"},
    "seqkd": {"objective": "sft", "train_on": "teacher_responses"},
}
QUESTIONS = "questions"
"""The teacher's own phase of questions, which no run names."""
FAST = [
    ("vpd", DDP),
    ("ppd_parts", FSDP),
    ("kd_forward", DDP),
    ("kd_reverse", RECOMPUTED),
    ("seqkd", FSDP),
    (QUESTIONS, DDP),
]
"""A list as a whole, sublists, both directions beside a teacher, one response a prompt, questions. `slow` are all others."""
STEPS = {"steps": 3}
"""VPD at its β of 10 takes gradients that nearly cancel, whose rounding Adam makes larger with every step."""


def _suite(world: World) -> PadSuite:
    architecture = world.artefacts["prior"].spec["architecture"]
    optimisation = {"steps": 40, "batch_size": 16, "learning_rate": 2e-2}
    ours = {"steps": 8, "batch_size": 7, "micro_batch_size": 3, "learning_rate": 1e-3}  # as in the testbed's tiny suite
    mapping = {
        "kind": "pad",
        "suite": "tiny_pad",
        "version": "v1",
        "seeds": [0],
        "world": "tiny",
        "train_prompts": 20,
        "models": {
            "student": {"vocabulary": 320, "architecture": architecture, "optimisation": optimisation},
            "teacher": {
                "vocabulary": 320,
                "architecture": architecture | {"hidden_size": 24, "num_hidden_layers": 2},
                "questions": [{"repeats": 1, "max_options": 3, "optimisation": ours}],
                "optimisation": optimisation,
            },
        },
        "samples": {"four": {"n": 4, "draws": 8, "max_new_tokens": 8}},
        "defaults": {
            "student": "student",
            "teacher": "teacher",
            "samples": "four",
            "n": 4,
            "reward": {"alpha": 0.0},
            "optimisation": ours,
        },
        "runs": {name: dict(run) for name, run in RUNS.items()},
        "evaluation": {"prompts": 4, "samples": 2, "max_new_tokens": 8, "candidates": "four", "reward": {"alpha": 0.0}},
    }
    suite = parse_suite(mapping, Path("tiny_pad.yaml"))
    assert isinstance(suite, PadSuite)
    return suite


@pytest.fixture(scope="module")
def pad(world: World) -> World:
    """The trainings of the runs, with all that they are made from."""
    planned = Distillation(_suite(world), world.root)
    trainings = {f"{name}-seed0": planned.policies(name, 0)[-1] for name in RUNS}
    trainings[f"{QUESTIONS}-seed0"] = planned.model("teacher")
    for training in trainings.values():
        for source in training.inputs.values():
            _make(world.root, source)
    return World(world.root, trainings)


@pytest.fixture(scope="module")
def trained(pad: World, processes: ForkServerContext, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the pair made. It stopped `left`, and went on with `joined`, which one process had stopped."""
    root = tmp_path_factory.mktemp("pair")
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Stopped):
        in_one(pad, Training("ppd_parts", {}, CHECKPOINTS, stop=5), root / "joined", patch)
    trainings = [(name_of(run, how), Training(run, how, STEPS)) for run, how in FAST]
    trainings += [
        ("left", Training("kd_reverse", FSDP, CHECKPOINTS, stop=5)),
        ("joined", Training("ppd_parts", DDP, CHECKPOINTS)),
    ]
    in_a_pair(pad, processes, trainings, root)
    return root


@pytest.mark.parametrize(("run", "how"), FAST)
def test_two_processes_are_one(run: str, how: dict[str, Any], trained: Path, pad: World, tmp_path: Path) -> None:
    pad.train(run, tmp_path / "one", **STEPS)
    check_same(tmp_path / "one", trained / name_of(run, how))
    start = weights(pad.root / pad.artefacts[f"{run}-seed0"].inputs["init"].path)
    moved = [(tensor - start[name]).abs().mean() for name, tensor in weights(tmp_path / "one").items()]
    assert max(moved) > 1000 * MEAN


def test_a_teacher_is_sharded_as_its_student_is(trained: Path) -> None:
    """Half of each model's weights in a process: all their tensors have an even number of rows."""
    for name, part in (("kd_forward-ddp", 1.0), ("kd_reverse-fsdp", 0.5)):
        assert torch.load(trained / name / SEEN, weights_only=True)["held"] == {"policy": part, "teacher": part}


def test_resumed_by_fewer(trained: Path, pad: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, each with half a student and half a teacher, stop; one goes on. The teacher is in no checkpoint."""
    training = Training("kd_reverse", {}, CHECKPOINTS)
    in_one(pad, training, tmp_path / "whole", monkeypatch)
    scratch = trained / "left.scratch"
    state = torch.load(scratch / checkpoint.NAME, weights_only=True)
    assert state["step"] == 4
    assert {name.partition(".")[0] for name in state["trainable"]} == {"policy"}
    in_one(pad, training, trained / "left", monkeypatch)
    assert not scratch.exists()
    check_same(tmp_path / "whole", trained / "left")


def test_resumed_by_more(trained: Path, pad: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 prompts by 7 are three epochs of 8 steps, with other sublists in each: the pair goes on with those of the second."""
    in_one(pad, Training("ppd_parts", {}, CHECKPOINTS), tmp_path / "whole", monkeypatch)
    assert not (trained / "joined.scratch").exists()
    check_same(tmp_path / "whole", trained / "joined")


@pytest.mark.slow
def test_every_kind_of_data(pad: World, processes: ForkServerContext, tmp_path: Path) -> None:
    rest = [(run, how) for run in (*RUNS, QUESTIONS) for how in (DDP, FSDP) if (run, how) not in FAST]
    in_a_pair(pad, processes, [(name_of(run, how), Training(run, how, STEPS)) for run, how in rest], tmp_path)
    for run, how in rest:
        pad.train(run, tmp_path / "one", **STEPS)
        check_same(tmp_path / "one", tmp_path / name_of(run, how))
