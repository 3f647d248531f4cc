"""The order of epochs: permutations, a pure function of (seed, step), and nobody left out."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdist.data.order import batch_indices, epoch_order
from prefdist.training.batch import Batch, Dataset, Share

seeds = st.integers(0, 2**32)


@settings(deadline=None)
@given(n=st.integers(1, 200), seed=seeds, epoch=st.integers(0, 1000))
def test_an_epoch_is_a_permutation(n: int, seed: int, epoch: int) -> None:
    order = epoch_order(n, seed, epoch)
    assert sorted(order) == list(range(n))
    epoch_order.cache_clear()
    assert epoch_order(n, seed, epoch) == order


@settings(deadline=None)
@given(n=st.integers(1, 40), batch_size=st.integers(1, 50), seed=seeds, epochs=st.integers(1, 3))
def test_steps_go_through_the_epochs(n: int, batch_size: int, seed: int, epochs: int) -> None:
    """Batches laid end to end are the epochs laid end to end, also where a batch is larger than an epoch."""
    steps = -(-n * epochs // batch_size)
    seen = [i for step in range(steps) for i in batch_indices(n, batch_size, step, seed)]
    assert len(seen) == steps * batch_size
    for epoch in range(epochs):
        assert sorted(seen[epoch * n : (epoch + 1) * n]) == list(range(n))


@settings(deadline=None)
@given(step=st.integers(0, 500), seed=seeds)
def test_a_step_does_not_depend_on_the_ones_before(step: int, seed: int) -> None:
    direct = batch_indices(23, 7, step, seed)
    epoch_order.cache_clear()
    for earlier in (0, step + 3, 11):
        batch_indices(23, 7, earlier, seed)
    assert batch_indices(23, 7, step, seed) == direct


def test_seeds_and_epochs_differ() -> None:
    """1000 items: two random orders agree with probability 1/1000!."""
    assert epoch_order(1000, 0, 0) != epoch_order(1000, 0, 1)
    assert epoch_order(1000, 0, 0) != epoch_order(1000, 1, 0)
    assert epoch_order(1000, 0, 1) != epoch_order(1000, 1, 0)


def test_orders_are_uniform() -> None:
    """Each of the 6 orders of 3 items, in 3000 epochs: 500 expected, standard deviation √(3000·5/36) = 20; 5 of them."""
    counts = Counter(tuple(epoch_order(3, 7, epoch)) for epoch in range(3000))
    assert len(counts) == 6
    assert all(abs(count - 500) < 100 for count in counts.values())


def test_the_order_stays_what_it_was() -> None:
    """Published runs must be repeatable by later versions: numpy keeps PCG64 and permutation as they are."""
    assert epoch_order(10, 0, 0) == [4, 6, 2, 7, 3, 5, 9, 0, 8, 1]
    assert batch_indices(10, 4, 7, 3) == [3, 5, 0, 1]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_shares_are_the_batch(world: int) -> None:
    """Every example of the global batch is in exactly one process, and lengths are spread over them."""
    prompts = [[1] * (1 + i % 5) for i in range(30)]
    examples = Batch([str(i) for i in range(30)], prompts, [[[2] * (1 + i % 7)] for i in range(30)])
    shares = [Dataset(examples, 8, 0, Share(rank, world)) for rank in range(world)]
    for step in range(12):
        parts = [share.batch(step) for share in shares]
        assert sorted(name for part in parts for name in part.ids) == sorted(map(str, batch_indices(30, 8, step, 0)))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        longest = [max(part.lengths()) for part in parts]
        assert sorted(longest, reverse=True) == longest
