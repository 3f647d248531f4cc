"""Samples against exact distributions, and what a sample may depend on: the model, its prompt and its key."""

from collections import Counter
from typing import Any

import pytest
import torch
from conftest import World, p_value, plain_logps

from prefdist.logprobs import packed_logprobs
from prefdist.sampling import engine
from prefdist.sampling.engine import Sample, sample, uniforms
from prefdist.sampling.law import ANCESTRAL, Sampler
from prefdist.tokens import pack

DRAWS = 20_000


@pytest.fixture(scope="module")
def prior(world: World) -> Any:
    return world.policy("prior")


@pytest.fixture(scope="module")
def prompts(world: World) -> list[list[int]]:
    """Of different lengths, in no order of length."""
    texts = ("files: def open(file)", "a", "rows: def count(row)", "def f", "nodes: def sort(node, by length)")
    return [world.codec.prompt(text) for text in texts]


def draw(model: Any, world: World, prompts: list[list[int]], keys: list[str], **options: Any) -> list[list[Sample]]:
    options = {"num_samples": 6, "max_new_tokens": 10, "stop_ids": [world.codec.eos_id]} | options
    return sample(model, prompts, keys, **options)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_first_tokens_follow_the_softmax(temperature: float, prior: Any, world: World, prompts: list[list[int]]) -> None:
    """The seeds are fixed, so that this passes or fails for good; a right sampler fails at 1e-4 once in 10 000 seeds.

    Logits divided by a temperature that is off by 10 % are told apart.
    """
    prompt = prompts[0]
    (samples,) = draw(prior, world, [prompt], ["k"], num_samples=DRAWS, max_new_tokens=1, sampler=Sampler(temperature))
    with torch.no_grad():
        logits = prior(torch.tensor([prompt])).logits[0, -1].double()
    tokens = [s.token_ids[0] for s in samples]
    assert p_value(tokens, (logits / temperature).softmax(-1)) > 1e-4
    assert p_value(tokens, (logits / temperature / 1.1).softmax(-1)) < 1e-6


def test_second_tokens_follow_the_softmax_of_their_prefix(prior: Any, world: World, prompts: list[list[int]]) -> None:
    """The cache and its positions: the second token, given the most frequent first one."""
    prompt = prompts[2]
    (samples,) = draw(prior, world, [prompt], ["k"], num_samples=DRAWS, max_new_tokens=2)
    (first, seen), *_ = Counter(s.token_ids[0] for s in samples).most_common()
    assert first != world.codec.eos_id
    with torch.no_grad():
        logits = prior(torch.tensor([[*prompt, first]])).logits[0, -1].double()
    tokens = [s.token_ids[1] for s in samples if s.token_ids[0] == first]
    assert len(tokens) == seen > 500
    assert p_value(tokens, logits.softmax(-1)) > 1e-4


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logp_is_at_temperature_1(temperature: float, prior: Any, world: World, prompts: list[list[int]]) -> None:
    """Against packed rows and against plain forward passes: 10 tokens of up to 10 nats, at 1e-6 each in float32."""
    drawn = draw(prior, world, prompts, list("abcde"), sampler=Sampler(temperature))
    responses = [[s.token_ids for s in samples] for samples in drawn]
    with torch.no_grad():
        packed = packed_logprobs(prior, pack(prompts, responses, pad_id=world.codec.pad_id)).sum(-1)
    for i, samples in enumerate(drawn):
        for k, s in enumerate(samples):
            assert s.logp == pytest.approx(float(packed[i, k]), abs=1e-4)
            assert s.logp == pytest.approx(float(plain_logps(prior, prompts[i], s.token_ids).sum()), abs=1e-4)


def test_independent_of_the_batch(prior: Any, world: World, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, in another order, beside others and with other numbers of rows: the same ids for the same key."""
    keys = list("abcde")
    together = draw(prior, world, prompts, keys)
    ids = [[s.token_ids for s in samples] for samples in together]
    assert len({len(y) for ys in ids for y in ys}) > 2, "rows must end at different times for this to test anything"
    alone = [draw(prior, world, [prompt], [key])[0] for prompt, key in zip(prompts, keys, strict=True)]
    assert [[s.token_ids for s in samples] for samples in alone] == ids
    assert [s.logp for ys in alone for s in ys] == pytest.approx([s.logp for ys in together for s in ys], abs=1e-5)
    backwards = draw(prior, world, prompts[::-1], keys[::-1])
    assert [[s.token_ids for s in samples] for samples in backwards[::-1]] == ids
    monkeypatch.setattr(engine, "ROWS", 13)
    assert [[s.token_ids for s in samples] for samples in draw(prior, world, prompts, keys)] == ids


@pytest.mark.parametrize(
    ("rows", "tokens", "expected"),
    [
        (512, 65_536, [[1, 3, 0, 2]]),
        (6, 65_536, [[1, 3], [0, 2]]),
        (512, 3 * 2 * (9 + 10), [[1, 3], [0], [2]]),  # 3 samples of 2 prompts, prompt and budget of 9 + 10 tokens at most
        (512, 3 * 2 * (12 + 10), [[1, 3], [0, 2]]),
        (2, 1, [[1], [3], [0], [2]]),  # one prompt's samples are not drawn apart
    ],
)
def test_rows_side_by_side(rows: int, tokens: int, expected: list[list[int]], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "ROWS", rows)
    monkeypatch.setattr(engine, "TOKENS", tokens)
    assert list(engine._batches([9, 2, 12, 5], 3, 10)) == expected


def test_long_budgets_are_drawn_in_parts(
    prior: Any, world: World, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where two prompts fit at a time, the samples are those drawn together."""
    assert len(list(engine._batches([108] * 256, 2, 20))) == 1, "the testbed's 512 rows stay together"
    keys = list("abcde")
    together = draw(prior, world, prompts, keys)
    monkeypatch.setattr(engine, "TOKENS", 2 * 6 * (max(map(len, prompts)) + 10))
    assert len(list(engine._batches([len(prompt) for prompt in prompts], 6, 10))) > 2
    parts = draw(prior, world, prompts, keys)
    assert [[s.token_ids for s in ys] for ys in parts] == [[s.token_ids for s in ys] for ys in together]


def test_any_stop_id_ends_a_response(prior: Any, world: World, prompts: list[list[int]]) -> None:
    """Equal numbers give equal tokens up to the first stop id, which stays; the log-probability ends with it."""
    (plain,) = draw(prior, world, prompts[:1], ["k"], num_samples=50)
    other = Counter(i for s in plain for i in s.token_ids[:-1]).most_common(1)[0][0]
    stops = (world.codec.eos_id, other)
    (stopped,) = draw(prior, world, prompts[:1], ["k"], num_samples=50, stop_ids=stops)
    for before, after in zip(plain, stopped, strict=True):
        end = next((t + 1 for t, i in enumerate(before.token_ids) if i in stops), 10)
        assert after.token_ids == before.token_ids[:end]
        assert after.finish_reason == ("stop" if after.token_ids[-1] in stops else "length")
        expected = plain_logps(prior, prompts[0], after.token_ids).sum()
        assert after.logp == pytest.approx(float(expected), abs=1e-4)
    assert {s.token_ids[-1] for s in stopped if s.finish_reason == "stop"} == set(stops)


def test_keys(prior: Any, world: World, prompts: list[list[int]]) -> None:
    same, again, other = (draw(prior, world, prompts[:1], [key], num_samples=20)[0] for key in ("a", "a", "b"))
    assert same == again
    assert same != other
    assert len({tuple(s.token_ids) for s in same}) > 1
    # The first samples do not depend on how many are drawn: rows of uniforms are filled in order.
    assert torch.equal(uniforms("a", 3, 5), uniforms("a", 9, 5)[:3])


def test_a_filled_budget_has_no_eos(prior: Any, world: World, prompts: list[list[int]]) -> None:
    (samples,) = draw(prior, world, prompts[:1], ["a"], num_samples=200, max_new_tokens=4)
    eos = world.codec.eos_id
    for s in samples:
        assert 1 <= len(s.token_ids) <= 4
        assert eos not in s.token_ids[:-1]
        assert s.finish_reason == ("stop" if s.token_ids[-1] == eos else "length")
        if s.finish_reason == "length":
            assert len(s.token_ids) == 4
    assert {s.finish_reason for s in samples} == {"stop", "length"}
    assert any(len(s.token_ids) == 4 and s.finish_reason == "stop" for s in samples), "EOS may be the budget's last token"


def with_eos_scaled(world: World, factor: float) -> Any:
    """A model that gives EOS a logit so high, or so low, that it comes at once, or never."""
    model = world.policy("prior")
    with torch.no_grad():
        bias = torch.zeros(world.codec.vocabulary)
        bias[world.codec.eos_id] = factor
        head = torch.nn.Linear(model.config.hidden_size, world.codec.vocabulary)
        head.weight.copy_(model.get_output_embeddings().weight)
        head.bias.copy_(bias)
    model.set_output_embeddings(head)
    return model


def test_eos_at_once_and_never(world: World, prompts: list[list[int]]) -> None:
    eos = world.codec.eos_id
    always = draw(with_eos_scaled(world, 1e4), world, prompts, list("abcde"))
    assert {(tuple(s.token_ids), s.finish_reason, s.logp) for ys in always for s in ys} == {((eos,), "stop", 0.0)}
    never = draw(with_eos_scaled(world, -1e4), world, prompts, list("abcde"))
    assert all(len(s.token_ids) == 10 and s.finish_reason == "length" for ys in never for s in ys)


def test_cold_sampling_is_greedy(prior: Any, world: World, prompts: list[list[int]]) -> None:
    """Every draw at T = 1e-6 is the most likely token, though the uniforms differ."""
    drawn = draw(prior, world, prompts, list("abcde"), sampler=Sampler(temperature=1e-6))
    for prompt, samples in zip(prompts, drawn, strict=True):
        assert len({tuple(s.token_ids) for s in samples}) == 1
        ids = list(prompt)
        for token in samples[0].token_ids:
            with torch.no_grad():
                assert token == int(prior(torch.tensor([ids])).logits[0, -1].argmax())
            ids.append(token)


def test_the_ends_of_the_unit_interval() -> None:
    """Tokens of probability 0 are not drawn, neither before the first possible one nor behind the last."""
    logits = torch.tensor([[-1e9, 0.0, 0.0, -1e9]]).repeat(2, 1)
    tokens, logps = engine._draw(logits, torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64), ANCESTRAL)
    assert tokens.tolist() == [1, 2]
    assert logps.flatten().tolist() == pytest.approx([-0.693147] * 4, abs=1e-6)


def test_uniforms() -> None:
    """In [0, 1), with mean 1/2 (standard error of 10 000: 0.0029, so 0.012 is 4 of them), and a function of the key."""
    numbers = uniforms("key", 100, 100)
    assert torch.equal(numbers, uniforms("key", 100, 100))
    assert not torch.equal(numbers, uniforms("kez", 100, 100))
    assert 0 <= float(numbers.min()) < float(numbers.max()) < 1
    assert float(numbers.mean()) == pytest.approx(0.5, abs=0.012)
