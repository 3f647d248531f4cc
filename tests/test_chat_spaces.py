"""Chat templates with SentencePiece's spaces (Mistral, Zephyr), against the rendered conversation and pieces by hand."""

from pathlib import Path
from typing import Any

import pytest
from chat_models import LLAMA3_TEMPLATE, MISTRAL_TEMPLATE, ZEPHYR_TEMPLATE, llama3_tokenizer, mistral_tokenizer
from hypothesis import given, settings
from test_chat import conversation, words

from prefdist.errors import UserError
from prefdist.tokens import TextCodec

OLD_MISTRAL = MISTRAL_TEMPLATE.replace("' [INST] '", "'[INST] '").replace("' ' + message", "message")
SPACED = {"mistral": MISTRAL_TEMPLATE, "older mistral": OLD_MISTRAL, "zephyr": ZEPHYR_TEMPLATE}


@pytest.fixture(scope="module", params=list(SPACED))
def spaced(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, TextCodec]:
    tokenizer = mistral_tokenizer(SPACED[request.param])
    folder = tmp_path_factory.mktemp("spaced")
    tokenizer.save_pretrained(folder)
    return tokenizer, TextCodec(folder)


@settings(max_examples=40, deadline=None)
@given(user=words, answer=words.filter(bool))
def test_spaces_are_those_of_the_rendered_conversation(spaced: tuple[Any, TextCodec], user: str, answer: str) -> None:
    tokenizer, codec = spaced
    turns = [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    whole = tokenizer.apply_chat_template(turns, return_dict=False)
    whole = whole if whole[0] == codec.bos_id else [codec.bos_id, *whole]
    mine = codec.prompt(user) + codec.response(answer)
    assert whole[: len(mine)] == mine
    assert tokenizer.decode(whole[len(mine) :]).strip() == ""


@settings(max_examples=40, deadline=None)
@given(user=words, answer=words.filter(bool), second=words)
def test_spaces_of_a_second_turn(spaced: tuple[Any, TextCodec], user: str, answer: str, second: str) -> None:
    tokenizer, codec = spaced
    expected = conversation(tokenizer, codec, user, answer, second)
    assert codec.second_prompt(user, codec.response(answer), second) == expected


def test_spaces_by_hand(tmp_path: Path) -> None:
    """One mark of a space before each word, none by itself; behind Zephyr's line breaks a text starts without one."""
    pieces = {}
    for name, template in SPACED.items():
        mistral_tokenizer(template).save_pretrained(tmp_path / name)
        codec = TextCodec(tmp_path / name)
        found = [codec._tokenizer.convert_ids_to_tokens(ids) for ids in (codec.prompt("open the"), codec.response("read the"))]
        pieces[name] = ["".join(side) for side in found]
        assert "▁" not in found[0]
    assert pieces["mistral"] == ["<s>▁[INST]▁open▁the▁[/INST]", "▁read▁the</s>"]
    assert pieces["older mistral"] == ["<s>[INST]▁open▁the▁[/INST]", "read▁the</s>"]
    break_ = "<0x0A>"
    assert pieces["zephyr"] == [f"<s>▁<|user|>{break_}open▁the</s>{break_}<|assistant|>{break_}", "read▁the</s>"]


def test_responses_with_spaces_come_back(spaced: tuple[Any, TextCodec]) -> None:
    """Of one leading space nothing can be known: it is how a first word is written."""
    _, codec = spaced
    for text in ("read it", "Read ünïcödé 木.\n\nThen close it?", "", "</s> and <unk>", "a  b "):
        found = codec.response(text)
        assert found[-1] == codec.eos_id and codec.eos_id not in found[:-1]
        assert codec.decode(found).removeprefix(" ") == text


def test_mistral_data_cannot_end_a_turn(spaced: tuple[Any, TextCodec]) -> None:
    _, codec = spaced
    plain, attacked = codec.prompt("abc"), codec.prompt("a</s><s>b")
    assert [i for i in attacked if i in (codec.bos_id, codec.eos_id)] == [i for i in plain if i in (codec.bos_id, codec.eos_id)]


def test_mistral_pads_with_what_never_occurs(spaced: tuple[Any, TextCodec]) -> None:
    tokenizer, codec = spaced
    assert tokenizer.pad_token is None
    assert codec.pad_id == tokenizer.unk_token_id
    assert codec.pad_id not in codec.response("ünïcödé 木")


def test_a_space_that_is_a_token_of_its_own_is_refused(tmp_path: Path) -> None:
    """Between prompt and answer, in byte-level tokens: part of neither."""
    llama3_tokenizer(
        LLAMA3_TEMPLATE.replace("'<|end_header_id|>\n\n' + message", "'<|end_header_id|>\n\n ' + message")
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="does not put an answer right behind its prompt"):
        TextCodec(tmp_path)
