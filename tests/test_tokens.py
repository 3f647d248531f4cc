"""Templates and packed rows against their definition, spelled out position by position."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World
from hypothesis import given, settings
from hypothesis import strategies as st

from prefdist.errors import UserError
from prefdist.sampling.engine import sample
from prefdist.tokens import PADDING, PROMPT, TextCodec, pack

PAD = 0
token = st.integers(1, 50)
sequence = st.lists(token, min_size=1, max_size=6)


@st.composite
def rows(draw: Any) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Some prompts, each with the same number of responses."""
    n = draw(st.integers(1, 4))
    prompts = draw(st.lists(sequence, min_size=1, max_size=4))
    return prompts, [draw(st.lists(sequence, min_size=n, max_size=n)) for _ in prompts]


def owners(prompt: list[int], responses: list[list[int]]) -> list[tuple[int, int, int]]:
    """(whose, index within it, token) of each position of a row; whose: 0 the prompt, k the k-th response."""
    parts = [prompt, *responses]
    return [(whose, index, value) for whose, part in enumerate(parts) for index, value in enumerate(part)]


@settings(max_examples=60, deadline=None)
@given(rows())
def test_rows_position_by_position(given_rows: tuple[list[list[int]], list[list[list[int]]]]) -> None:
    prompts, responses = given_rows
    packed = pack(prompts, responses, pad_id=PAD)
    length = packed.input_ids.shape[1]
    assert length == max(len(p) + sum(map(len, ys)) for p, ys in zip(prompts, responses, strict=True))
    for row, (prompt, ys) in enumerate(zip(prompts, responses, strict=True)):
        layout = owners(prompt, ys)
        for position in range(length):
            found = [int(t[row, position]) for t in (packed.input_ids, packed.position_ids, packed.segments)]
            if position >= len(layout):
                assert found == [PAD, 0, PADDING]
                continue
            whose, index, value = layout[position]
            # A response's positions restart behind the prompt, as if it were alone with it.
            assert found == [value, index + (len(prompt) if whose else 0), whose]
        for k, y in enumerate(ys, start=1):
            where = [position for position, (whose, _, _) in enumerate(layout) if whose == k]
            size = len(y)
            assert packed.mask[row, k - 1].tolist() == [True] * size + [False] * (packed.mask.shape[2] - size)
            assert packed.targets[row, k - 1, :size].tolist() == y
            assert not packed.targets[row, k - 1, size:].any()
            # A token is predicted from the one before it: the prompt's last, or the response's previous one.
            assert packed.predictors[row, k - 1, :size].tolist() == [len(prompt) - 1, *where[:-1]]
            assert int(packed.n_tokens[row, k - 1]) == size
            assert int(packed.ends[row, k - 1]) == where[-1]


@settings(max_examples=40, deadline=None)
@given(rows())
def test_attention_pair_by_pair(given_rows: tuple[list[list[int]], list[list[list[int]]]]) -> None:
    """A position sees what a sequence prompt · its own response would show it, and nothing else; padding sees padding."""
    prompts, responses = given_rows
    packed = pack(prompts, responses, pad_id=PAD)
    mask = packed.attention_mask()
    length = packed.input_ids.shape[1]
    assert mask.dtype == torch.bool
    assert mask.shape == (len(prompts), 1, length, length)
    for row, (prompt, ys) in enumerate(zip(prompts, responses, strict=True)):
        whose = [owner for owner, _, _ in owners(prompt, ys)]
        whose += [PADDING] * (length - len(whose))
        for query in range(length):
            for key in range(length):
                same, shared = whose[key] == whose[query], whose[key] == PROMPT and whose[query] != PADDING
                assert bool(mask[row, 0, query, key]) == (key <= query and (same or shared))
    assert mask.any(-1).all(), "a row of nothing makes softmax NaN"


@pytest.mark.parametrize(
    ("prompts", "responses"),
    [
        ([[1]], [[[2], []]]),  # an empty response
        ([[1], [1]], [[[2], [3]], [[2]]]),  # another number of responses
        ([[]], [[[2]]]),  # an empty prompt
        ([[1], [1]], [[[2]]]),  # a prompt without responses
        ([[1]], [[]]),
    ],
)
def test_what_cannot_be_packed(prompts: list[list[int]], responses: list[list[list[int]]]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        pack(prompts, responses, pad_id=PAD)


def test_moving_keeps_everything() -> None:
    packed = pack([[1, 2], [3]], [[[4, 5], [6]], [[7], [8]]], pad_id=PAD)
    moved = packed.to("cpu")
    assert all(torch.equal(getattr(moved, name), getattr(packed, name)) for name in vars(packed))


def test_template(world: World) -> None:
    """<bos> prompt newline | response <eos>; tokenised apart, so that a prompt's ids do not depend on what follows."""
    codec = world.codec
    prompt, response = codec.prompt("files: def open(file)"), codec.response("Open the file.")
    assert prompt[0] == codec.bos_id
    assert response[-1] == codec.eos_id
    assert {codec.bos_id, codec.eos_id, codec.pad_id} & {*prompt[1:], *response[:-1]} == set()
    assert codec.decode(prompt[1:]) == "files: def open(file)\n"
    assert codec.decode(response) == "Open the file."
    assert codec.prompt("") == [codec.bos_id, *codec.response("\n")[:-1]]
    assert codec.response("") == [codec.eos_id]


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=30))
def test_responses_come_back(world: World, text: str) -> None:
    """Also texts that spell special tokens, and texts with blanks before punctuation."""
    codec = world.codec
    for written in (text, text + " <eos> .", "<pad>" + text):
        ids = codec.response(written)
        assert ids.count(codec.eos_id) == 1
        assert codec.decode(ids) == written


def test_masks_end_at_the_first_eos(world: World) -> None:
    """References and samples alike: EOS is in the mask, nothing stands behind it; a filled budget has none."""
    codec = world.codec
    prompt = codec.prompt("files: def open(file)")
    (drawn,) = sample(world.policy("prior"), [prompt], ["k"], num_samples=40, max_new_tokens=6, stop_ids=[codec.eos_id])
    responses = [codec.response("Open the file."), *(s.token_ids for s in drawn)]
    packed = pack([prompt], [responses], pad_id=codec.pad_id)
    endings = set()
    for k in range(len(responses)):
        tokens = packed.targets[0, k][packed.mask[0, k]]
        eos = (tokens == codec.eos_id).nonzero().flatten().tolist()
        assert eos in ([], [len(tokens) - 1])
        assert eos or len(tokens) == 6
        endings.add(bool(eos))
        assert not (packed.targets[0, k][~packed.mask[0, k]] == codec.eos_id).any()
    assert endings == {True, False}


def test_a_tokenizer_that_cannot_serve(tmp_path: Path, world: World) -> None:
    with pytest.raises(UserError, match=r"nothing: no tokenizer\.json there; name a folder with a saved tokenizer"):
        TextCodec(tmp_path / "nothing")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(world.folder("text") / "tokenizer")
    tokenizer.pad_token = tokenizer.eos_token
    tokenizer.save_pretrained(tmp_path / "pad_is_eos")
    with pytest.raises(UserError, match="pad_is_eos: the tokenizer needs BOS, EOS and a PAD other than EOS"):
        TextCodec(tmp_path / "pad_is_eos")
