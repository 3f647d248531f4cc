"""bfloat16 where it is asked for, float32 where it matters; activations computed again; what an artefact is named by."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World, read_log
from test_training_invariance import check_same

from prefdist.config.common import Optimisation
from prefdist.tokens import pack
from prefdist.training import checkpoint, stage
from prefdist.training.learner import Learner
from prefdist.training.parallel import checkpoint_activations

BF16 = 2.0**-8
"""Largest relative error of rounding to bfloat16, which keeps 8 bits."""


def test_only_what_changes_values_is_part_of_an_artefact() -> None:
    """The defaults leave specifications as they were before there was a choice: digests hang on it."""
    plain = Optimisation(steps=1, learning_rate=1.0)
    how = {"sharding": "fsdp", "gradient_checkpointing": True}
    other = Optimisation(steps=1, learning_rate=1.0, **how)
    assert plain.model_dump(mode="json") == other.model_dump(mode="json")
    assert not {"precision", *how} & plain.model_dump().keys()
    assert (plain.how(), other.how()) == ({}, how)
    halved = Optimisation(steps=1, learning_rate=1.0, precision="bfloat16")
    assert halved.model_dump(mode="json") == plain.model_dump(mode="json") | {"precision": "bfloat16"}
    assert Optimisation.model_validate(other.model_dump(mode="json") | other.how()) == other


@pytest.mark.parametrize("run", ["dpo", "dpo_lora", "rlhf_ppo", "scorer"])
def test_activations_computed_again(run: str, world: World, tmp_path: Path) -> None:
    """Changes nothing, and sampling keeps its cache, without which transformers would warn and take another path."""
    world.train(run, tmp_path / "kept", steps=4)
    spec, inputs = world.training(run, steps=4)
    stage.run(spec | {"how": {"gradient_checkpointing": True}}, inputs, tmp_path / "again", tmp_path / "scratch")
    check_same(tmp_path / "kept", tmp_path / "again")


def test_activations_are_not_kept(world: World) -> None:
    """The forward pass of a block runs once, and once more in the backward pass; without gradients only once."""
    calls = 0

    def count(*_: Any) -> None:
        nonlocal calls
        calls += 1

    learner = Learner(world.policy("prior"))
    learner.policy.model.layers[0].mlp.register_forward_pre_hook(count)
    packed = pack([[1, 2, 3]], [[[4, 5]]], pad_id=0)
    learner(packed, 1.0)["policy"].sum().backward()
    assert calls == 1
    checkpoint_activations(learner)
    learner(packed, 1.0)["policy"].sum().backward()
    assert calls == 3
    learner.ask(lambda policy: policy(input_ids=torch.tensor([[1, 2, 3]])))
    assert calls == 4


@pytest.mark.parametrize("run", ["dpo", "rlhf_ppo", "scorer"])
def test_bfloat16_trains_nearby(run: str, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step is the float32 one up to the rounding of a dozen matrix products; weights and optimiser stay float32."""
    exact = world.train(run, tmp_path / "exact")
    spec, inputs = world.training(run, precision="bfloat16", checkpoint_every=1)
    scratch = tmp_path / "scratch"
    monkeypatch.setattr(stage.shutil, "rmtree", lambda *_, **__: None)  # the last checkpoint stays
    stage.run(spec, inputs, tmp_path / "halved", scratch)
    first = [log[0] for log in (exact, read_log(tmp_path / "halved"))]
    if run in ("dpo", "scorer"):  # the others' samples differ
        assert first[0]["loss"] == pytest.approx(first[1]["loss"], abs=12 * BF16)
        assert first[0]["grad_norm"] == pytest.approx(first[1]["grad_norm"], rel=12 * BF16)
    assert first[0] != first[1]
    state = torch.load(scratch / checkpoint.NAME, weights_only=True)
    moments = [value for moments in state["optimiser"]["state"].values() for value in moments.values()]
    assert {tensor.dtype for tensor in [*state["trainable"].values(), *moments]} == {torch.float32}


def test_outputs_and_scalar_heads_are_float32(world: World) -> None:
    """The head's product is not rounded: it is that of the hidden states, which are, to the last bit."""
    learner = Learner(world.policy("prior"), critic=world.reward_model(), scorer=world.reward_model())
    learner.precision = "bfloat16"
    packed = pack([[1, 2, 3]], [[[4, 5]]], pad_id=0)
    outputs = learner(packed, 1.0)
    assert {output.dtype for output in outputs.values()} == {torch.float32}
    hidden: list[torch.Tensor] = []
    head = learner.scorer.model.score
    head.register_forward_hook(lambda module, given, output: hidden.append(given[0]))
    reward = learner(packed, 1.0)["reward"]
    assert torch.equal(reward, (hidden[0] @ head.weight.T).squeeze(-1))
    rounded = reward.bfloat16().float()
    assert not torch.equal(reward, rounded)
