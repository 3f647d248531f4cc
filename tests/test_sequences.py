"""Log-probabilities, rewards and laws of many responses, against one plain forward pass each."""

import pytest
import torch
from conftest import World, plain_logps

from prefdist.scoring import sequences
from prefdist.scoring.sequences import response_laws, response_logps

PROMPTS = [[5, 6, 7], [8, 9], [10, 11, 12, 13]]
RESPONSES = [[[20 + k] * (1 + k % 5) for k in range(n)] for n in (9, 1, 4)]


@pytest.mark.parametrize("row_tokens", [1024, 16, 3])
def test_responses_are_scored_in_rows_of_any_length(world: World, monkeypatch: pytest.MonkeyPatch, row_tokens: int) -> None:
    """Of 3 tokens, not even a prompt and one response fit: they then stand alone."""
    monkeypatch.setattr(sequences, "ROW_TOKENS", row_tokens)
    model = world.policy("prior")
    found = response_logps(model, PROMPTS, RESPONSES, pad_id=world.codec.pad_id)
    for prompt, ys, logps in zip(PROMPTS, RESPONSES, found, strict=True):
        by_hand = [float(plain_logps(model, prompt, y).sum()) for y in ys]
        assert logps.tolist() == pytest.approx(by_hand, abs=1e-4)  # float32, padded and not


@pytest.mark.parametrize(
    ("prompt", "sizes", "rows"), [(10, [20] * 16, [16]), (100, [60] * 128, [15] * 8 + [8]), (2000, [9] * 2, [1, 1])]
)
def test_rows_are_few_and_short(prompt: int, sizes: list[int], rows: list[int]) -> None:
    parts = sequences._rows(prompt, [[0] * size for size in sizes])
    assert [len(part) for part in parts] == rows
    assert all(prompt + sum(map(len, part)) <= sequences.ROW_TOKENS for part in parts if len(part) > 1)


def test_laws_of_every_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "TOKENS", 8)  # two batches
    model = world.policy("prior")
    ys = [of_prompt[-1] for of_prompt in RESPONSES]
    laws = response_laws(model, PROMPTS, ys, pad_id=world.codec.pad_id)
    rows = iter(laws)
    for prompt, y in zip(PROMPTS, ys, strict=True):
        with torch.no_grad():
            logits = model(torch.tensor([prompt + y])).logits[0, len(prompt) - 1 : -1].double()
        for wanted in logits.log_softmax(-1):
            torch.testing.assert_close(next(rows).double(), wanted, atol=1e-4, rtol=0)
    assert next(rows, None) is None
