"""The stage `pairs`: prompts and labelled pairs of a dataset, for the policies or for the reward model that judges them.

A dialogue of several turns is put to a model as a transcript in one user turn. The two parts share no prompt: a hash of it
says to which one a training pair belongs. Left out: pairs that a known target labels (scoring/preferences.py).
"""

import hashlib
import json
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.budget import LONG, SHORTENED, Budget
from prefdist.data.columns import PAIRS, read_columns
from prefdist.data.dialogues import Message, read_dialogues
from prefdist.data.json_lines import read_rows
from prefdist.errors import UserError
from prefdist.tokens import TextCodec, checked_codec

Triple = tuple[str, str, str]
"""Prompt, chosen, rejected."""
SPEAKERS = {"user": "Human", "assistant": "Assistant"}


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes prompts.parquet, preferences.parquet and defects.json: rows left out or shortened, by file, row and reason."""
    codec, source = checked_codec(inputs["base"]), inputs["dataset"] / spec["path"]
    budget = Budget(codec, spec.get("max_prompt_tokens"), spec.get("too_long", "refuse"))
    prompts: dict[str, dict[str, str]] = {}
    pairs, defects = [], []
    for split in ("test", "train"):  # a prompt that is held out is not trained on
        found, left_out = _read(spec, source, spec["splits"][split], budget)
        defects += left_out
        kept = [t for t in found if _is_wanted(spec, t[0]) and (split == "test" or _part(spec, t[0]) == spec["part"])]
        of_split: dict[str, list[Triple]] = {}
        for triple in kept:
            name = _identity(triple[0])
            if name not in prompts:
                of_split.setdefault(name, []).append(triple)
        most = None if spec.get("repeated_prompts") == "all" else 1
        numbered = [(name, i, triple) for name, triples in sorted(of_split.items()) for i, triple in enumerate(triples[:most])]
        for name, i, triple in numbered[: spec["train_pairs"] if split == "train" else spec["test_prompts"]]:
            prompts.setdefault(name, _prompt_row(name, split, triple, source.name))
            pairs.append(_pair_row(name, i, split, triple, codec, spec["max_response_tokens"]))
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


def _read(spec: dict[str, Any], source: Path, split: str, budget: Budget) -> tuple[list[Triple], list[dict[str, Any]]]:
    """Sound pairs of a split of the dataset, and what is wrong with the others."""
    if spec["format"] == "dialogues":
        found = read_dialogues(source, on_defect=spec["on_defect"], split=split)
        named = [{"file": str(d.file.relative_to(source)), "row": d.row, "defect": d.kind} for d in found.defects]
        return [(transcript(pair.prompt), pair.chosen, pair.rejected) for pair in found.pairs], named
    pairs: list[Triple] = []
    defects = []
    for one in read_columns(read_rows(source, split), PAIRS[spec["format"]]):
        if one.defect is not None:
            if spec["on_defect"] == "refuse":
                raise one.row.error("chosen", f"makes no comparison ({one.defect})")
            defects.append(one.named(source, one.defect))
            continue
        prompt, length = budget.fit(one)
        if prompt != one.prompt:
            defects.append(one.named(source, SHORTENED if prompt else LONG, tokens=length))
        if prompt:
            pairs.append((prompt, one.answers[0], one.answers[1]))
    return pairs, defects


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


def _pair_row(name: str, i: int, split: str, triple: Triple, codec: TextCodec, longest: int) -> dict[str, Any]:
    """The i-th pair of a prompt."""
    prompt, chosen, rejected = triple
    return {
        "pair_id": f"{name}/{i}" if i else name,
        "prompt_id": name,
        "split": split,
        "prompt": prompt,
        "chosen": chosen,
        "rejected": rejected,
        "chosen_ids": codec.response(chosen)[:longest],
        "rejected_ids": codec.response(rejected)[:longest],
        "p_chosen": None,
    }
