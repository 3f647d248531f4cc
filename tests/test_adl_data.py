"""TL;DR's completing base models and labelled pairs, and budgets of prompts: what is read, and what is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from chat_models import COMPLETES, llama3_folder, neox_folder
from transformers import AutoTokenizer

from prefdist.data import models, pairs, tables
from prefdist.errors import UserError
from prefdist.tokens import TextCodec

END = "<|endoftext|>"
Row = dict[str, Any]


def post(i: int, words: int = 3) -> str:
    return f"SUBREDDIT: r/{i}\n\nPOST: {'read ' * words}it.\n\nTL;DR:"


def comparison(i: int, chosen: str, rejected: str, **more: Any) -> Row:
    """In the columns of the preprocessed comparisons, whose summaries have a space before and a mark behind them."""
    return {"query": post(i), "chosen": f" {chosen}{END}", "rejected": f" {rejected}{END}", "policies": "a--b"} | more


def write(file: Path, rows: list[Row]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(rows) if file.suffix == ".json" else "".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return completing(tmp_path_factory.mktemp("neox"))


def completing(root: Path) -> Path:
    """A GPT-NeoX model as the stage `model` leaves it, with TL;DR's template."""
    out = root / "out"
    models.run({"hub": None, "revision": None, "folder": str(neox_folder(root / "in")), "template": COMPLETES}, {}, out, root)
    return out


# ---- a base model becomes one that completes -------------------------------------------------------------------------


def test_a_prompt_and_its_summary_are_one_text(base: Path) -> None:
    """BOS, the text as transformers tokenizes it in one piece, EOS (the same token here); PAD is another one."""
    codec, tokenizer = TextCodec(base), AutoTokenizer.from_pretrained(base)
    end, pad = tokenizer.convert_tokens_to_ids([END, "<|padding|>"])
    assert (codec.bos_id, codec.eos_id, codec.pad_id, codec.stop_ids) == (end, end, pad, (end,))
    assert AutoTokenizer.from_pretrained(base).pad_token is None
    joined = codec.prompt(post(1)) + codec.response(" open it.")
    assert joined == [end, *tokenizer(post(1) + " open it.", add_special_tokens=False).input_ids, end]
    assert codec.decode(codec.response(" open it.")) == " open it."


@pytest.mark.parametrize("text", [f"open {END} it", "open  it   again", f"{END}"])
def test_text_is_never_markup(text: str, base: Path) -> None:
    """A text that spells the end stays text, also where the end is BOS too; runs of spaces are tokens and stay."""
    codec = TextCodec(base)
    ids = codec.prompt(text)
    assert ids[0] == codec.bos_id and codec.bos_id not in ids[1:]
    assert AutoTokenizer.from_pretrained(base).decode(ids[1:]) == text


def test_a_spelled_begin_stays_text_in_chats_too(tmp_path: Path) -> None:
    codec = TextCodec(llama3_folder(tmp_path))
    ids = codec.prompt("open <|begin_of_text|> it")
    assert ids.count(codec.bos_id) == 1
    assert "open <|begin_of_text|> it" in codec.decode(ids)


# ---- labelled pairs --------------------------------------------------------------------------------------------------

COMPARISONS = [
    comparison(1, "open it.", "close it."),
    comparison(1, "open it.", "read it."),  # the same post again: comparisons of other summaries
    comparison(2, "same.", "same."),
    comparison(3, "", "close it."),
    comparison(4, "open it.", "close it.", query="  "),
    comparison(5, "open it.", "close it.", query=post(5, 40)),
    comparison(6, "held out.", "close it."),  # held out, too
    comparison(7, "open it.", "close it."),
]
PAIRS = {
    "format": "tldr_oai",
    "path": "",
    "splits": {"train": "train", "test": "validation"},
    "on_defect": "drop",
    "part": "policies",
    "judge_share": 0.0,
    "max_prompt_chars": None,
    "repeated_prompts": "all",
    "train_pairs": 100,
    "test_prompts": 100,
    "max_response_tokens": 100,
    "max_prompt_tokens": None,
    "too_long": "refuse",
}


def read_pairs(folder: Path, base: Path, **changes: Any) -> tuple[list[Row], list[Row]]:
    """Pairs and defects of the comparisons above."""
    data, out = folder / "data", folder / "out"
    write(data / "train.jsonl", COMPARISONS)
    write(data / "validation.jsonl", [comparison(6, "held out.", "close it.")])
    out.mkdir(exist_ok=True)
    pairs.run(PAIRS | changes, {"dataset": data, "base": base}, out, folder)
    return tables.read_table(out / "preferences.parquet", tables.PREFERENCES), json.loads((out / "defects.json").read_text())


def test_comparisons_and_their_defects(tmp_path: Path, base: Path) -> None:
    """Of eight rows three are no comparison and one is of a held-out post: four are left, two of them of one post."""
    found, defects = read_pairs(tmp_path, base)
    train = [row for row in found if row["split"] == "train"]
    assert sorted((row["prompt"], row["chosen"], row["rejected"]) for row in train) == sorted(
        [
            (post(1), " open it.", " close it."),
            (post(1), " open it.", " read it."),
            (post(5, 40), " open it.", " close it."),
            (post(7), " open it.", " close it."),
        ]
    )
    assert len({row["pair_id"] for row in found}) == 5 and len({row["prompt_id"] for row in train}) == 3
    tokenizer = AutoTokenizer.from_pretrained(base)
    for row in train:
        ids = tokenizer(row["chosen"], add_special_tokens=False).input_ids
        assert row["chosen_ids"] == [*ids, tokenizer.eos_token_id]
    assert defects == [
        {"file": "train.jsonl", "row": 2, "defect": "identical_responses"},
        {"file": "train.jsonl", "row": 3, "defect": "empty_final_turn"},
        {"file": "train.jsonl", "row": 4, "defect": "empty_prompt"},
    ]


def test_as_many_pairs_as_are_asked_for(tmp_path: Path, base: Path) -> None:
    found, _ = read_pairs(tmp_path, base, train_pairs=2)
    assert [row["split"] for row in found].count("train") == 2


def test_trls_columns(tmp_path: Path, base: Path) -> None:
    """With a space before the summary or without: it is the same text."""
    rows = [{"prompt": post(1), "chosen": " open it.", "rejected": "close it."}]
    write(tmp_path / "data/train-00000-of-00001.jsonl", rows)
    write(tmp_path / "data/validation.jsonl", [row | {"prompt": post(2)} for row in rows])
    (tmp_path / "out").mkdir()
    pairs.run(PAIRS | {"format": "tldr_trl"}, {"dataset": tmp_path / "data", "base": base}, tmp_path / "out", tmp_path)
    found = tables.read_table(tmp_path / "out/preferences.parquet", tables.PREFERENCES)
    assert [(row["chosen"], row["rejected"]) for row in found] == [(" open it.", " close it.")] * 2


def test_a_missing_column_is_named(tmp_path: Path, base: Path) -> None:
    with pytest.raises(
        UserError, match=r"validation\.jsonl: row 0: no key 'prompt'; its keys are query, chosen, rejected, pol"
    ):
        read_pairs(tmp_path, base, format="tldr_trl")
    write(tmp_path / "data/train.jsonl", [{"query": post(1), "chosen": " open it."}])
    with pytest.raises(UserError, match=r"train\.jsonl: row 0: no key 'rejected'; its keys are query, chosen$"):
        pairs.run(PAIRS, {"dataset": tmp_path / "data", "base": base}, tmp_path / "out", tmp_path)


def test_a_defect_can_be_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=r"train\.jsonl: row 2: 'chosen' makes no comparison \(identical_responses\)"):
        read_pairs(tmp_path, base, on_defect="refuse")


# ---- prompts over the budget -----------------------------------------------------------------------------------------


def test_long_prompts_are_refused(tmp_path: Path, base: Path) -> None:
    length = len(TextCodec(base).prompt(post(5, 40)))
    wanted = rf"train\.jsonl: row 5: its prompt has {length} tokens, and prompts\.max_tokens is {length - 1}; raise it, or set"
    with pytest.raises(UserError, match=wanted):
        read_pairs(tmp_path, base, max_prompt_tokens=length - 1)
    assert len(read_pairs(tmp_path, base, max_prompt_tokens=length)[1]) == 3


def test_long_prompts_are_dropped_and_counted(tmp_path: Path, base: Path) -> None:
    length = len(TextCodec(base).prompt(post(5, 40)))
    found, defects = read_pairs(tmp_path, base, max_prompt_tokens=length - 1, too_long="drop")
    assert post(5, 40) not in {row["prompt"] for row in found} and len(found) == 4
    assert defects[-1] == {"file": "train.jsonl", "row": 5, "defect": "long_prompt", "tokens": length}


@pytest.mark.parametrize("budget", [12, 30, 59])
def test_long_prompts_are_shortened_from_the_left_and_counted(budget: int, tmp_path: Path, base: Path) -> None:
    """The end of the text stays, as much of it as fits: one more character, or a few where they are one token, is too long."""
    codec, whole = TextCodec(base), post(5, 40)
    short = max(len(codec.prompt(post(i))) for i in range(8))
    found, defects = read_pairs(tmp_path, base, max_prompt_tokens=max(budget, short), too_long="truncate_left")
    (kept,) = [row["prompt"] for row in found if row["prompt"] not in {post(i) for i in range(8)}]
    assert whole.endswith(kept) and kept.endswith("TL;DR:")
    assert len(codec.prompt(kept)) <= max(budget, short) < len(codec.prompt(whole[-len(kept) - 8 :].strip()))
    assert defects[-1] == {"file": "train.jsonl", "row": 5, "defect": "truncated_prompt", "tokens": len(codec.prompt(whole))}
    assert len(found) == 5, "it is not lost"


def test_a_budget_that_leaves_nothing_is_refused(tmp_path: Path, base: Path) -> None:
    with pytest.raises(UserError, match=r"prompts\.max_tokens is 1; raise it"):
        read_pairs(tmp_path, base, max_prompt_tokens=1, too_long="truncate_left")
