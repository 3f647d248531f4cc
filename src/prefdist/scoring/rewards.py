"""PAD's calibrated reward (1−alpha)·r + alpha·log p_sel of each response, from stored scores and answers (arXiv 2502.14272).

alpha weights the questions, as in the paper; the released code's alpha weights the likelihood, so its 0.0 is 1.0 here.
"""

import math
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.errors import UserError

FLOOR = 1e-8
"""Added to a sum of probabilities before its logarithm, as in the released code."""

Row = dict[str, Any]


def likelihood(rows: Sequence[Row], normalisation: str) -> dict[str, list[float]]:
    """r of each row of teacher scores, by prompt: in nats a token (with or without the end token), a byte, or in all (sum)."""
    found: dict[str, list[float]] = {}
    for row in rows:
        found.setdefault(row["prompt_id"], []).append(_normalised(row, normalisation))
    return found


def _normalised(row: Row, normalisation: str) -> float:
    logp = float(row["logp"])
    if normalisation == "tokens":
        return logp / row["n_tokens"]
    if normalisation == "tokens_without_end":
        return (logp - row["logp_end"]) / (row["n_tokens"] - row["n_end"])
    if normalisation == "bytes":
        return logp / row["n_bytes"]
    if normalisation == "sum":
        return logp
    raise ValueError(f"normalisation {normalisation!r} is unknown")


def selection_probabilities(rows: Sequence[Row], n: int, orders: str, *, renormalise: bool) -> list[float]:
    """p_sel [n] of the first n responses, from all questions about one prompt.

    n-way questions: the mean over the orders asked of the probability of i's letter. Pairwise ones: the mean over j ≠ i of
    that in the pair {i, j}. With fixed orders, only those questions count that show the options by their index.
    Renormalised: each question's letters are divided by their sum first, so that None and everything else do not count.
    With the floor both kinds agree at n = 2.
    """
    wins: list[list[float]] = [[] for _ in range(n)]
    for row in _used(rows, n, orders):
        mass = sum(row["p_options"]) if renormalise else 1.0
        for i, p in zip(row["options"], row["p_options"], strict=True):
            wins[i].append(p / mass)
    opponents = n - 1 if len(rows[0]["options"]) == 2 else 1
    return [math.fsum(found) / len(found) + FLOOR / opponents for found in wins]


def calibrated(likelihoods: Sequence[float], log_p_sel: Sequence[float], alpha: float) -> list[float]:
    """(1−alpha)·r + alpha·log p_sel of each response."""
    return [(1 - alpha) * r + alpha * p for r, p in zip(likelihoods, log_p_sel, strict=True)]


def list_rewards(
    scores: Path | None,
    questions: Path | None,
    n: int,
    *,
    alpha: float,
    normalisation: str = "tokens",
    orders: str = "averaged",
    renormalise: bool = True,
) -> dict[str, list[float]]:
    """The rewards of the first n responses of each prompt, from the artefacts `scores` and `questions`.

    Without weight (alpha 0 or 1) an artefact is not read. UserError, naming the prompt, for missing or non-finite values
    and for prompts that are in one of them only.
    """
    parts: dict[str, dict[str, list[float]]] = {}
    if alpha < 1:
        parts["likelihood"] = _likelihoods(_given(scores, "scores", alpha), n, normalisation)
    if alpha > 0:
        parts["questions"] = _log_selections(_given(questions, "questions", alpha), n, orders, renormalise)
    if len(parts) == 1:
        return next(iter(parts.values()))
    alone = set(parts["likelihood"]) ^ set(parts["questions"])
    if alone:
        raise UserError(f"{scores}: prompt {min(alone)!r} is only there or only in {questions}; make both again")
    return {name: calibrated(values, parts["questions"][name], alpha) for name, values in parts["likelihood"].items()}


def position_bias(rows: Sequence[Row]) -> dict[str, Any]:
    """What the questions' forms do to the answers: means over all rows of a table, and how stable its winners are.

    mean_by_position [options], none, mass: mean probability of each letter, of None, of both together. changed: share of
    pairs of a prompt's responses whose more probable one differs between the orders in which both were shown; None if no
    pair was shown in two orders.
    """
    means = [math.fsum(column) / len(rows) for column in zip(*(row["p_options"] for row in rows), strict=True)]
    winners: dict[tuple[str, int, int], list[int]] = {}
    for row in rows:
        for (i, p), (j, q) in combinations(sorted(zip(row["options"], row["p_options"], strict=True)), 2):
            winners.setdefault((row["prompt_id"], i, j), []).append((p > q) - (p < q))
    repeated = [found for found in winners.values() if len(found) > 1]
    changed = sum(len(set(found)) > 1 for found in repeated) / len(repeated) if repeated else None
    none, mass = (math.fsum(row[name] for row in rows) / len(rows) for name in ("p_none", "mass"))
    return {"mean_by_position": means, "none": none, "mass": mass, "changed": changed}


def _given(path: Path | None, name: str, alpha: float) -> Path:
    if path is None:
        raise UserError(f"alpha: {alpha} weights {name}, but there are no {name}; name them or change alpha")
    return path


def _likelihoods(scores: Path, n: int, normalisation: str) -> dict[str, list[float]]:
    path = scores / "scores.parquet"
    used = []
    for prompt_id, rows in _by_prompt(path, tables.TEACHER_SCORES).items():
        by_sample = {row["sample"]: row for row in rows}
        for sample in range(n):
            row = by_sample.get(sample)
            if row is None:
                raise UserError(f"{path}: prompt {prompt_id!r} has no sample {sample}; score all {n} samples or lower n")
            if not (math.isfinite(row["logp"]) and math.isfinite(row["logp_end"])):
                raise UserError(f"{path}: prompt {prompt_id!r}, sample {sample} has logp {row['logp']}; score it again")
            used.append(row)
    return likelihood(used, normalisation)


def _log_selections(questions: Path, n: int, orders: str, renormalise: bool) -> dict[str, list[float]]:
    path = questions / "questions.parquet"
    found = {}
    groups = _by_prompt(path, tables.QUESTIONS)
    asked = {tuple(row["options"]) for rows in groups.values() for row in _used(rows, n, orders)}
    for prompt_id, rows in groups.items():
        _check_questions(f"{path}: prompt {prompt_id!r}", _used(rows, n, orders), asked, n, renormalise)
        found[prompt_id] = [math.log(p) for p in selection_probabilities(rows, n, orders, renormalise=renormalise)]
    return found


def _check_questions(where: str, rows: list[Row], asked: set[tuple[int, ...]], n: int, renormalise: bool) -> None:
    for row in rows:
        for sample, p in zip(row["options"], row["p_options"], strict=True):
            if not math.isfinite(p):
                raise UserError(f"{where}: sample {sample} has probability {p} in question {row['order']}; ask again")
        if renormalise and sum(row["p_options"]) <= 0:
            raise UserError(
                f"{where}: no letter of question {row['order']} has any probability; set renormalise to false or take "
                "another template"
            )
    missing = asked - {tuple(row["options"]) for row in rows}
    if missing:
        raise UserError(f"{where}: samples {min(missing)} were not asked about, though other prompts' were; ask again")
    met = {pair for row in rows for pair in combinations(sorted(row["options"]), 2)}
    for i, j in combinations(range(n), 2):
        if (i, j) not in met:
            raise UserError(f"{where}: no question compares samples {i} and {j}; ask about {n} samples")


def _used(rows: Sequence[Row], n: int, orders: str) -> list[Row]:
    """The questions about none but the first n responses; with fixed orders, those that show them by their index."""
    among = [row for row in rows if max(row["options"]) < n]
    return among if orders == "averaged" else [row for row in among if row["options"] == sorted(row["options"])]


def _by_prompt(path: Path, schema: Any) -> dict[str, list[Row]]:
    groups: dict[str, list[Row]] = {}
    for row in tables.read_table(path, schema):
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups
