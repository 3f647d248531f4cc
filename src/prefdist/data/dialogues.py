"""Pairs of whole dialogues in the format of HH-RLHF (Bai et al. 2022, arXiv 2204.05862), as prompts and two final turns.

A dialogue is one text, "\\n\\nHuman: …\\n\\nAssistant: …"; two that a rater compared share all but the final turn. Some rows
of the published files do not: each defect has a name, and a row that has one is dropped and reported, or refused. Left out:
what the rows are used for, and judgements about their content.
"""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from prefdist.data.json_lines import Row, read_rows
from prefdist.errors import UserError

Message = dict[str, str]
"""{"role": "user" or "assistant", "content": a stripped text}, as chat templates take it."""

ROLES = {"Human": "user", "Assistant": "assistant"}
DEFECTS = {
    "no_turns": "there is no turn in a side",
    "text_before_first_turn": "something stands before the first turn",
    "starts_with_assistant": "the first turn is not the human's",
    "ends_with_human": "the final turn is not the assistant's",
    "roles_out_of_order": "a speaker has two turns in a row",
    "empty_turn": "a turn before the final one has no text",
    "empty_final_turn": "a response has no text",
    "role_marker_in_turn": "a turn has `Human:` or `Assistant:` in it: two turns that were not parted, or an imitation",
    "prompts_differ": "the two sides differ before the final turn",
    "identical_responses": "the two final turns are the same",
}
"""Kind of a defect -> what it means, for reports."""
SHOWN = 5
"""Rows that an error lists."""

_TURN = re.compile(r"\n\n(Human|Assistant):")
_MARKER = re.compile(r"\b(?:Human|Assistant):")


@dataclass(frozen=True)
class DialoguePair:
    """One row: the shared messages, which end with the user's, and the assistant's two answers to them."""

    row: int
    prompt: list[Message]
    chosen: str
    rejected: str


@dataclass(frozen=True)
class Defect:
    """What is wrong with a row; `kind` is a key of DEFECTS. A row may have several."""

    file: Path
    row: int
    kind: str


@dataclass(frozen=True)
class Dialogues:
    """The rows that are sound, and what is wrong with each of the others; `rows` counts both."""

    rows: int
    pairs: list[DialoguePair]
    defects: list[Defect]

    @property
    def counts(self) -> dict[str, int]:
        """Rows of each kind of defect, most frequent first. They can sum to more than the rows that were dropped."""
        return dict(Counter(defect.kind for defect in self.defects).most_common())


def read_dialogues(source: Path, *, on_defect: Literal["drop", "refuse"], split: str | None = None) -> Dialogues:
    """Read rows with the texts `chosen` and `rejected`; see `json_lines.read_rows` for `source` and `split`.

    Args:
        on_defect: "drop" leaves rows with a defect out and reports them; "refuse" accepts none.

    Raises:
        UserError: a row lacks one of the two texts; or, to be refused, a row has a defect: the first are listed, all counted.
    """
    rows = read_rows(source, split)
    pairs, defects = [], []
    for row in rows:
        sides = {side: _turns(row.text(side)) for side in ("chosen", "rejected")}
        kinds = _defects(row, *sides.values())
        defects += [Defect(row.file, row.number, kind) for kind in DEFECTS if kind in kinds]
        if not kinds:
            prompt, (chosen, rejected) = sides["chosen"][:-1], (side[-1]["content"] for side in sides.values())
            pairs.append(DialoguePair(row.number, prompt, chosen, rejected))
    found = Dialogues(len(rows), pairs, defects)
    if on_defect == "refuse" and defects:
        raise _refusal(source, found)
    return found


def _turns(dialogue: str) -> list[Message]:
    _, *parts = _TURN.split(dialogue)
    return [{"role": ROLES[speaker], "content": text.strip()} for speaker, text in zip(parts[::2], parts[1::2], strict=True)]


def _defects(row: Row, chosen: Sequence[Message], rejected: Sequence[Message]) -> set[str]:
    """Kinds of the row's defects. Sides are compared only where both have turns."""
    kinds = set()
    for name, turns in {"chosen": chosen, "rejected": rejected}.items():
        if not turns:
            return {"no_turns"}
        roles, texts = [turn["role"] for turn in turns], [turn["content"] for turn in turns]
        found = {
            "text_before_first_turn": bool(_TURN.split(row.text(name))[0].strip()),
            "starts_with_assistant": roles[0] != "user",
            "ends_with_human": roles[-1] != "assistant",
            "roles_out_of_order": any(first == second for first, second in pairwise(roles)),
            "empty_turn": not all(texts[:-1]),
            "empty_final_turn": not texts[-1],
            "role_marker_in_turn": any(_MARKER.search(text) for text in texts),
        }
        kinds |= {kind for kind, is_so in found.items() if is_so}
    if chosen[:-1] != rejected[:-1]:
        kinds.add("prompts_differ")
    if chosen[-1] == rejected[-1]:
        kinds.add("identical_responses")
    return kinds


def _refusal(source: Path, found: Dialogues) -> UserError:
    counts = ", ".join(f"{kind} {count}" for kind, count in found.counts.items())
    bad = len({(defect.file, defect.row) for defect in found.defects})
    first = ", ".join(f"row {defect.row} ({defect.kind})" for defect in found.defects[:SHOWN])
    more = ", …" if len(found.defects) > SHOWN else ""
    return UserError(
        f"{source}: {bad} of {found.rows} rows have a defect ({counts}); the first are {first}{more}; "
        f'mend them, or set on_defect to "drop"'
    )
