"""Examples of preference distillation: lists of the student's samples with the teacher's rewards, and the baselines' data.

All kinds use the prompts of one responses table. Left out: how the rewards come about (scoring/rewards.py).
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.scoring.rewards import list_rewards
from prefdist.tokens import TextCodec
from prefdist.training.batch import Batch

Sampled = list[dict[str, Any]]
"""The rows of one prompt in the order of their sample numbers."""


def build(data: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, seed: int) -> Batch:
    """The examples that a run of kind pad trains on; `data` is the specification's.

    lists: all n responses, the teacher's best first, with the columns "scores" (r̂), "sample" (its number in the responses
    table) and "reference" (ℓ under the student that drew it). best_worst, random_pair: two of them, the better first.
    references, teacher_responses: one response a prompt, what people wrote or what the teacher samples first.
    """
    sampled = by_prompt(inputs["responses"])
    kind, n = data["kind"], data["n"]
    if kind == "references":
        return _single(sampled, {name: (row["reference"], True) for name, row in _prompts(inputs["text"]).items()}, codec)
    if kind == "teacher_responses":
        firsts = {name: rows[0] for name, rows in by_prompt(inputs["teacher_responses"]).items()}
        answers = {name: (row["text"], row["finish_reason"] == "stop") for name, row in firsts.items()}
        return _single(sampled, answers, codec)
    rewards = list_rewards(inputs.get("scores"), inputs.get("questions"), n=n, **data["reward"])
    missing = [name for name in sampled if name not in rewards]
    if missing:
        raise UserError(f"{inputs['responses']}: {len(missing)} prompts have no reward, first {missing[0]}; score them again")
    chosen = {name: _chosen(kind, rewards[name], seed, i) for i, name in enumerate(sampled)}
    return _lists({name: rows[:n] for name, rows in sampled.items()}, rewards, chosen, codec)


def by_prompt(folder: Path) -> dict[str, Sampled]:
    """The samples of each prompt of a responses artefact."""
    groups: dict[str, Sampled] = {}
    for row in tables.read_table(folder / "responses.parquet", tables.SAMPLES):
        groups.setdefault(row["prompt_id"], []).append(row)
    return groups


def _prompts(text: Path) -> dict[str, dict[str, Any]]:
    return {row["prompt_id"]: row for row in tables.read_table(text / "prompts.parquet", tables.PROMPTS)}


def _chosen(kind: str, rewards: list[float], seed: int, index: int) -> list[int]:
    """Sample numbers, best first; ties keep their order."""
    order = sorted(range(len(rewards)), key=lambda i: -rewards[i])
    if kind == "lists":
        return order
    if kind == "best_worst":
        return [order[0], order[-1]]
    pair = np.random.default_rng([seed, index]).choice(len(order), 2, replace=False)
    return [order[i] for i in sorted(pair.tolist())]


def _lists(
    sampled: dict[str, Sampled], rewards: dict[str, list[float]], chosen: dict[str, list[int]], codec: TextCodec
) -> Batch:
    rows = {name: [sampled[name][i] for i in chosen[name]] for name in sampled}
    columns = {
        "scores": torch.tensor([[rewards[name][i] for i in chosen[name]] for name in sampled], dtype=torch.float32),
        "sample": torch.tensor([chosen[name] for name in sampled]),
        "reference": torch.tensor([[row["logp"] for row in rows[name]] for name in sampled], dtype=torch.float32),
    }
    return Batch(
        list(sampled),
        [codec.prompt(rows[name][0]["prompt"]) for name in sampled],
        [[row["token_ids"] for row in rows[name]] for name in sampled],
        columns,
    )


def _single(sampled: dict[str, Sampled], answers: dict[str, tuple[str, bool]], codec: TextCodec) -> Batch:
    """One response a prompt: its text, with the end token where its writer ended it.

    A prompt for which the teacher has none (it was dropped as too uniform) is left out.
    """
    kept = [name for name in sampled if answers.get(name, ("", True))[0].strip()]
    if not kept:
        raise UserError("none of the prompts has an answer to learn from; check the prompts' column `reference`")
    prompts = [codec.prompt(sampled[name][0]["prompt"]) for name in kept]
    responses = [codec.response(text) if ended else codec.response(text)[:-1] for text, ended in map(answers.__getitem__, kept)]
    return Batch(kept, prompts, [[ids] for ids in responses])
