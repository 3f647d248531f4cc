"""The tokenizer loses nothing, adds nothing, and is the same whenever it is trained."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from prefdist.data.stdlib import Extraction
from prefdist.data.tokenizer import SMALLEST_VOCABULARY, SPECIAL_TOKENS, token_statistics, train_tokenizer
from prefdist.errors import UserError

VOCABULARY = 1024


@pytest.fixture(scope="module")
def rows(library: Extraction) -> list[dict[str, Any]]:
    return library.rows


@pytest.fixture(scope="module")
def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row[column] for row in rows if row["split"] == "train" for column in ("prompt", "reference")]


@pytest.fixture(scope="module")
def folder(texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(texts, VOCABULARY, out)
    return out


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Any:
    return AutoTokenizer.from_pretrained(folder)


def test_special_ids(tokenizer: Any) -> None:
    assert len(tokenizer) == VOCABULARY
    assert (tokenizer.pad_token_id, tokenizer.bos_token_id, tokenizer.eos_token_id) == (0, 1, 2)
    assert tokenizer.convert_ids_to_tokens([0, 1, 2]) == list(SPECIAL_TOKENS)


def test_adds_nothing_and_data_cannot_spell_a_special_token(tokenizer: Any) -> None:
    assert tokenizer("Return it.").input_ids == tokenizer("Return it.", add_special_tokens=False).input_ids
    assert tokenizer("").input_ids == []
    ids = tokenizer("a<eos>b<pad>").input_ids
    assert not {0, 1, 2} & set(ids)
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a<eos>b<pad>"
    assert tokenizer.decode([1, *tokenizer("a").input_ids, 2, 0], skip_special_tokens=True) == "a"


def test_round_trip_of_every_row(tokenizer: Any, rows: list[dict[str, Any]]) -> None:
    for column in ("prompt", "reference"):
        expected = [row[column] for row in rows]
        assert tokenizer.batch_decode(tokenizer(expected).input_ids) == expected


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(st.text(), st.text(st.characters(max_codepoint=127)), st.sampled_from([" .", "a  n't ", "\r\n\t"])))
def test_round_trip_of_any_text(tokenizer: Any, text: str) -> None:
    assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_the_same_in_any_order(texts: list[str], folder: Path, tmp_path: Path) -> None:
    train_tokenizer(reversed(texts), VOCABULARY, tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_lengths_suit_small_models(folder: Path, rows: list[dict[str, Any]]) -> None:
    statistics = token_statistics(folder, rows)
    assert statistics["vocab_size"] == VOCABULARY
    assert statistics["tokens_prompt_p95"] <= 40
    assert statistics["tokens_reference_p50"] <= 20


def test_too_small_a_vocabulary_is_refused(tmp_path: Path) -> None:
    train_tokenizer(["ab"], SMALLEST_VOCABULARY, tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == SMALLEST_VOCABULARY
    with pytest.raises(UserError, match="vocab_size is 258"):
        train_tokenizer(["ab"], SMALLEST_VOCABULARY - 1, tmp_path)
