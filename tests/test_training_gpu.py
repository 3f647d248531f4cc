"""Training on a GPU: bfloat16 beside the CPU's float32, the attention kernel, memory, and two GPUs beside one."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World
from test_training_invariance import check_same

from prefdist.logprobs import packed_hidden
from prefdist.models import new_policy
from prefdist.tokens import pack
from prefdist.training import launch, stage
from prefdist.training.learner import Learner
from prefdist.training.parallel import checkpoint_activations

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is visible"),
]

SHAPE: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 512,
    "intermediate_size": 1376,
    "num_hidden_layers": 8,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "max_position_embeddings": 1024,
    "tie_word_embeddings": True,
}
PACKED = pack([[1 + i % 200 for i in range(400)]] * 4, [[[5] * 50, [6] * 60]] * 4, pad_id=0)


def learner(world: World, precision: str) -> Learner:
    made = Learner(new_policy(SHAPE, world.codec, seed=0)).to("cuda")
    made.precision = precision
    return made


def test_bfloat16_is_near_float32(world: World) -> None:
    """2⁻⁸ of a logit, which are below 4 here, a token; the errors of tokens are of both signs."""
    exact, rounded = (learner(world, precision)(PACKED.to("cuda"), 1.0)["policy"] for precision in ("float32", "bfloat16"))
    assert exact.dtype == rounded.dtype == torch.float32
    gaps = (exact - rounded)[PACKED.mask.cuda()]
    assert 0 < gaps.abs().max() < 0.1
    assert gaps.mean().abs() < 0.01


def test_packed_rows_do_not_fall_back_to_the_plain_kernel(world: World) -> None:
    """A mask of four dimensions rules flash attention out; the memory-efficient kernel takes it."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    made = learner(world, "bfloat16")
    with sdpa_kernel([SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION]), made.autocast(), torch.no_grad():
        packed_hidden(made.policy, PACKED.to("cuda"))


def peak(made: Learner) -> int:
    torch.cuda.reset_peak_memory_stats()
    made(PACKED.to("cuda"), 1.0)["policy"].sum().backward()
    return torch.cuda.max_memory_allocated()


def test_activations_computed_again_take_less_memory(world: World) -> None:
    made = learner(world, "bfloat16")
    peak(made)  # gradients are there from now on
    kept = peak(made)
    checkpoint_activations(made)
    assert peak(made) < 0.8 * kept


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="two GPUs are needed")
@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_two_gpus_are_one(sharding: str, world: World, tmp_path: Path) -> None:
    spec, inputs = world.training("dpo")
    for count in (1, 2):
        out = tmp_path / str(count)
        out.mkdir()
        how = {"processes": count, "sharding": sharding}
        launch.run(spec | {"how": how}, inputs, out, tmp_path / "scratch")
    check_same(tmp_path / "1", tmp_path / "2")


def test_a_stage_runs_on_it(world: World, tmp_path: Path) -> None:
    """PPO in bfloat16 with everything on: sampling, critic, reward model, activations computed again."""
    spec, inputs = world.training("rlhf_ppo", precision="bfloat16")
    stage.run(spec | {"how": {"gradient_checkpointing": True}}, inputs, tmp_path / "out", tmp_path / "scratch")
    assert (tmp_path / "out" / "model.safetensors").is_file()
