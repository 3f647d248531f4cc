"""Lists of held-out candidates and what is known of each: the teacher's reward, the known preference, the length.

Left out: what students and teachers are found to be (student.py, teacher.py).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.scoring.rewards import likelihood


@dataclass(frozen=True)
class Candidates:
    """P prompts with n candidates each. Tensors are [P, n], float64.

    oracle: γ·log π* of each, so that σ(difference) is the known preference; None without a known target.
    """

    ids: list[str]
    prompts: list[str]
    token_ids: list[list[list[int]]]
    n_bytes: Tensor
    n_tokens: Tensor
    oracle: Tensor | None


def load(inputs: dict[str, Path], n: int, gamma: float | None) -> Candidates:
    """The candidates of the artefact `responses`, with the scores of `oracle` where it is there."""
    rows = tables.read_table(inputs["responses"] / "responses.parquet", tables.SAMPLES)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["prompt_id"], []).append(row)
    oracle = None
    if gamma is not None:
        scores = tables.read_table(inputs["oracle"] / "scores.parquet", tables.TEACHER_SCORES)
        oracle = gamma * table(likelihood(scores, "sum"), list(groups), n)
    return Candidates(
        list(groups),
        [rows[0]["prompt"] for rows in groups.values()],
        [[row["token_ids"] for row in rows[:n]] for rows in groups.values()],
        torch.tensor([[len(row["text"].encode()) for row in rows[:n]] for rows in groups.values()], dtype=torch.float64),
        torch.tensor([[row["n_tokens"] for row in rows[:n]] for rows in groups.values()], dtype=torch.float64),
        oracle,
    )


def table(values: dict[str, list[float]], ids: list[str], n: int) -> Tensor:
    """Values by prompt as [P, n] float64. UserError if a prompt has none."""
    missing = [name for name in ids if name not in values]
    if missing:
        raise UserError(f"{len(missing)} candidates' prompts have no score, first {missing[0]}; score them again")
    return torch.tensor([values[name][:n] for name in ids], dtype=torch.float64)


def margins(values: Tensor) -> Tensor:
    """Differences of all pairs i < j: [P, n] -> [P, n(n−1)/2]."""
    first, second = torch.triu_indices(values.shape[1], values.shape[1], offset=1)
    return values[:, first] - values[:, second]


def mean_where(values: Tensor, where: Tensor) -> list[float | None]:
    """Each prompt's mean of the chosen pairs [P, pairs]; None where none is chosen."""
    count = where.sum(-1)
    total = (values * where).sum(-1)
    return [float(t / c) if c else None for t, c in zip(total, count, strict=True)]
