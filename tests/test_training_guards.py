"""A training that cannot go well stops at once, and says where: before the first step, or at the step that went wrong."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World
from torch import Tensor

from prefdist.config.common import Optimisation
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.training import checkpoint, examples, loop, stage
from prefdist.training.batch import Dataset, Share
from prefdist.training.learner import Learner
from prefdist.training.parallel import Parallel


@pytest.mark.parametrize("cause", ["loss", "gradient"])
def test_an_explosion_names_step_examples_and_checkpoint(
    cause: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a first step of 100 the loss is above 1e4. Where a gradient overflows depends on the processor: its norm is said
    to be nan from the second step on.

    A loss is known for each micro-batch (3 examples at most), the gradient for all 7.
    """
    learning_rate = 100.0 if cause == "loss" else 1e-3
    spec, inputs = world.training("sft", learning_rate=learning_rate, schedule="constant", checkpoint_every=1, steps=4)
    scratch = tmp_path / "scratch"
    if cause == "gradient":
        norms = iter([torch.tensor(1.0), torch.tensor(torch.nan)])
        monkeypatch.setattr(torch.nn.utils, "clip_grad_norm_", lambda *_: next(norms))
    with pytest.raises(UserError) as error:
        stage.run(spec, inputs, tmp_path / "out", scratch)
    message = str(error.value)
    reason = r"the loss is \S+ \(optimisation.max_loss is 10000.0\)" if cause == "loss" else "the gradient's norm is nan"
    assert re.match(f"step 1: {reason}", message)
    assert message.endswith(f"the last checkpoint is {scratch / checkpoint.NAME}; lower optimisation.learning_rate")
    data = Dataset(examples.pairs(inputs["preferences"], world.codec, "train"), 7, 0, Share())
    named = message.split("examples ")[1].split(";")[0].split(", ")
    batch = data.batch(1)
    assert set(named) == set((next(batch.micro_batches(3)) if cause == "loss" else batch).ids)
    assert not (tmp_path / "out").exists()


def test_a_gradient_that_is_no_number_takes_no_step(world: World, tmp_path: Path) -> None:
    """√(x − x) is 0 and its derivative infinite: the loss alone shows nothing, and the weights would be lost."""
    policy = world.policy("prior")
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    data = Dataset(examples.pairs(world.folder("preferences"), world.codec, "train"), 7, 0, Share())

    def root(outputs: Any, *_: Any) -> Tensor:
        logp = outputs["policy"].sum((-1, -2))
        return (logp - logp.detach()).sqrt()

    settings = Optimisation(steps=2, batch_size=7, micro_batch_size=3, learning_rate=1e-3)
    with pytest.raises(UserError, match=r"step 0: the gradient's norm is (nan|inf) .*; no checkpoint was written yet"):
        loop.train(
            Parallel(Learner(policy)),
            [loop.Stream(data, [root])],
            settings,
            pad_id=world.codec.pad_id,
            scratch=tmp_path,
        )
    assert all(torch.equal(tensor, before[name]) for name, tensor in policy.state_dict().items())


def with_reference(world: World, out: Path, change: Any) -> dict[str, Path]:
    """The inputs of DPO with other reference log-probabilities."""
    _, inputs = world.training("dpo")
    rows = tables.read_table(inputs["reference"] / "logps.parquet", tables.LOGPS)
    out.mkdir()
    tables.write_table(out / "logps.parquet", [row | change(row) for row in rows], tables.LOGPS)
    return inputs | {"reference": out}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda row: {"logp_chosen": row["logp_chosen"] + 0.01}, r"step 0: example .* starts elsewhere .*1\.00e-02 nats"),
        (lambda row: {"logp_chosen": row["logp_rejected"], "logp_rejected": row["logp_chosen"]}, "no step was taken"),
        (lambda row: {"logp_rejected": float("-inf")}, "logps.parquet: .* pairs are not finite, first"),
        (lambda row: {"logp_rejected": float("nan")}, "logps.parquet: .* pairs are not finite, first"),
        (lambda row: {"pair_id": "x" + row["pair_id"]}, "logps.parquet: no log-probabilities of .* pairs"),
    ],
)
def test_a_wrong_reference_is_refused(change: Any, message: str, world: World, tmp_path: Path) -> None:
    """0.01 nats is ten times the gate's tolerance, and a hundredth of what another checkpoint makes."""
    inputs = with_reference(world, tmp_path / "reference", change)
    spec, _ = world.training("dpo", checkpoint_every=1)
    with pytest.raises(UserError, match=message):
        stage.run(spec, inputs, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()


def test_another_prior_is_refused(world: World, tmp_path: Path) -> None:
    """On-policy objectives hold the fresh policy against the prior itself."""
    spec, inputs = world.training("rlhf_rloo")
    with pytest.raises(UserError, match=r"step 0: example .* starts elsewhere than its reference"):
        stage.run(spec, inputs | {"prior": world.folder("target")}, tmp_path / "out", tmp_path / "scratch")


def test_the_first_loss_of_dpo_is_ln_2(world: World, tmp_path: Path) -> None:
    log = world.train("dpo", tmp_path / "out")
    assert log[0]["loss"] == pytest.approx(0.693147, abs=1e-4)  # the cached reference is rounded apart from the policy
    assert log[1]["loss"] != pytest.approx(0.693147, abs=1e-4)


@pytest.mark.parametrize("objective", ["pmle", "rlhf_ppo"])
def test_rollouts_at_another_temperature_pass_the_gate(objective: str, world: World, tmp_path: Path) -> None:
    """Their reference column is at that temperature, and so must be what it is compared with."""
    spec, inputs = world.training(objective, steps=4)
    spec["rollouts"]["temperature"] = 0.7
    stage.run(spec, inputs, tmp_path / "out", tmp_path / "scratch")
