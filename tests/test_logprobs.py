"""prefdist.logprobs against plain log_softmax: padding, temperature, EOS, packing, chunks; values and gradients."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, LlamaConfig, LlamaForCausalLM

import prefdist.logprobs as logprobs
from prefdist.logprobs import packed_logprobs, sequence_logprobs
from prefdist.tokens import pack

VOCABULARY, PAD, BOS, EOS = 40, 0, 1, 2
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
SPECIAL = {"pad_token_id": PAD, "bos_token_id": BOS, "eos_token_id": EOS, "attn_implementation": "sdpa"}
# Sums of tens of products of order one: a few hundred units of rounding (6e-8, 1e-16).
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}


def llama() -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **SPECIAL, num_attention_heads=4, num_key_value_heads=2))


def gpt_neox() -> Any:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **SPECIAL, num_attention_heads=4, rotary_pct=0.25))


def rms_norm(module: Any, hidden: Tensor) -> Tensor:
    """transformers computes it in float32 whatever the model is, which hides everything below 1e-6."""
    return module.weight * hidden * torch.rsqrt(hidden.square().mean(-1, keepdim=True) + module.variance_epsilon)


@pytest.fixture(params=[llama, gpt_neox], ids=["llama", "gpt_neox"])
def model(request: pytest.FixtureRequest) -> Any:
    torch.manual_seed(0)
    made = request.param().double().eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)  # the usual 0.02 gives a nearly uniform distribution
    for module in made.modules():
        if type(module).__name__ == "LlamaRMSNorm":
            module.forward = partial(rms_norm, module)
    return made


def random_ids(*lengths: int, seed: int = 0) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def naive(model: Any, prompt: Sequence[int], response: Sequence[int], temperature: float = 1.0) -> Tensor:
    """Log-probabilities [response tokens] from the full logits of one unpadded sequence."""
    ids = torch.tensor([[*prompt, *response]])
    logits = model(input_ids=ids, use_cache=False).logits[0] / temperature
    predicted = logits.log_softmax(-1)[len(prompt) - 1 : -1]
    return predicted.gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


def padded(prompts: Sequence[list[int]], responses: Sequence[list[int]], side: str) -> tuple[Tensor, Tensor, Tensor]:
    """input_ids, attention_mask, response_mask [B, T]."""
    length = max(len(p) + len(y) for p, y in zip(prompts, responses, strict=True))
    rows = []
    for prompt, y in zip(prompts, responses, strict=True):
        gap = length - len(prompt) - len(y)
        row = [(i, 1, 0) for i in prompt] + [(i, 1, 1) for i in y]
        rows.append([(PAD, 0, 0)] * gap + row if side == "left" else row + [(PAD, 0, 0)] * gap)
    ids, attention, mask = torch.tensor(rows).unbind(-1)
    return ids, attention, mask


PROMPTS = [[BOS, *ids] for ids in random_ids(4, 1, 6)]
RESPONSES = [[*ids, EOS] for ids in random_ids(5, 3, 1, seed=1)]


# ---- sequences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("side", ["left", "right"])
def test_sequence_logprobs_are_those_of_log_softmax(model: Any, side: str, temperature: float, dtype: torch.dtype) -> None:
    model = model.to(dtype)
    ids, attention, mask = padded(PROMPTS, RESPONSES, side)
    found = sequence_logprobs(model, ids, attention, mask, temperature=temperature)
    assert found.shape == ids.shape
    assert found.dtype == dtype
    assert (found[mask == 0] == 0).all()
    for row, prompt, response in zip(range(3), PROMPTS, RESPONSES, strict=True):
        expected = naive(model, prompt, response, temperature)
        torch.testing.assert_close(found[row][mask[row] == 1], expected, rtol=0, atol=TOLERANCE[dtype])


def test_padding_side_and_batch_size_do_not_matter(model: Any) -> None:
    left, right = (padded(PROMPTS, RESPONSES, side) for side in ("left", "right"))
    sums = [sequence_logprobs(model, *part).sum(-1) for part in (left, right)]
    torch.testing.assert_close(*sums, rtol=0, atol=TOLERANCE[torch.float64])
    alone = [sequence_logprobs(model, *padded([p], [y], "right")).sum(-1) for p, y in zip(PROMPTS, RESPONSES, strict=True)]
    torch.testing.assert_close(sums[1], torch.cat(alone), rtol=0, atol=TOLERANCE[torch.float64])


def test_what_stands_under_the_padding_does_not_matter(model: Any) -> None:
    for side in ("left", "right"):
        ids, attention, mask = padded(PROMPTS, RESPONSES, side)
        other = torch.where(attention == 1, ids, 7)
        found = [sequence_logprobs(model, each, attention, mask) for each in (ids, other)]
        torch.testing.assert_close(*found, rtol=0, atol=TOLERANCE[torch.float64])


def test_eos_counts_wherever_the_mask_says(model: Any) -> None:
    """At the last position of the batch, in its middle, and twice: ids decide nothing, the mask does."""
    prompt, body = PROMPTS[0], random_ids(3, seed=2)[0]
    twice = [*body, EOS, EOS]
    ids, attention, mask = padded([prompt], [twice], "right")
    expected = naive(model, prompt, twice)
    torch.testing.assert_close(sequence_logprobs(model, ids, attention, mask)[0, len(prompt) :], expected, rtol=0, atol=1e-10)
    mask[0, -1] = 0  # the first EOS alone, as the project's masks have it
    found = sequence_logprobs(model, ids, attention, mask)[0, len(prompt) :]
    torch.testing.assert_close(found[:-1], expected[:-1], rtol=0, atol=1e-10)
    assert found[-1] == 0
    ends_last = padded([prompt, prompt], [[*body, EOS], [*body, *body, EOS]], "right")
    found = sequence_logprobs(model, *ends_last)[1]
    torch.testing.assert_close(found[-1], naive(model, prompt, [*body, *body, EOS])[-1], rtol=0, atol=1e-10)


def test_the_first_position_has_no_log_probability(model: Any) -> None:
    ids = torch.tensor([[BOS, 5, 6]])
    with pytest.raises(ValueError, match="position 0"):
        sequence_logprobs(model, ids, torch.ones_like(ids), torch.ones_like(ids))


def test_response_probabilities_sum_to_one(model: Any) -> None:
    """All one-token responses: the temperature divides the logits before they are normalised."""
    ids = torch.tensor([[BOS, 5, token] for token in range(VOCABULARY)])
    mask = torch.tensor([[0, 0, 1]]).expand_as(ids)
    total = sequence_logprobs(model, ids, torch.ones_like(ids), mask, temperature=0.7).sum(-1).exp().sum()
    assert float(total.detach()) == pytest.approx(1, abs=1e-12)


# ---- packed rows -----------------------------------------------------------------------------------------------------

LENGTHS = {2: [(5, 2), (1, 4), (3, 3)], 4: [(5, 2, 1, 3), (1, 4, 6, 1), (2, 2, 2, 2)]}


def ragged(n: int) -> list[list[list[int]]]:
    """Three rows of n responses; some end with EOS, some filled their budget."""
    responses = [random_ids(*lengths, seed=row) for row, lengths in enumerate(LENGTHS[n])]
    return [[[*y[:-1], EOS] if k % 2 == 0 else y for k, y in enumerate(row)] for row in responses]


def gradients(model: Any, value: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, list(model.parameters())))


@pytest.mark.parametrize("n", [2, 4])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_packed_rows_equal_unshared_computation(model: Any, n: int, temperature: float) -> None:
    responses = ragged(n)
    packed = pack(PROMPTS, responses, pad_id=PAD)
    found = packed_logprobs(model, packed, temperature=temperature)
    assert found.shape == packed.mask.shape
    assert (found[~packed.mask] == 0).all()
    unshared = torch.zeros_like(found)
    for row, (prompt, ys) in enumerate(zip(PROMPTS, responses, strict=True)):
        for k, y in enumerate(ys):
            unshared[row, k, : len(y)] = naive(model, prompt, y, temperature)
    torch.testing.assert_close(found, unshared, rtol=0, atol=TOLERANCE[torch.float64])
    # Every response has its own weight, so that a gradient into another one would show.
    weights = torch.linspace(0.5, 2.0, 3 * n, dtype=torch.float64).view(3, n, 1)
    for mine, plain in zip(*(gradients(model, (weights * x).sum()) for x in (found, unshared)), strict=True):
        torch.testing.assert_close(mine, plain, rtol=0, atol=1e-9)  # sums over 30 tokens of what holds to 1e-10


def test_a_response_does_not_see_another(model: Any) -> None:
    responses = ragged(2)
    changed = [[random_ids(3, seed=9)[0], second] for _, second in responses]
    found = [packed_logprobs(model, pack(PROMPTS, ys, pad_id=PAD))[:, 1] for ys in (responses, changed)]
    width = min(x.shape[-1] for x in found)
    torch.testing.assert_close(*(x[..., :width] for x in found), rtol=0, atol=TOLERANCE[torch.float64])


def test_packed_equals_sequences_in_float32(model: Any) -> None:
    model = model.float()
    packed = packed_logprobs(model, pack(PROMPTS, [[y, y] for y in RESPONSES], pad_id=PAD)).sum(-1)
    plain = sequence_logprobs(model, *padded(PROMPTS, RESPONSES, "right")).sum(-1)
    for k in (0, 1):
        torch.testing.assert_close(packed[:, k], plain, rtol=0, atol=6 * TOLERANCE[torch.float32])  # 6 tokens


# ---- chunks and precision --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [1, 3 * VOCABULARY])
def test_chunks_change_nothing(model: Any, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    packed = pack(PROMPTS, ragged(4), pad_id=PAD)

    def computed() -> tuple[Tensor, list[Tensor]]:
        found = packed_logprobs(model, packed, temperature=0.7)
        return found, gradients(model, found.square().sum())

    whole = computed()
    monkeypatch.setattr(logprobs, "CHUNK_ELEMENTS", chunk)
    pieces = computed()
    torch.testing.assert_close(whole[0], pieces[0], rtol=0, atol=1e-12)  # the same products, in another order
    for a, b in zip(whole[1], pieces[1], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    with torch.no_grad():
        torch.testing.assert_close(packed_logprobs(model, packed, temperature=0.7), whole[0], rtol=0, atol=1e-12)


@pytest.mark.parametrize("make", [llama, gpt_neox])
def test_bfloat16_models_have_a_float32_softmax(make: Callable[[], Any]) -> None:
    torch.manual_seed(0)
    model = make().bfloat16().eval()
    ids, attention, mask = padded(PROMPTS, RESPONSES, "right")
    found = sequence_logprobs(model, ids, attention, mask)
    assert found.dtype == torch.float32
    logits = model(input_ids=ids, attention_mask=attention, use_cache=False).logits.float()
    expected = logits.log_softmax(-1)[:, :-1].gather(-1, ids[:, 1:, None]).squeeze(-1)
    # Equal logits up to one bfloat16 rounding of values near 0.3: products of other shapes round elsewhere.
    torch.testing.assert_close(found[:, 1:] * mask[:, 1:], expected * mask[:, 1:], rtol=0, atol=5e-3)
