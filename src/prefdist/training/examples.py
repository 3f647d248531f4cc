"""From tables to examples: references, labelled pairs with cached reference log-probabilities, prompts for rollouts."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.tokens import TextCodec
from prefdist.training.batch import Batch


def build(data: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, seed: int) -> Batch:
    """The examples of a suite of kind testbed; `data` is the specification's."""
    if data["kind"] == "references":
        return references(inputs["text"], codec, noise=data["noise"], fraction=data["fraction"], seed=seed)
    labelled = pairs(inputs["preferences"], codec, "train", inputs.get("reference"))
    if data.get("label_noise"):
        labelled = turned_round(labelled, data["label_noise"], seed)
    return labelled if data["kind"] == "pairs" else single(labelled, data["kind"])


def references(text: Path, codec: TextCodec, *, noise: float, fraction: float, seed: int) -> Batch:
    """Training prompts with their reference; in a fraction `noise` of them its words stand in random order."""
    rows = [row for row in tables.read_table(text / "prompts.parquet", tables.PROMPTS) if row["split"] == "train"]
    generator = np.random.default_rng([seed, len(rows)])
    kept = sorted(generator.permutation(len(rows))[: max(1, round(fraction * len(rows)))].tolist())
    noisy = set(generator.permutation(kept)[: round(noise * len(kept))].tolist())
    answers = []
    for i in kept:
        words = rows[i]["reference"].split(" ")
        answers.append(" ".join(generator.permutation(words)) if i in noisy else rows[i]["reference"])
    return Batch(
        [rows[i]["prompt_id"] for i in kept],
        [codec.prompt(rows[i]["prompt"]) for i in kept],
        [[codec.response(answer)] for answer in answers],
    )


def preference_rows(folder: Path, split: str) -> list[dict[str, Any]]:
    """Labelled pairs of a split."""
    rows = tables.read_table(folder / "preferences.parquet", tables.PREFERENCES)
    return [row for row in rows if row["split"] == split]


def pairs(folder: Path, codec: TextCodec, split: str, reference: Path | None = None) -> Batch:
    """Pairs, chosen first; with the "reference" column [B, 2] from the cache when it is given."""
    rows = preference_rows(folder, split)
    columns = {}
    if reference is not None:
        cached = {row["pair_id"]: row for row in tables.read_table(reference / "logps.parquet", tables.LOGPS)}
        missing = [row["pair_id"] for row in rows if row["pair_id"] not in cached]
        if missing:
            raise UserError(f"{reference}/logps.parquet: no log-probabilities of {len(missing)} pairs, first {missing[0]}")
        values = [(cached[row["pair_id"]]["logp_chosen"], cached[row["pair_id"]]["logp_rejected"]) for row in rows]
        columns["reference"] = torch.tensor(values, dtype=torch.float32)
        # A pair against log 0 has a finite loss and no gradient: it would be lost without a word.
        broken = [row["pair_id"] for row, pair in zip(rows, columns["reference"], strict=True) if not pair.isfinite().all()]
        if broken:
            raise UserError(f"{reference}/logps.parquet: {len(broken)} pairs are not finite, first {broken[0]}; delete it")
    return Batch(
        [row["pair_id"] for row in rows],
        [codec.prompt(row["prompt"]) for row in rows],
        [[row["chosen_ids"], row["rejected_ids"]] for row in rows],
        columns,
    )


def turned_round(labelled: Batch, share: float, seed: int) -> Batch:
    """Pairs of which a share, chosen by the seed, has its label turned round: noise, unlike a minority that a law of
    preferences gives."""
    generator = np.random.default_rng([seed, len(labelled.ids)])
    turned = torch.zeros(len(labelled.ids), dtype=torch.bool)
    turned[torch.from_numpy(generator.permutation(len(labelled.ids))[: round(share * len(labelled.ids))])] = True
    responses = [ys[::-1] if turn else ys for ys, turn in zip(labelled.responses, turned.tolist(), strict=True)]
    columns = {name: torch.where(turned.unsqueeze(-1), column.flip(-1), column) for name, column in labelled.columns.items()}
    return Batch(labelled.ids, labelled.prompts, responses, columns)


def single(labelled: Batch, kind: str) -> Batch:
    """The chosen response of each pair, the rejected one, or both, each an example by itself."""
    sides = {"chosen": [0], "rejected": [1], "both": [0, 1]}[kind]
    return Batch(
        [f"{name}/{side}" if len(sides) > 1 else name for name in labelled.ids for side in sides],
        [prompt for prompt in labelled.prompts for _ in sides],
        [[ys[side]] for ys in labelled.responses for side in sides],
    )


def prompts(inputs: dict[str, Path], codec: TextCodec) -> list[tuple[str, list[int]]]:
    """For rollouts: the training prompts of the input `prompts` where there is one, else the distinct ones of the pairs."""
    if "prompts" in inputs:
        every = tables.read_table(inputs["prompts"] / "prompts.parquet", tables.PROMPTS)
        distinct = {row["prompt_id"]: row["prompt"] for row in every if row["split"] == "train"}
    else:
        distinct = {row["prompt_id"]: row["prompt"] for row in preference_rows(inputs["preferences"], "train")}
    return [(name, codec.prompt(text)) for name, text in distinct.items()]
