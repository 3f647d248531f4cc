"""The stage `pairs`: prompts and labelled pairs of a dataset, for the policies or for the reward model that judges them.

A dialogue of several turns is put to a model as a transcript in one user turn. The two parts share no prompt: a hash of it
says to which one a training pair belongs. Left out: pairs that a known target labels (scoring/preferences.py).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.dialogues import Message, read_dialogues
from prefdist.data.json_lines import Row, read_rows
from prefdist.errors import UserError
from prefdist.tokens import TextCodec

Triple = tuple[str, str, str]
"""Prompt, chosen, rejected."""
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes prompts.parquet, preferences.parquet and defects.json: rows that were left out, by file, row and reason."""
    codec, source = TextCodec(inputs["base"]), inputs["dataset"] / spec["path"]
    prompts, pairs, defects = {}, [], []
    for split in ("test", "train"):  # a prompt that is held out is not trained on
        found, left_out = _read(spec, source, spec["splits"][split])
        defects += left_out
        kept = [t for t in found if _is_wanted(spec, t[0]) and (split == "test" or _part(spec, t[0]) == spec["part"])]
        of_split: dict[str, Triple] = {}
        for triple in kept:
            name = _identity(triple[0])
            if name not in prompts:
                of_split.setdefault(name, triple)
        size = spec["train_pairs"] if split == "train" else spec["test_prompts"]
        for name, triple in sorted(of_split.items())[:size]:
            prompts[name] = _prompt_row(name, split, triple, source.name)
            pairs.append(_pair_row(name, split, triple, codec, spec["max_response_tokens"]))
    if not any(row["split"] == "train" for row in pairs):
        raise UserError(f"{source}: no training pair is left; raise max_prompt_chars, or look at the dataset's splits")
    tables.write_table(out / "prompts.parquet", list(prompts.values()), tables.PROMPTS)
    tables.write_table(out / "preferences.parquet", pairs, tables.PREFERENCES)
    (out / "defects.json").write_text(json.dumps(defects, indent=1) + "\n")


def transcript(messages: list[Message]) -> str:
    """One user turn: its text, or, after others, all turns with their speakers' names."""
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{SPEAKERS[message['role']]}: {message['content']}" for message in messages)


def _read(spec: dict[str, Any], source: Path, split: str) -> tuple[list[Triple], list[dict[str, Any]]]:
    """Sound pairs of a split of the dataset, and what is wrong with the others."""
    if spec["format"] == "dialogues":
        found = read_dialogues(source, on_defect=spec["on_defect"], split=split)
        named = [{"file": str(d.file.relative_to(source)), "row": d.row, "defect": d.kind} for d in found.defects]
        return [(transcript(pair.prompt), pair.chosen, pair.rejected) for pair in found.pairs], named
    pairs, defects = [], []
    for row, triple, defect in _messages(read_rows(source, split)):
        if defect is None:
            pairs.append(triple)
        elif spec["on_defect"] == "refuse":
            raise row.error("chosen", f"makes no comparison ({defect})")
        else:
            defects.append({"file": str(row.file.relative_to(source)), "row": row.number, "defect": defect})
    return pairs, defects


def _messages(rows: list[Row]) -> Iterator[tuple[Row, Triple, str | None]]:
    """Rows with a text `prompt` and lists of messages `chosen` and `rejected`, whose last one answers it."""
    for row in rows:
        prompt, answers = row.text("prompt").strip(), []
        for side in ("chosen", "rejected"):
            turns = row.values.get(side)
            if not (isinstance(turns, list) and turns and isinstance(turns[-1], dict) and "content" in turns[-1]):
                raise row.error(side, "is not a list of messages")
            answers.append(str(turns[-1]["content"]).strip())
        defect = None
        if not prompt:
            defect = "empty_prompt"
        elif not all(answers):
            defect = "empty_final_turn"
        elif answers[0] == answers[1]:
            defect = "identical_responses"
        yield row, (prompt, answers[0], answers[1]), defect


def _is_wanted(spec: dict[str, Any], prompt: str) -> bool:
    return spec["max_prompt_chars"] is None or len(prompt) <= spec["max_prompt_chars"]


def _part(spec: dict[str, Any], prompt: str) -> str:
    """Another hash than the one that orders pairs, or the judge's would be the first of the order."""
    share = int.from_bytes(hashlib.sha256(f"part:{prompt}".encode()).digest()[:6], "big") / 2**48
    return "judge" if share < spec["judge_share"] else "policies"


def _identity(prompt: str) -> str:
    return hashlib.sha256(prompt.encode()).hexdigest()[:16]


def _prompt_row(name: str, split: str, triple: Triple, module: str) -> dict[str, str]:
    return {"prompt_id": name, "module": module, "split": split, "prompt": triple[0], "reference": triple[1]}


def _pair_row(name: str, split: str, triple: Triple, codec: TextCodec, longest: int) -> dict[str, Any]:
    prompt, chosen, rejected = triple
    return {
        "pair_id": name,
        "prompt_id": name,
        "split": split,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_ids": codec.response(chosen)[:longest],
        "rejected_ids": codec.response(rejected)[:longest],
        "p_chosen": None,
    }
