"""Rows of files and dialogues: each defect by its name on rows written by hand, and all of them counted on the real file."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prefdist.data.dialogues import DEFECTS, read_dialogues
from prefdist.data.json_lines import read_rows
from prefdist.errors import UserError

HH_RLHF = Path(__file__).resolve().parents[2] / "shared/data/hh_rlhf"
ASKED = "\n\nHuman: Hello?\n\nAssistant: Yes?\n\nHuman: Say it.\n\nAssistant:"
SOUND = {"chosen": ASKED + " One.", "rejected": ASKED + " Two. "}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_a_sound_row_is_messages_and_two_answers(tmp_path: Path) -> None:
    found = read_dialogues(written(tmp_path / "a.jsonl", [SOUND]), on_defect="refuse")
    assert (found.rows, found.defects, found.counts) == (1, [], {})
    (pair,) = found.pairs
    assert [(message["role"], message["content"]) for message in pair.prompt] == [
        ("user", "Hello?"),
        ("assistant", "Yes?"),
        ("user", "Say it."),
    ]
    assert (pair.row, pair.chosen, pair.rejected) == (0, "One.", "Two.")


@pytest.mark.parametrize(
    ("chosen", "rejected", "kinds"),
    [
        ("Hello", ASKED + " Two.", {"no_turns"}),
        ("Note." + ASKED + " One.", ASKED + " Two.", {"text_before_first_turn"}),
        ("\n\nAssistant: One.", "\n\nAssistant: Two.", {"starts_with_assistant"}),
        (ASKED + " One.\n\nHuman: No.", ASKED + " Two.\n\nHuman: Yes.", {"ends_with_human", "prompts_differ"}),
        (ASKED + " A.\n\nAssistant: One.", ASKED + " A.\n\nAssistant: Two.", {"roles_out_of_order"}),
        ("\n\nHuman: \n\nAssistant: One.", "\n\nHuman:\n\nAssistant: Two.", {"empty_turn"}),
        (ASKED + " One.", ASKED + " \n", {"empty_final_turn"}),
        (ASKED + " One. Human: More!", ASKED + " Two.", {"role_marker_in_turn"}),
        (ASKED + " One.", ASKED.replace("it", "all") + " Two.", {"prompts_differ"}),
        (ASKED + " One.", ASKED + " One. ", {"identical_responses"}),
        (ASKED + "", ASKED + " ", {"empty_final_turn", "identical_responses"}),
    ],
)
def test_each_defect_has_a_name(tmp_path: Path, chosen: str, rejected: str, kinds: set[str]) -> None:
    file = written(tmp_path / "a.jsonl", [SOUND, {"chosen": chosen, "rejected": rejected}, SOUND])
    found = read_dialogues(file, on_defect="drop")
    assert [pair.row for pair in found.pairs] == [0, 2]
    assert {(defect.file, defect.row, defect.kind) for defect in found.defects} == {(file, 1, kind) for kind in kinds}
    assert kinds <= DEFECTS.keys()
    with pytest.raises(UserError, match=rf"1 of 3 rows have a defect .*row 1 \({found.defects[0].kind}\)"):
        read_dialogues(file, on_defect="refuse")


def test_words_that_only_look_like_a_marker_are_text(tmp_path: Path) -> None:
    row = {"chosen": ASKED + " A superHuman: yes; a Human is one.", "rejected": ASKED + " human: lower case."}
    assert len(read_dialogues(written(tmp_path / "a.jsonl", [row]), on_defect="refuse").pairs) == 1


@pytest.mark.skipif(not HH_RLHF.is_dir(), reason=f"needs the real dialogues of {HH_RLHF}, which are no part of the project")
def test_the_defects_of_the_real_file() -> None:
    found = read_dialogues(HH_RLHF, on_defect="drop")
    rows = {kind: {defect.row for defect in found.defects if defect.kind == kind} for kind in DEFECTS}
    assert rows["empty_final_turn"] == {86, 516, 925, 1103}
    assert rows["prompts_differ"] == {1254, 1688, 1950, 1952, 2036}
    assert rows["roles_out_of_order"] == {667, 763, 1254, 1319, 1688, 1849, 1950, 1952, 2036}
    assert found.counts == {
        "role_marker_in_turn": 49,
        "roles_out_of_order": 9,
        "prompts_differ": 5,
        "empty_final_turn": 4,
    }
    bad = {defect.row for defect in found.defects}
    assert (found.rows, len(bad), len(found.pairs)) == (2312, 57, 2255)
    assert not bad & {pair.row for pair in found.pairs}
    # Counted otherwise: by the lines' own text, without a parser of turns.
    with gzip.open(next(HH_RLHF.glob("*.jsonl.gz")), "rt") as lines:
        texts = [json.loads(line) for line in lines]
    marked = {i for i, row in enumerate(texts) if any(re.search(r"(?<!\n\n)(Human|Assistant):", text) for text in row.values())}
    assert rows["role_marker_in_turn"] == marked
    first = found.pairs[0]
    assert texts[0]["chosen"].endswith(f"\n\nAssistant: {first.chosen}")
    assert first.prompt[0] == {"role": "user", "content": "what are some pranks with a pen i can do?"}
    with pytest.raises(UserError, match=r"57 of 2312 rows .*empty_final_turn 4.*row 29 \(role_marker_in_turn\)"):
        read_dialogues(HH_RLHF, on_defect="refuse")


def test_rows_are_read_from_every_kind_of_file(tmp_path: Path) -> None:
    rows = [{"n": 1, "t": ["é"]}, {"n": 2, "t": []}]
    written(tmp_path / "train.jsonl", rows)
    with gzip.open(tmp_path / "train-2.jsonl.gz", "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "train-00000-of-00001.parquet")
    written(tmp_path / "test.jsonl", rows[:1])
    written(tmp_path / "training.jsonl", rows[:1])
    (tmp_path / "README.md").write_text("not rows")
    found = read_rows(tmp_path, "train")
    assert [(row.file.name, row.number, row.values) for row in found] == [
        (name, number, rows[number])
        for name in ("train-00000-of-00001.parquet", "train-2.jsonl.gz", "train.jsonl")
        for number in (0, 1)
    ]
    assert len(read_rows(tmp_path)) == 8
    assert [row.values for row in read_rows(tmp_path / "train-2.jsonl.gz")] == rows
    assert found[0].texts("t") == ["é"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"a": 1}\n{"a": \n', "row 1 is not JSON"),
        (b'{"a": 1}\n\n', "row 1 is not JSON"),
        (b'{"a": 1}\n[1]\n', "row 1 is not a JSON object"),
        (b'{"a": 1}\n{"a": "\xff"}\n', "not readable"),
    ],
)
def test_a_broken_file_is_named_with_the_row(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "a.jsonl"
    file.write_bytes(content)
    with pytest.raises(UserError, match=rf"a\.jsonl: {message}"):
        read_rows(file)


def test_missing_files_and_columns_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such file, and no folder with train\.jsonl"):
        read_rows(tmp_path, "train")
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"a\.txt: not a file of rows"):
        read_rows(tmp_path / "a.txt")
    (tmp_path / "cut.jsonl.gz").write_bytes(gzip.compress(b'{"a": 1}\n' * 99)[:-9])
    with pytest.raises(UserError, match=r"cut\.jsonl\.gz: not readable"):
        read_rows(tmp_path / "cut.jsonl.gz")
    (tmp_path / "a.parquet").write_text("no")
    with pytest.raises(UserError, match="not a readable Parquet file"):
        read_rows(tmp_path / "a.parquet")
    file = written(tmp_path / "a.jsonl", [{"chosen": ASKED, "rejected": 5, "flag": True, "mixed": ["a", 1]}])
    with pytest.raises(UserError, match=r"row 0: 'rejected' is not a text \(value 5"):
        read_dialogues(file, on_defect="drop")
    (row,) = read_rows(file)
    for read, message in [
        (lambda: row.text("reply"), "no key 'reply'; its keys are chosen, rejected"),
        (lambda: row.integer("flag"), "'flag' is not a whole number"),
        (lambda: row.texts("mixed"), "'mixed' is not a list of texts"),
        (lambda: row.mapping("chosen"), "'chosen' is not a mapping"),
    ]:
        with pytest.raises(UserError, match=message):
            read()
