"""Prompts of demonstrations and benchmarks, with their answers and second turns: what is read, and what is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from test_adl_data import END, Row, completing, post, write

from prefdist.data import dataset, prompts, tables
from prefdist.errors import UserError


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return completing(tmp_path_factory.mktemp("neox"))


def read_prompts(folder: Path, base: Path, files: dict[str, list[Row]], **spec: Any) -> tuple[list[Row], list[Row]]:
    data, out = folder / "data", folder / "out"
    for name, rows in files.items():
        write(data / name, rows)
    out.mkdir(exist_ok=True)
    plain = {"path": "", "splits": {"test": "test"}, "on_defect": "drop", "max_prompt_tokens": None, "too_long": "refuse"}
    prompts.run(plain | spec, {"dataset": data, "base": base}, out, folder)
    return tables.read_table(out / "prompts.parquet", tables.PROMPTS), json.loads((out / "defects.json").read_text())


def test_demonstrations_and_their_defects(tmp_path: Path, base: Path) -> None:
    """A post that is held out is not learnt from; one that comes again counts once; each is named."""
    files = {
        "train.jsonl": [{"query": post(i), "reference_response": f" read it {i}.{END}", "id": "t3"} for i in (1, 2, 1, 3)],
        "test.jsonl": [
            {"query": post(3), "reference_response": f" open it.{END}"},
            {"query": post(4), "reference_response": END},
        ],
    }
    found, defects = read_prompts(tmp_path, base, files, format="tldr_oai", splits={"train": "train", "test": "test"})
    assert [(row["split"], row["prompt"], row["reference"]) for row in found] == [
        ("test", post(3), " open it."),
        ("train", post(1), " read it 1."),
        ("train", post(2), " read it 2."),
    ]
    assert defects == [
        {"file": "test.jsonl", "row": 1, "defect": "empty_final_turn"},
        {"file": "train.jsonl", "row": 2, "defect": "repeated_prompt"},
        {"file": "train.jsonl", "row": 3, "defect": "repeated_prompt"},
    ]


MESSAGES = [{"role": "user", "content": "Open."}, {"role": "assistant", "content": "Open it."}]


@pytest.mark.parametrize(
    ("name", "rows", "expected"),
    [
        ("tldr_trl", [{"prompt": post(1), "completion": " Open it."}], (post(1), " Open it.")),
        ("messages", [{"prompt": "Open.", "chosen": MESSAGES, "rejected": MESSAGES}], ("Open.", "Open it.")),
        ("alpaca_eval", [{"instruction": "Open.", "output": "Open it.", "generator": "x"}], ("Open.", "Open it.")),
        ("mt_bench", [{"prompt": ["Open.", "Close."], "reference": []}], ("Open.", "")),
        ("arena_hard", [{"uid": "a", "prompt": "Open.", "cluster": "x"}], ("Open.", "")),
    ],
)
def test_columns_of_other_datasets(name: str, rows: list[Row], expected: tuple[str, str], tmp_path: Path, base: Path) -> None:
    found, defects = read_prompts(tmp_path, base, {"test.jsonl": rows}, format=name)
    assert [(row["prompt"], row["reference"]) for row in found] == [expected] and not defects


def test_a_json_list_is_read_where_it_is_named(tmp_path: Path, base: Path) -> None:
    """AlpacaEval's file; in a folder, such files are about other things."""
    rows = {
        "answers.json": [{"instruction": "Open.", "output": "Open it."}],
        "test.jsonl": [{"instruction": "A.", "output": "B."}],
    }
    found, _ = read_prompts(tmp_path, base, rows, format="alpaca_eval", path="answers.json")
    assert [row["prompt"] for row in found] == ["Open."]
    found, _ = read_prompts(tmp_path, base, {}, format="alpaca_eval")
    assert [row["prompt"] for row in found] == ["A."]
    (tmp_path / "data/answers.json").write_text('{"instruction": "Open."}')
    with pytest.raises(UserError, match=r"answers\.json: not a list of JSON objects"):
        read_prompts(tmp_path, base, {}, format="alpaca_eval", path="answers.json")


def test_a_turn_that_is_no_text_and_an_empty_split_are_named(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=r"test\.jsonl: row 0: 'prompt' is neither a text nor a list of messages"):
        read_prompts(tmp_path, base, {"test.jsonl": [{"prompt": [{"text": "Open."}]}]}, format="arena_hard")
    with pytest.raises(UserError, match=r"no prompt is left of splits test; look at the dataset"):
        read_prompts(tmp_path, base, {"test.jsonl": [{"prompt": ["", ""]}]}, format="mt_bench")


def test_second_turns_go_with_their_first(tmp_path: Path, base: Path) -> None:
    """Under the first question's name; a row whose first question is left out has none."""
    rows = [
        {"prompt": [" Open.", "Close. "], "reference": []},
        {"prompt": ["Read.", "Count."], "reference": ["a", "1 "]},
        {"prompt": ["Read.", "Again."], "reference": []},
    ]
    found, defects = read_prompts(tmp_path, base, {"test.jsonl": rows}, format="mt_bench")
    second = tables.read_table(tmp_path / "out/second_turns.parquet", tables.SECOND_TURNS)
    assert [(row["prompt"], row["first_reference"], row["reference"]) for row in second] == [
        ("Close.", "", ""),
        ("Count.", "a", "1"),
    ]
    assert [row["prompt_id"] for row in second] == [row["prompt_id"] for row in found]
    assert [defect["defect"] for defect in defects] == ["repeated_prompt"]


@pytest.mark.parametrize(
    ("row", "key", "turns"),
    [({"prompt": ["Open."]}, "prompt", 1), ({"prompt": ["Open.", "Close."], "reference": ["a"]}, "reference", 1)],
)
def test_dialogues_without_two_turns_are_named(row: Row, key: str, turns: int, tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=rf"test\.jsonl: row 0: '{key}' has {turns} turns, not two"):
        read_prompts(tmp_path, base, {"test.jsonl": [row]}, format="mt_bench")


def test_a_dataset_is_its_files_of_data_or_those_that_are_named(tmp_path: Path) -> None:
    for name in ("a/test.jsonl", "a/gamed.csv", "load.py", "b.parquet"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(name)

    def taken(**files: list[str]) -> list[str]:
        out = tmp_path / f"out{len(files)}"
        dataset.run({"dataset": str(tmp_path / "data"), "revision": None} | files, {}, out, tmp_path)
        return sorted(str(file.relative_to(out)) for file in out.rglob("*") if file.is_file())

    assert taken() == ["a/test.jsonl", "b.parquet"]
    assert taken(files=["a/gamed.csv"]) == ["a/gamed.csv"]
    with pytest.raises(UserError, match=r"no file other\.csv in it; look at its page, or leave out files"):
        taken(files=["a/gamed.csv", "other.csv"])


def test_answers_to_arena_hard_are_joined_by_their_ids(tmp_path: Path, base: Path) -> None:
    questions = [{"uid": name, "prompt": f"Question {name}?"} for name in ("b", "a", "c")]
    said = [{"uid": name, "messages": [{"role": "user"}, {"content": {"answer": f" {name}! "}}]} for name in ("a", "b", "z")]
    rows = {"question.jsonl": questions, "model_answer/gpt.jsonl": said}
    where = {"format": "arena_hard", "path": "question.jsonl", "answers": "model_answer/gpt.jsonl"}
    found, defects = read_prompts(tmp_path, base, rows, **where)
    assert [(row["prompt"], row["reference"]) for row in found] == [("Question b?", "b!"), ("Question a?", "a!")]
    assert defects == [{"file": "question.jsonl", "row": 2, "defect": "no_answer"}]
    with pytest.raises(UserError, match=r"row 2: 'prompt' is no use as a prompt \(no_answer\)"):
        read_prompts(tmp_path, base, rows, on_defect="refuse", **where)
    rows["model_answer/gpt.jsonl"][1] = {"uid": "b", "messages": [{"content": "b!"}]}
    with pytest.raises(UserError, match=r"gpt\.jsonl: row 1: 'messages' does not end with a message of an answer"):
        read_prompts(tmp_path, base, rows, **where)
