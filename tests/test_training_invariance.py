"""A step is the same whatever it is split over: micro-batches and ragged ones. (Processes: test_training_parallel.py.)

The world's batches are of 7 examples, which no split divides evenly. Bounds: the terms are added in another order, and
float32 carries 6e-8 of each; a few hundred of them make 1e-5 of a loss or a gradient norm. Adam divides a gradient by its
own size, so that a weight whose gradient is rounding may move by up to the learning rate (1e-3) a step; that is rare, and
seldom two steps the same way: at most 3e-4 for the worst weight (seen: 3e-5) and 1e-6 for the mean of a tensor (seen:
2e-8). Weights move 1e-3 and more in mean, and a wrong weight of one micro-batch changes the norm by tens of percent.
"""

from pathlib import Path

import pytest
import torch
from conftest import RUNS, World, read_log
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor

from prefdist.training.batch import Batch

WORST, MEAN = 3e-4, 1e-6
SAME_ROUNDING = {"step", "tokens", "response_tokens", "unfinished"}  # counts: exactly equal


def weights(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "model.safetensors")


def check_same(a: Path, b: Path) -> None:
    for mine, other in zip(read_log(a), read_log(b), strict=True):
        assert mine.keys() == other.keys()
        for name in mine:
            tolerance = 0.0 if name in SAME_ROUNDING else 1e-5
            assert mine[name] == pytest.approx(other[name], rel=tolerance, abs=tolerance), (name, mine["step"])
    other_weights = weights(b)
    for name, tensor in weights(a).items():
        gap = (tensor - other_weights[name]).abs()
        assert gap.max() <= WORST, name
        assert gap.mean() <= MEAN, name


@settings(deadline=None)
@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=30), size=st.integers(1, 12))
def test_micro_batches_are_a_partition(lengths: list[int], size: int) -> None:
    """Every example once, at most `size` of them together, the longest first; columns go with their examples."""
    prompts = [[1] * length for length in lengths]
    column = torch.arange(len(lengths)).unsqueeze(-1)
    batch = Batch([str(i) for i in range(len(lengths))], prompts, [[[2]]] * len(lengths), {"scores": column})
    parts = list(batch.micro_batches(size))
    assert sorted(int(name) for part in parts for name in part.ids) == list(range(len(lengths)))
    assert all(1 <= len(part) <= size for part in parts)
    assert [length for part in parts for length in part.lengths()] == sorted(batch.lengths(), reverse=True)
    assert [int(name) for part in parts for name in part.ids] == [int(v) for part in parts for v in part.columns["scores"]]


@pytest.mark.parametrize("run", RUNS)
def test_micro_batches(run: str, world: World, tmp_path: Path) -> None:
    """7 examples whole, at most 3 and 5 at once, and one at a time."""
    world.train(run, tmp_path / "whole", micro_batch_size=8)
    for size in (1, 3, 5):
        world.train(run, tmp_path / str(size), micro_batch_size=size)
        check_same(tmp_path / "whole", tmp_path / str(size))
    start = weights(world.folder("prior"))
    if run not in ("scorer", "dpo_lora"):  # its head is new; an adapter moves less
        moved = [(tensor - start[name]).abs().mean() for name, tensor in weights(tmp_path / "whole").items()]
        assert max(moved) > 1000 * MEAN
