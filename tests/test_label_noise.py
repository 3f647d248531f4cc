"""Labels that are turned round, and either side of a pair as an example by itself."""

import pytest
import torch

from prefdist.training.batch import Batch
from prefdist.training.examples import single, turned_round


@pytest.fixture
def labelled() -> Batch:
    """Twenty pairs; responses and reference log-probabilities say which pair and side they are of."""
    responses = [[[i, 0], [i, 1]] for i in range(20)]
    reference = torch.tensor([[float(i), i + 0.5] for i in range(20)])
    return Batch([str(i) for i in range(20)], [[7]] * 20, responses, {"reference": reference})


@pytest.mark.parametrize(("share", "turned"), [(0.0, 0), (0.25, 5), (0.5, 10)])
def test_a_share_is_turned_round_with_its_reference(labelled: Batch, share: float, turned: int) -> None:
    noisy = turned_round(labelled, share, seed=3)
    was_turned = [ys == [[i, 1], [i, 0]] for i, ys in enumerate(noisy.responses)]
    assert sum(was_turned) == turned
    assert all(ys in ([[i, 0], [i, 1]], [[i, 1], [i, 0]]) for i, ys in enumerate(noisy.responses))
    for i, turn in enumerate(was_turned):
        wanted = [i + 0.5, float(i)] if turn else [float(i), i + 0.5]
        assert noisy.columns["reference"][i].tolist() == wanted


def test_which_ones_depends_on_the_seed_alone(labelled: Batch) -> None:
    assert turned_round(labelled, 0.25, 3).responses == turned_round(labelled, 0.25, 3).responses
    assert turned_round(labelled, 0.25, 3).responses != turned_round(labelled, 0.25, 4).responses


@pytest.mark.parametrize(
    ("kind", "ids", "sides"),
    [("chosen", ["0", "1"], [[0], [0]]), ("rejected", ["0", "1"], [[1], [1]]), ("both", ["0/0", "0/1", "1/0", "1/1"], None)],
)
def test_a_side_alone(labelled: Batch, kind: str, ids: list[str], sides: list[list[int]] | None) -> None:
    alone = single(labelled.select([0, 1]), kind)
    assert alone.ids == ids
    assert len(alone.prompts) == len(ids)
    wanted = [[[0, 0]], [[0, 1]], [[1, 0]], [[1, 1]]] if sides is None else [[[i, side[0]]] for i, side in enumerate(sides)]
    assert alone.responses == wanted
