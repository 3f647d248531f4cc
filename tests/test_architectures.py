"""Gemma-2, Llama-3 and GPT-NeoX (and Mistral's windows): packed rows and samples against one plain forward pass a response.

Everything is in float32: transformers computes norms, rotations and eager softmax in it whatever the model is. Log-
probabilities here are a few nats, and come out of two layers of sums of tens of products: 2e-5 is 100 units of rounding.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import gemma2_folder, llama3_folder, neox_folder
from torch import Tensor
from transformers import MistralConfig, MistralForCausalLM

from prefdist.logprobs import packed_logprobs, sequence_logprobs
from prefdist.models import add_lora, load_policy, load_scorer, new_policy
from prefdist.sampling.engine import sample
from prefdist.tokens import TextCodec, pack

TOLERANCE = 2e-5
PAD, WINDOW = 0, 6


def mistral_folder(path: Path) -> Path:
    """Every layer has the window, which its config says without a list of layers."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"vocab_size": 256, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4}
    model = MistralForCausalLM(MistralConfig(**sizes, **heads, sliding_window=WINDOW, initializer_range=0.3))
    model.save_pretrained(path)
    return path


FOLDERS = {
    "gemma2": lambda path: gemma2_folder(path, sliding_window=WINDOW),
    "llama3": lambda path: llama3_folder(path),
    "llama3_tied": lambda path: llama3_folder(path, tied=True),
    "mistral": mistral_folder,
    "gpt_neox": neox_folder,
}


@pytest.fixture(scope="module", params=list(FOLDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_policy(folder)


def random_ids(*lengths: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(6, 256, (length,), generator=generator).tolist() for length in lengths]


# Prompts and responses on both sides of the window, alone and together.
PROMPTS = random_ids(4, 9, 1, seed=0)
RESPONSES = [random_ids(*lengths, seed=row) for row, lengths in enumerate([(9, 3, 5), (2, 8, 11), (1, 7, 12)], start=1)]


def plain(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Log-probabilities [response tokens] of one unpadded sequence, by transformers alone."""
    logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1).gather(-1, torch.tensor(response).unsqueeze(-1)).squeeze(-1)


def unshared(model: Any, like: Tensor) -> Tensor:
    """The same numbers as packed rows, each response alone with its prompt; 0 in the padding."""
    rows = []
    for prompt, ys in zip(PROMPTS, RESPONSES, strict=True):
        rows += [torch.nn.functional.pad(found := plain(model, prompt, y), (0, like.shape[-1] - len(found))) for y in ys]
    return torch.stack(rows).view_as(like)


def test_packed_rows_equal_plain_forward_passes(model: Any) -> None:
    found = packed_logprobs(model, pack(PROMPTS, RESPONSES, pad_id=PAD))
    expected = unshared(model, found)
    torch.testing.assert_close(found, expected, rtol=0, atol=TOLERANCE)
    # Each response has its own weight, so that a gradient into another one would show.
    weights = torch.linspace(0.5, 2.0, 9).view(3, 3, 1)
    parameters = dict(model.named_parameters())
    mine, theirs = (torch.autograd.grad((weights * x).sum(), list(parameters.values())) for x in (found, expected))
    for name, a, b in zip(parameters, mine, theirs, strict=True):
        # Sums over some 60 tokens, most of which cancel: rounding is of the size of the largest, not of the result.
        torch.testing.assert_close(a, b, rtol=0, atol=1e-4 * max(1.0, float(b.abs().max())), msg=name)


def test_padded_sequences_equal_plain_forward_passes(model: Any) -> None:
    sequences = [(prompt, ys[1]) for prompt, ys in zip(PROMPTS, RESPONSES, strict=True)]
    width = max(len(prompt) + len(y) for prompt, y in sequences)
    for side in (0, 1):
        rows = []
        for prompt, y in sequences:
            gap = [(PAD, 0, 0)] * (width - len(prompt) - len(y))
            row = [(i, 1, 0) for i in prompt] + [(i, 1, 1) for i in y]
            rows.append(gap + row if side else row + gap)
        ids, attention, mask = torch.tensor(rows).unbind(-1)
        found = sequence_logprobs(model, ids, attention, mask)
        for k, (prompt, y) in enumerate(sequences):
            torch.testing.assert_close(found[k][mask[k] == 1], plain(model, prompt, y), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("batched", [True, False])
def test_samples_have_the_probability_of_plain_forward_passes(model: Any, batched: bool, monkeypatch: Any) -> None:
    """The cache: prompts of 1 to 9 tokens padded on the left, repeated, run past the window, and dropped as they end."""
    if not batched:
        monkeypatch.setattr("prefdist.sampling.engine.ROWS", 1)
    options: dict[str, Any] = {"num_samples": 8, "max_new_tokens": 14}
    first = sample(model, PROMPTS, list("abc"), **options, stop_ids=[-1])
    eos = first[0][0].token_ids[4]  # of the same numbers, so that this response ends here or before
    drawn = sample(model, PROMPTS, list("abc"), **options, stop_ids=[eos])
    lengths = set()
    for prompt, samples in zip(PROMPTS, drawn, strict=True):
        for s in samples:
            lengths.add(len(s.token_ids))
            with torch.no_grad():
                expected = float(plain(model, prompt, s.token_ids).double().sum())
            assert s.logp == pytest.approx(expected, abs=14 * TOLERANCE)
    assert max(lengths) > WINDOW + 1 and len(lengths) > 1, "some end before others, some run past the window"


def test_samples_do_not_depend_on_the_batch(model: Any, monkeypatch: Any) -> None:
    options: dict[str, Any] = {"num_samples": 3, "max_new_tokens": 10, "stop_ids": [7]}
    together = sample(model, PROMPTS, list("abc"), **options)
    monkeypatch.setattr("prefdist.sampling.engine.ROWS", 1)
    alone = sample(model, PROMPTS[::-1], list("cba"), **options)[::-1]
    ids = [[[s.token_ids for s in samples] for samples in drawn] for drawn in (together, alone)]
    assert ids[0] == ids[1]


def test_rewards_equal_plain_forward_passes(folder: Path) -> None:
    scorer = load_scorer(folder, seed=0)
    with torch.no_grad():
        found = scorer.rewards(pack(PROMPTS, RESPONSES, pad_id=PAD))
        scorer.model.config.pad_token_id = PAD
        for row, (prompt, ys) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
            expected = [scorer.model(torch.tensor([prompt + y])).logits.item() for y in ys]
            assert found[row].tolist() == pytest.approx(expected, abs=TOLERANCE)


# ---- what makes the tests above tests --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value"), [("sliding_window", 512), ("attn_logit_softcapping", 1e4), ("final_logit_softcapping", 1e4)]
)
def test_windows_and_caps_matter(option: str, value: float, tmp_path: Path) -> None:
    """The same weights without the window, or without one of the caps, are another model by far more than the tolerance."""
    packed = pack(PROMPTS, RESPONSES, pad_id=PAD)
    found = []
    for name, options in (("as_is", {}), ("without", {option: value})):
        with torch.no_grad():
            found.append(packed_logprobs(load_policy(gemma2_folder(tmp_path / name, **options)), packed))
    assert float((found[0] - found[1]).abs().max()) > 1000 * TOLERANCE


def test_scaled_positions_matter(tmp_path: Path) -> None:
    packed = pack(PROMPTS, RESPONSES, pad_id=PAD)
    found = []
    for name, options in (("as_is", {}), ("without", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}})):
        with torch.no_grad():
            found.append(packed_logprobs(load_policy(llama3_folder(tmp_path / name, **options)), packed))
    assert float((found[0] - found[1]).abs().max()) > 100 * TOLERANCE


# ---- loading ---------------------------------------------------------------------------------------------------------


def test_attention_is_chosen_by_the_model(tmp_path: Path) -> None:
    """Capped scores need eager attention; everything else has the faster one."""
    gemma, llama = gemma2_folder(tmp_path / "gemma"), llama3_folder(tmp_path / "llama")
    for path, attention in ((gemma, "eager"), (llama, "sdpa")):
        assert load_policy(path).config._attn_implementation == attention
        assert load_scorer(path, seed=0).model.config._attn_implementation == attention
    architecture = {"model_type": "gemma2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    assert new_policy(architecture, TextCodec(gemma), seed=0).config._attn_implementation == "eager"


def test_adapters_on_a_windowed_model(tmp_path: Path) -> None:
    """A new adapter changes nothing, also where the masks are made for the model inside it."""
    path, packed = gemma2_folder(tmp_path), pack(PROMPTS, RESPONSES, pad_id=PAD)
    adapted = add_lora(load_policy(path), {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj"]}, seed=0)
    with torch.no_grad():
        assert torch.equal(packed_logprobs(adapted, packed), packed_logprobs(load_policy(path), packed))


def test_bfloat16_teachers(folder: Path) -> None:
    """Weights in bfloat16, log-probabilities in float32 and near those of float32 weights (8 bits: 0.4 % of each term)."""
    teacher, packed = load_policy(folder, dtype="bfloat16"), pack(PROMPTS, RESPONSES, pad_id=PAD)
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.bfloat16}
    with torch.no_grad():
        found, expected = packed_logprobs(teacher, packed), packed_logprobs(load_policy(folder), packed)
        rewards = load_scorer(folder, seed=0, dtype="bfloat16").rewards(packed)
    assert found.dtype == rewards.dtype == torch.float32
    # Differences here are 0.05 at most, 0.01 on average, of log-probabilities of up to 9.
    gap = (found - expected)[packed.mask].abs()
    assert float(gap.max()) < 0.2 and float(gap.mean()) < 0.05
