"""The law of the next token against transformers' own filters, a definition by sorting, and the sampler of before."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import llama3_folder
from conftest import plain_logps
from torch import Tensor
from transformers import LogitsProcessorList, MinPLogitsWarper, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from prefdist.models import load_policy
from prefdist.sampling import engine
from prefdist.sampling.law import ANCESTRAL, Sampler

VOCABULARY = 50


@pytest.fixture(scope="module")
def logits() -> Tensor:
    return 2.0 * torch.randn(64, VOCABULARY, generator=torch.Generator().manual_seed(0))


def warped(logits: Tensor, temperature: float, top_k: int, top_p: float, min_p: float) -> Tensor:
    """As `generate` chains them."""
    warpers: list[Any] = [TemperatureLogitsWarper(temperature)]
    warpers += [TopKLogitsWarper(top_k)] if top_k else []
    warpers += [TopPLogitsWarper(top_p)] if top_p < 1 else []
    warpers += [MinPLogitsWarper(min_p)] if min_p else []
    law: Tensor = LogitsProcessorList(warpers)(torch.zeros(len(logits), 1, dtype=torch.long), logits).softmax(-1)
    return law


@pytest.mark.parametrize("temperature", [0.3, 1.0, 1.8])
@pytest.mark.parametrize(
    ("top_k", "top_p", "min_p"),
    [
        (0, 1, 0),
        (1, 1, 0),
        (7, 1, 0),
        (80, 1, 0),
        (0, 0.6, 0),
        (0, 1, 0.1),
        (0, 1, 1.0),
        (7, 0.6, 0),
        (9, 0.8, 0.2),
        (0, 0.9, 0.05),
    ],
)
def test_laws_of_transformers(temperature: float, top_k: int, top_p: float, min_p: float, logits: Tensor) -> None:
    """In float64, so that no cumulative sum of 50 terms falls on the other side of a threshold: 1e-12 is far above rounding."""
    found = Sampler(temperature, top_p, top_k, min_p).law(logits)
    expected = warped(logits.double(), temperature, top_k, top_p, min_p)
    assert torch.equal(found > 0, expected > 0)
    # Ours begins with a log-softmax in float32: 1e-7 of up to 10 nats, divided by a temperature of 0.3 or more.
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-12)
    assert found.dtype == torch.float64
    assert found.sum(-1).tolist() == pytest.approx([1.0] * len(logits), abs=1e-12)


def test_filters_by_hand() -> None:
    """Probabilities .4 .3 .2 .1: each filter alone, then in their order."""
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()

    def law(**options: float) -> list[float]:
        return Sampler(**options).law(logits)[0].tolist()  # type: ignore[arg-type]

    close = {"abs": 1e-7}  # logits in float32
    assert law() == pytest.approx([0.1, 0.4, 0.2, 0.3], **close)
    assert law(top_k=2) == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert law(top_p=0.6) == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert law(top_p=0.75) == pytest.approx([0, 4 / 9, 2 / 9, 3 / 9], **close)
    assert law(min_p=0.6) == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)
    assert law(temperature=0.5, min_p=0.6) == pytest.approx([0, 1, 0, 0], **close)  # .16 .09 .04 .01: at logits/temperature
    # Of the two that top-k keeps, .571 and .429, the first reaches .55 alone. Of all four it has .4, and does not.
    assert law(top_k=2, top_p=0.55) == pytest.approx([0, 1, 0, 0], **close)
    assert law(top_p=0.55) == pytest.approx([0, 4 / 7, 0, 3 / 7], **close)


def test_ties_with_the_last_of_top_k_are_kept() -> None:
    assert Sampler(top_k=2).law(torch.tensor([[0.0, 1.0, 0.0, -1.0]]))[0].gt(0).tolist() == [True, True, True, False]


def test_impossible_tokens_stay_impossible() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 1.0]])
    for sampler in (ANCESTRAL, Sampler(top_k=3), Sampler(top_p=0.99999), Sampler(min_p=1e-9)):
        assert sampler.law(logits)[0, 1] == 0
    noise = torch.linspace(0, 1 - 2**-53, 1000, dtype=torch.float64)
    tokens, logps = engine._draw(logits.repeat(1000, 1), noise, ANCESTRAL)
    assert set(tokens.tolist()) == {0, 2}
    assert bool(logps.isfinite().all())


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 1.0), (1.2, 0.9), (1.0, 0.5)])
def test_draws_are_those_of_before_this_law(temperature: float, top_p: float, logits: Tensor) -> None:
    """The sampler that knew temperature and top-p alone, written out: equal bits, so that seeds keep their meaning."""
    noise = torch.rand(len(logits), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    logps = logits.log_softmax(-1)
    law = (logps.double() / temperature).softmax(-1)
    if top_p < 1:
        ordered, order = law.sort(dim=-1, descending=True, stable=True)
        before = torch.cat([torch.zeros(len(law), 1, dtype=law.dtype), ordered.cumsum(-1)[:, :-1]], dim=-1)
        law = torch.where(torch.zeros_like(law, dtype=torch.bool).scatter(-1, order, before < top_p), law, 0.0)
    sampler = Sampler(temperature, top_p)
    assert torch.equal(sampler.weights(logps), law)
    cumulative = law.cumsum(-1)
    expected = (cumulative <= (noise * cumulative[:, -1]).unsqueeze(-1)).sum(-1)
    tokens, found = engine._draw(logits, noise, sampler)
    assert torch.equal(tokens, expected)
    rows = torch.arange(len(logits))
    assert torch.equal(found[:, 0], logps[rows, expected].double())
    torch.testing.assert_close(found[:, 1], (law / law.sum(-1, keepdim=True))[rows, expected].log(), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature must be finite and > 0, got 0.0"),
        ({"temperature": float("nan")}, "temperature must be finite and > 0, got nan"),
        ({"temperature": float("inf")}, "temperature must be finite and > 0, got inf"),
        ({"top_p": 0.0}, r"top_p must lie in \(0, 1\], got 0.0"),
        ({"top_p": 1.1}, r"top_p must lie in \(0, 1\], got 1.1"),
        ({"top_k": -1}, "top_k must be a whole number ≥ 0, got -1"),
        ({"top_k": 2.5}, "top_k must be a whole number ≥ 0, got 2.5"),
        ({"min_p": -0.1}, r"min_p must lie in \[0, 1\], got -0.1"),
        ({"min_p": 1.5}, r"min_p must lie in \[0, 1\], got 1.5"),
    ],
)
def test_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Sampler(**options)


def test_logq_is_the_law_drawn_from(tmp_path: Path) -> None:
    """Of whole responses, against plain forward passes and transformers' filters; logp stays that of all tokens at T = 1."""
    model = load_policy(llama3_folder(tmp_path))
    prompt, options = [11, 40, 200, 7], {"temperature": 1.3, "top_k": 40, "top_p": 0.9, "min_p": 0.02}
    (samples,) = engine.sample(
        model,
        [prompt],
        ["k"],
        num_samples=8,
        max_new_tokens=6,
        stop_ids=[3],
        sampler=Sampler(**options),  # type: ignore[arg-type]
    )
    for s in samples:
        expected = 0.0
        for t, token in enumerate(s.token_ids):
            with torch.no_grad():
                logits = model(torch.tensor([prompt + s.token_ids[:t]])).logits[:, -1].double()
            expected += math.log(float(warped(logits, **options)[0, token]))  # type: ignore[arg-type]
        # 6 tokens, each the difference of logits in float32; a token at a threshold would be off by far more.
        assert s.logq == pytest.approx(expected, abs=3e-4)
        assert s.logp == pytest.approx(float(plain_logps(model, prompt, s.token_ids).sum()), abs=3e-4)
        assert s.logp < s.logq
