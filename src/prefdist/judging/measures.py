"""Metric rows and a summary of judgements: pure functions of the stored tables, so that they can be made again without a key.

Per prompt (null where nothing could be read): `win_rate`, mean of preference − 1 over samples and orders; `unparsable`, share
of replies that could not be read; `position_agreement`, share of pairs shown in both orders on which the verdicts agree;
`first_shown_wins`, how often the first shown wins over both orders (0.5: no position bias); `battles` and `battles_won`,
Arena-Hard's weighted counts, and `arena_hard`, whose mean is their ratio; `rating`, `rating_turn_1`, `rating_turn_2`,
MT-Bench's; `length_answer`, `length_baseline` in characters; `length_controlled` or `length_controlled_plain` (without
AlpacaEval's file), predicted preferences at equal lengths. Left out: differences between runs (evaluation/significance.py),
intervals over seeds (evaluation/bootstrap.py).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from prefdist.errors import UserError
from prefdist.evaluation.bootstrap import paired_bootstrap
from prefdist.evaluation.statistics import win_rate
from prefdist.judging.length_control import FOLDS, Gamed, length_controlled

Row = dict[str, Any]


def of_prompts(judgements: Sequence[Row]) -> dict[str, list[Row]]:
    """Judgements by prompt, in the order of the prompts."""
    groups: dict[str, list[Row]] = {}
    for row in judgements:
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def prompt_values(rows: Sequence[Row], *, compares: bool, weighted: bool, asked: bool) -> dict[str, float | None]:
    """The metrics of one prompt. weighted: verdicts count as several battles; asked: an endpoint replied."""
    values: dict[str, float | None] = {}
    if compares:
        values["win_rate"] = _mean(_wins(rows))
        values |= _by_position(rows)
    else:
        values["rating"] = _mean(row["rating"] for row in rows)
        for turn in (1, 2):
            values[f"rating_turn_{turn}"] = _mean(row["rating"] for row in rows if row["turn"] == turn)
    if weighted:
        read = [row for row in rows if row["preference"] is not None]
        values["battles"] = math.fsum(row["weight"] for row in read)
        values["battles_won"] = math.fsum(row["weight"] * (row["preference"] - 1.0) for row in read)
    if asked:
        values["unparsable"] = sum(_is_unread(row) for row in rows) / len(rows)
    values["length_answer"] = _mean(row["length_answer"] for row in rows)
    if compares:
        values["length_baseline"] = _mean(row["length_baseline"] for row in rows)
    return values


def length_controlled_values(
    judgements: Sequence[Row], gamed: Gamed | None, instructions: dict[str, int] | None
) -> tuple[str, dict[str, float]] | None:
    """Name and values by prompt of the length-controlled win rate; None with too few prompts or lengths of no variation.

    instructions: prompt_id -> number in AlpacaEval's set, needed with `gamed`.
    """
    groups = of_prompts(judgements)
    wins = {name: _mean(_wins(rows)) for name, rows in groups.items()}
    lengths = [[float(_mean(row[f"length_{side}"] for row in rows) or 0.0) for rows in groups.values()] for side in SIDES]
    if sum(value is not None for value in wins.values()) < FOLDS or len({a - b for a, b in zip(*lengths, strict=True)}) < 2:
        return None
    found = length_controlled(
        [None if value is None else value + 1.0 for value in wins.values()],
        *lengths,
        instructions=None if instructions is None else [instructions[name] for name in groups],
        gamed=gamed,
    )
    name = "length_controlled_plain" if gamed is None else "length_controlled"
    return name, dict(zip(groups, found.preferences.tolist(), strict=True))


SIDES = ("baseline", "answer")


def arena_hard_values(of_prompt: dict[str, Row]) -> dict[str, float]:
    """By prompt with a verdict: R + (won − R·fought)/mean fought, R being all battles won by all fought.

    Their mean is R, and an interval of their mean is the one of R to first order: the linearised ratio of Cochran, Sampling
    Techniques (1977), chapter 6.
    """
    read = {name: values for name, values in of_prompt.items() if values["battles"]}
    fought, won = (math.fsum(values[key] for values in read.values()) for key in ("battles", "battles_won"))
    mean = fought / max(1, len(read))
    return {name: won / fought + (v["battles_won"] - won / fought * v["battles"]) / mean for name, v in read.items()}


def summary(judgements: Sequence[Row], metrics: Sequence[Row], *, compares: bool, prices: Row | None) -> Row:
    """What a table shows of one run: every metric's mean with a 95 % interval over prompts, win rate by AlpacaEval's rules,
    how many judgements could not be read, and what they cost.

    UserError if no judgement could be read.
    """
    unread = sum(_is_unread(row) for row in judgements)
    if unread == len(judgements):
        raise UserError(
            f"none of {unread} judgements can be read, the first reply is {str(judgements[0]['reply'])[:200]!r}; take another "
            "judge or protocol"
        )
    found: Row = {"judgements": len(judgements), "unparsable": unread, "metrics": {}}
    by_metric: dict[str, list[tuple[int, str, float | None]]] = {}
    for row in metrics:
        by_metric.setdefault(row["metric"], []).append((row["seed"], row["prompt_id"], row["value"]))
    for name, rows in by_metric.items():
        estimate = paired_bootstrap(rows)
        kept = ("value", "low", "high", "n", "n_missing")
        found["metrics"][name] = {key: _finite(value) for key, value in asdict(estimate).items() if key in kept}
    if compares:
        wins = {name: _mean(_wins(rows)) for name, rows in of_prompts(judgements).items()}
        rate = win_rate([None if value is None else 1.0 + value for value in wins.values()])
        found["win_rate"] = {key: _finite(value) for key, value in asdict(rate).items()}
    tokens = [[row[name] for row in judgements if row[name] is not None] for name in ("prompt_tokens", "completion_tokens")]
    found["tokens"] = {"prompt": sum(tokens[0]), "completion": sum(tokens[1])}
    if prices is not None:
        found["cost"] = (prices["input"] * sum(tokens[0]) + prices["output"] * sum(tokens[1])) / 1e6
    return found


def _wins(rows: Iterable[Row]) -> list[float | None]:
    return [None if row["preference"] is None else row["preference"] - 1.0 for row in rows]


def _by_position(rows: Sequence[Row]) -> dict[str, float | None]:
    """Of the pairs that were shown in both orders and read in both; nothing where no pair was shown twice."""
    pairs: dict[int, dict[int, float | None]] = {}
    for row in rows:
        pairs.setdefault(row["sample"], {})[row["order"]] = row["preference"]
    twice = [pair for pair in pairs.values() if len(pair) == 2]
    if not twice:
        return {}
    read = [(a - 1.5, b - 1.5) for a, b in ((pair[0], pair[1]) for pair in twice) if a is not None and b is not None]
    return {
        "position_agreement": _mean(float(math.copysign(1, a) == math.copysign(1, b) if a and b else a == b) for a, b in read),
        "first_shown_wins": _mean(0.5 + (b - a) / 2 for a, b in read),
    }


def _is_unread(row: Row) -> bool:
    return row["preference"] is None and row["rating"] is None


def _mean(values: Iterable[float | None]) -> float | None:
    kept = [value for value in values if value is not None]
    return math.fsum(kept) / len(kept) if kept else None


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
