"""Rewards from stored scores and answers, against numbers worked out by hand."""

import math
from pathlib import Path
from typing import Any

import pytest

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.scoring.rewards import calibrated, likelihood, list_rewards, position_bias, selection_probabilities

Row = dict[str, Any]


def score(prompt_id: str, sample: int, logp: float, *, n_tokens: int = 4, logp_end: float = -0.5, n_end: int = 1) -> Row:
    return {
        "prompt_id": prompt_id,
        "sample": sample,
        "logp": logp,
        "n_tokens": n_tokens,
        "logp_end": logp_end,
        "n_end": n_end,
        "n_bytes": 10,
    }


def question(order: int, options: tuple[int, ...], p_options: tuple[float, ...], p_none: float = 0.0, of: str = "p") -> Row:
    mass = sum(p_options) + p_none
    return {
        "prompt_id": of,
        "order": order,
        "options": list(options),
        "p_options": list(p_options),
        "p_none": p_none,
        "mass": mass,
    }


PAIRS = [
    question(0, (0, 1), (0.6, 0.2), 0.1),
    question(1, (1, 0), (0.5, 0.3), 0.1),
    question(2, (0, 2), (0.8, 0.1)),
    question(3, (2, 0), (0.2, 0.6)),
    question(4, (1, 2), (0.4, 0.4), 0.2),
    question(5, (2, 1), (0.9, 0.1)),
]
CYCLES = [
    question(0, (0, 1, 2), (0.5, 0.2, 0.1), 0.2),
    question(1, (1, 2, 0), (0.4, 0.1, 0.3)),
    question(2, (2, 0, 1), (0.3, 0.1, 0.1), 0.1),
]


@pytest.mark.parametrize(
    ("normalisation", "ended", "cut"),
    [("tokens", -0.75, -1.5), ("tokens_without_end", -2.5 / 3, -1.5), ("bytes", -0.3, -0.6), ("sum", -3.0, -6.0)],
)
def test_likelihood(normalisation: str, ended: float, cut: float) -> None:
    rows = [score("p", 0, -3.0), score("p", 1, -6.0, logp_end=0.0, n_end=0), score("q", 0, -3.0)]
    assert likelihood(rows, normalisation) == {"p": pytest.approx([ended, cut]), "q": pytest.approx([ended])}


def test_likelihood_of_an_unknown_kind() -> None:
    with pytest.raises(ValueError, match="'words'"):
        likelihood([score("p", 0, -3.0)], "words")


@pytest.mark.parametrize(
    ("orders", "renormalise", "expected"),
    [
        # (1e-8 + Σ_j mean of both orders)/2; 0 against 1: (.6 + .3)/2, against 2: (.8 + .6)/2
        ("averaged", False, [(0.45 + 0.7) / 2, (0.35 + 0.25) / 2, (0.15 + 0.65) / 2]),
        ("fixed", False, [(0.6 + 0.8) / 2, (0.2 + 0.4) / 2, (0.1 + 0.4) / 2]),
        ("fixed", True, [(0.75 + 8 / 9) / 2, (0.25 + 0.5) / 2, (1 / 9 + 0.5) / 2]),
        (
            "averaged",
            True,
            [
                ((0.75 + 0.375) / 2 + (8 / 9 + 0.75) / 2) / 2,
                ((0.25 + 0.625) / 2 + (0.5 + 0.1) / 2) / 2,
                ((1 / 9 + 0.25) / 2 + (0.5 + 0.9) / 2) / 2,
            ],
        ),
    ],
)
def test_pairwise_selection(orders: str, renormalise: bool, expected: list[float]) -> None:
    found = selection_probabilities(PAIRS, 3, orders, renormalise=renormalise)
    assert found == pytest.approx([p + 0.5e-8 for p in expected], rel=1e-12)
    if renormalise:
        assert sum(found) == pytest.approx(1.5 + 1.5e-8), "n/2 on average, one winner in each pair"


@pytest.mark.parametrize(
    ("orders", "renormalise", "expected"),
    [
        ("averaged", False, [(0.5 + 0.3 + 0.1) / 3, (0.2 + 0.4 + 0.1) / 3, (0.1 + 0.1 + 0.3) / 3]),
        ("fixed", False, [0.5, 0.2, 0.1]),
        ("fixed", True, [0.625, 0.25, 0.125]),
        (
            "averaged",
            True,
            [(0.625 + 0.375 + 0.2) / 3, (0.25 + 0.5 + 0.2) / 3, (0.125 + 0.125 + 0.6) / 3],
        ),
    ],
)
def test_n_way_selection(orders: str, renormalise: bool, expected: list[float]) -> None:
    found = selection_probabilities(CYCLES, 3, orders, renormalise=renormalise)
    assert found == pytest.approx([p + 1e-8 for p in expected], rel=1e-12)


def test_the_first_responses_of_a_pairwise_table() -> None:
    assert selection_probabilities(PAIRS, 2, "averaged", renormalise=False) == pytest.approx([0.45 + 1e-8, 0.35 + 1e-8])


def test_the_floor() -> None:
    """The released code's (1e-8 + Σ)/(n−1): a response that never wins keeps a finite logarithm."""
    never = [question(0, (0, 1), (1.0, 0.0)), question(1, (0, 2), (1.0, 0.0)), question(2, (1, 2), (1.0, 0.0))]
    assert selection_probabilities(never, 3, "fixed", renormalise=False)[2] == pytest.approx(0.5e-8, rel=1e-12)


def test_calibrated() -> None:
    assert calibrated([-1.0, -2.0], [-4.0, -0.5], 0.8) == pytest.approx([-3.4, -0.8])


@pytest.fixture
def scores(tmp_path: Path) -> Path:
    return write(tmp_path / "scores", [score("p", k, -3.0 - k) for k in range(3)])


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    return write(tmp_path / "questions", PAIRS)


def write(folder: Path, rows: list[Row]) -> Path:
    folder.mkdir(exist_ok=True)
    schema = tables.QUESTIONS if "order" in rows[0] else tables.TEACHER_SCORES
    tables.write_table(folder / f"{folder.name}.parquet", rows, schema)
    return folder


def test_list_rewards(scores: Path, questions: Path) -> None:
    """alpha weights the questions; without its weight an input is not needed."""
    r = [-0.75, -1.0, -1.25]
    log_p = [math.log(p + 0.5e-8) for p in (0.575, 0.3, 0.4)]
    mixed = [0.2 * a + 0.8 * b for a, b in zip(r, log_p, strict=True)]
    assert list_rewards(scores, questions, 3, alpha=0.8, renormalise=False) == {"p": pytest.approx(mixed)}
    assert list_rewards(scores, None, 3, alpha=0.0) == {"p": pytest.approx(r)}
    assert list_rewards(None, questions, 3, alpha=1.0, renormalise=False) == {"p": pytest.approx(log_p)}
    assert list_rewards(scores, None, 2, alpha=0.0, normalisation="sum") == {"p": [-3.0, -4.0]}


def test_list_rewards_without_an_input(scores: Path, questions: Path) -> None:
    with pytest.raises(UserError, match=r"alpha: 0\.8 weights questions"):
        list_rewards(scores, None, 3, alpha=0.8)
    with pytest.raises(UserError, match=r"alpha: 0\.0 weights scores"):
        list_rewards(None, questions, 3, alpha=0.0)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([score("p", 0, -3.0), score("p", 2, -3.0)], r"scores.parquet: prompt 'p' has no sample 1"),
        ([score("p", 0, -3.0), score("p", 1, math.nan)], "prompt 'p', sample 1 has logp nan"),
        ([score("p", 0, -3.0, logp_end=-math.inf), score("p", 1, -1.0)], "prompt 'p', sample 0"),
    ],
)
def test_bad_scores(rows: list[Row], message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        list_rewards(write(tmp_path / "scores", rows), None, 2, alpha=0.0)


@pytest.mark.parametrize(
    ("rows", "n", "message"),
    [
        (PAIRS, 4, "no question compares samples 0 and 3"),
        (CYCLES, 2, "no question compares samples 0 and 1"),
        (PAIRS + [row | {"prompt_id": "q"} for row in PAIRS[1:]], 3, r"prompt 'q': samples \(0, 1\) were not asked about"),
        (CYCLES + [row | {"prompt_id": "q"} for row in CYCLES[:2]], 3, r"prompt 'q': samples \(2, 0, 1\) were not asked"),
        ([question(0, (0, 1), (0.5, math.nan))], 2, "prompt 'p': sample 1 has probability nan in question 0"),
        ([question(0, (0, 1), (0.0, 0.0), 1.0)], 2, "no letter of question 0 has any probability"),
    ],
)
def test_bad_questions(rows: list[Row], n: int, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        list_rewards(None, write(tmp_path / "questions", rows), n, alpha=1.0)


def test_prompts_in_one_table_only(tmp_path: Path, questions: Path) -> None:
    scores = write(tmp_path / "scores", [score(name, k, -3.0) for name in "pq" for k in range(3)])
    with pytest.raises(UserError, match="prompt 'q' is only there or only in"):
        list_rewards(scores, questions, 3, alpha=0.5)


def test_position_bias() -> None:
    """Of PAIRS, (0, 1) and (1, 2) change their winner with the order (a tie is not the same winner), (0, 2) does not."""
    found = position_bias(PAIRS)
    assert found["mean_by_position"] == pytest.approx([3.4 / 6, 1.7 / 6])
    assert found["none"] == pytest.approx(0.4 / 6)
    assert found["mass"] == pytest.approx(5.5 / 6)
    assert found["changed"] == pytest.approx(2 / 3)
    assert position_bias(PAIRS[::2])["changed"] is None
    # 0 beats 1 and 2 in the first order only; 1 beats 2, then again, then loses.
    assert position_bias(CYCLES)["changed"] == 1.0
    assert position_bias([row | {"prompt_id": str(i)} for i, row in enumerate(CYCLES)])["changed"] is None
