"""Lists cut into sublists: a partition, a function of (seed, epoch) alone, and a loss that is the mean over the sublists."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import read_log
from safetensors.torch import load_file
from teacher_inputs import TEXTS, write_teacher
from torch import Tensor

from prefdist.data.order import epoch_order
from prefdist.models import load_policy
from prefdist.objectives.registry import load, read_row
from prefdist.tokens import TextCodec
from prefdist.training import stage
from prefdist.training.batch import Batch, Share
from prefdist.training.decomposition import Decomposed
from prefdist.training.terms import Term, objective_term

N = 6
SIZES = (2, 3)
EXAMPLES = 4


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def examples(seed: int = 0, spread: float = 1.0) -> Batch:
    """Four lists of six responses of 1 to 3 tokens, their samples in any order of rewards, these descending."""
    drawn = generator(seed)
    samples = torch.stack([torch.randperm(N, generator=drawn) for _ in range(EXAMPLES)])
    scores = (spread * torch.randn(EXAMPLES, N, generator=drawn, dtype=torch.float64)).sort(-1, descending=True).values
    responses = [[[7] * (1 + (i + k) % 3) for k in range(N)] for i in range(EXAMPLES)]
    names = [f"p{i}" for i in range(EXAMPLES)]
    return Batch(names, [[1, 2]] * EXAMPLES, responses, {"sample": samples, "scores": scores})


def dataset(*, size: int = 2, shuffle: bool, seed: int = 0, batch_size: int = EXAMPLES, of: Batch | None = None) -> Decomposed:
    return Decomposed(of or examples(), batch_size, seed, Share(), size=size, shuffle=shuffle)


def sublists(batch: Batch, size: int) -> dict[str, list[frozenset[int]]]:
    """The sample numbers of each sublist, by example."""
    samples = batch.columns["sample"].gather(1, batch.columns["groups"]).view(len(batch), -1, size)
    return {name: [frozenset(group) for group in row] for name, row in zip(batch.ids, samples.tolist(), strict=True)}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shuffle", [False, True])
def test_groups_are_a_partition_that_keeps_the_order(size: int, shuffle: bool) -> None:
    data = dataset(size=size, shuffle=shuffle)
    for step in range(5):
        groups = data.batch(step).columns["groups"]
        assert groups.shape == (EXAMPLES, N)
        assert (groups.sort(-1).values == torch.arange(N)).all()
        assert (groups.view(-1, size).diff(dim=-1) > 0).all()


@pytest.mark.parametrize("size", SIZES)
def test_fixed_sublists_follow_the_sample_numbers(size: int) -> None:
    """Samples 0, 1 are a sublist, then 2, 3, and so on, whatever their rewards, in every epoch."""
    expected = [frozenset(range(start, start + size)) for start in range(0, N, size)]
    for seed in range(3):
        data = dataset(size=size, shuffle=False, seed=seed, of=examples(seed))
        for step in range(4):
            assert sublists(data.batch(step), size) == {f"p{i}": expected for i in range(EXAMPLES)}


def test_shuffled_sublists_are_a_function_of_seed_and_epoch() -> None:
    """The same for every example and order of rewards, another in (nearly) every epoch and for another seed."""
    found: dict[tuple[int, int], set[frozenset[int]]] = {}
    for seed, epoch in itertools.product((0, 1), range(12)):
        each = [sublists(dataset(shuffle=True, seed=seed, of=examples(k)).batch(epoch), 2) for k in range(3)]
        distinct = {frozenset(groups) for of_batch in each for groups in of_batch.values()}
        assert len(distinct) == 1
        found[seed, epoch] = set(distinct.pop())
    # 15 partitions of six into pairs: 12 epochs show at least 5 of them but for one case in 1e4 (the seeds are fixed).
    for seed in (0, 1):
        assert len({frozenset(found[seed, epoch]) for epoch in range(12)}) >= 5
    assert any(found[0, epoch] != found[1, epoch] for epoch in range(12))


def test_a_batch_across_epochs_has_the_sublists_of_the_one_it_begins_in() -> None:
    """Three of four examples a step: step 1 has one of epoch 0 and two of epoch 1, step 2 two of each, step 4 is epoch 3."""
    whole, threes = (dataset(shuffle=True, batch_size=size) for size in (EXAMPLES, 3))
    order = [epoch_order(EXAMPLES, 0, epoch) for epoch in range(4)]
    positions = [f"p{i}" for epoch in order for i in epoch]
    for step in range(5):
        batch = threes.batch(step)
        assert sorted(batch.ids) == sorted(positions[3 * step : 3 * step + 3])
        of_epoch = sublists(whole.batch(3 * step // EXAMPLES), 2)["p0"]
        assert all(groups == of_epoch for groups in sublists(batch, 2).values())


# ---- the loss --------------------------------------------------------------------------------------------------------


def outputs(batch: Batch, seed: int, spread: float) -> dict[str, Tensor]:
    mask = batch.packed(0).mask
    return {"policy": spread * torch.randn(mask.shape, generator=generator(seed), dtype=torch.float64) * mask}


def log_law(scores: list[float]) -> list[float]:
    found = []
    for ranking in itertools.permutations(scores):
        left = [math.log(sum(math.exp(s) for s in ranking[k:])) for k in range(len(ranking))]
        found.append(sum(ranking) - sum(left))
    return found


def jsd(a: list[float], b: list[float]) -> float:
    total = 0.0
    for p, q in zip(log_law(a), log_law(b), strict=True):
        middle = math.log((math.exp(p) + math.exp(q)) / 2)
        total += (math.exp(p) * (p - middle) + math.exp(q) * (q - middle)) / 2
    return total


def negative_log_likelihood(_: list[float], student: list[float]) -> float:
    return -log_law(student)[0]  # the first of the permutations is the list as it stands


BETA = 2.0


def term(name: str, size: int | None) -> Term:
    return objective_term(load(name, {"beta": BETA}), size)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("objective", "expected"), [("pad_ppd_jsd", jsd), ("pad_vpd", negative_log_likelihood)])
def test_the_loss_is_the_mean_over_sublists(size: int, objective: str, expected: Any) -> None:
    """Against sums over the rankings of each sublist, taken from the sample numbers and best first."""
    batch = dataset(size=size, shuffle=True).batch(3)
    policy = outputs(batch, 1, 1.0)
    losses = term(objective, size)(policy, batch, batch.packed(0))
    for i, name in enumerate(batch.ids):
        lengths = [len(ids) for ids in batch.responses[i]]
        students = [BETA * float(policy["policy"][i, k].sum()) / lengths[k] for k in range(N)]
        teachers, samples = batch.columns["scores"][i].tolist(), batch.columns["sample"][i].tolist()
        found = []
        for group in sublists(batch, size)[name]:
            places = [k for k in range(N) if samples[k] in group]
            found.append(expected([teachers[k] for k in places], [students[k] for k in places]))
        assert float(losses[i]) == pytest.approx(sum(found) / len(found), rel=1e-10)


@pytest.mark.parametrize("spread", [0.1, 1.0, 5.0])
def test_a_sublists_divergence_is_at_most_the_whole_lists(spread: float) -> None:
    """Data processing: the order of a sublist is a function of the whole ranking."""
    for seed in range(15):
        lists = examples(seed, spread)
        batch = dataset(shuffle=True, of=lists).batch(0)
        policy, packed = outputs(batch, seed, spread), batch.packed(0)
        whole = term("pad_ppd_jsd", None)(policy, batch, packed)
        for size in SIZES:
            cut = dataset(size=size, shuffle=True, of=lists).batch(0)
            assert cut.ids == batch.ids
            assert (term("pad_ppd_jsd", size)(policy, cut, packed) <= whole + 1e-10).all()
        uncut = dataset(size=N, shuffle=False, of=lists).batch(0)
        assert (term("pad_ppd_jsd", N)(policy, uncut, packed) - whole).abs().max() < 1e-10


# ---- a training ------------------------------------------------------------------------------------------------------


def build(data: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, seed: int) -> Batch:
    """What the training's specification names this module for: lists of unequal length, so that no split is even."""
    texts = [[f"{TEXTS[(i + k) % 4]} {'again ' * (i * k % 4)}{k}" for k in range(4)] for i in range(7)]
    samples = torch.stack([torch.randperm(4, generator=generator(i)) for i in range(7)])
    columns = {"sample": samples, "scores": torch.randn(7, 4, generator=generator(0)).sort(-1, descending=True).values}
    prompts = [codec.prompt(f"Number {i}{' please' * (i % 3)}") for i in range(7)]
    return Batch([f"p{i}" for i in range(7)], prompts, [[codec.response(text) for text in ys] for ys in texts], columns)


def train(init: Path, out: Path, **optimisation: Any) -> None:
    spec = {
        "data": {"examples": __name__, "decomposition": {"size": 2, "shuffle": True}},
        "objective": read_row("pad_ppd_jsd").model_dump(),
        "optimisation": {"steps": 5, "batch_size": 5, "learning_rate": 1e-3, **optimisation},
        "seed": 0,
    }
    stage.run(spec, {"init": init}, out, out.with_name("scratch"))


def test_micro_batches_change_nothing(tmp_path: Path) -> None:
    """Five lists at once, at most two, one at a time: loss and gradient differ by the rounding of float32."""
    init = write_teacher(tmp_path / "init")
    for size in (5, 2, 1):
        train(init, tmp_path / str(size), micro_batch_size=size)
    for size in (2, 1):
        for mine, other in zip(read_log(tmp_path / str(size)), read_log(tmp_path / "5"), strict=True):
            for name in ("loss", "grad_norm"):
                assert mine[name] == pytest.approx(other[name], rel=1e-4, abs=1e-6), (size, mine["step"])
        weights = load_file(tmp_path / str(size) / "model.safetensors")
        for name, tensor in load_file(tmp_path / "5" / "model.safetensors").items():
            assert (weights[name] - tensor).abs().mean() < 1e-6, name
    start = load_policy(init).state_dict()
    moved = [(load_file(tmp_path / "5" / "model.safetensors")[name] - start[name]).abs().mean() for name in weights]
    assert max(moved) > 1e-3
