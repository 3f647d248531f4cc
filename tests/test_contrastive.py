"""Contrastive decoding: two tiny random models, by plain forward passes, by the engine, and by transformers' `generate`."""

from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import gemma2_folder, llama3_folder
from conftest import p_value, plain_logps
from torch import Tensor
from transformers import LogitsProcessorList

from prefdist.errors import UserError
from prefdist.models import load_policy
from prefdist.sampling.contrastive import Contrast, ContrastiveLogits, Pair
from prefdist.sampling.engine import left_padded, sample
from prefdist.sampling.law import Sampler

PROMPTS = [[11, 40, 200, 7], [9], [30, 31, 32, 33, 34, 35, 36, 37, 38], [100, 50]]
BUDGET = 10
NEVER = [-1]
CLOSE = 5e-5
"""Between cached and plain forward passes in float32: 10 tokens of some nats, weights of up to 2 (test_architectures.py)."""
CONTRASTS = [Contrast(1.5, 0.5), Contrast(1.5, 0.5, 0.1), Contrast(0.5, -0.5), Contrast(1.0, 1.0, 0.3)]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder = tmp_path_factory.mktemp("pair")
    return load_policy(llama3_folder(folder / "policy")), load_policy(llama3_folder(folder / "reference", seed=1))


def by_hand(models: tuple[Any, Any], ids: list[int], contrast: Contrast) -> Tensor:
    """Log-probabilities [V] of the next token after unpadded ids, written out in float64."""
    with torch.no_grad():
        p, q = (model(torch.tensor([ids]), use_cache=False).logits[0, -1].double().softmax(-1) for model in models)
    weights = p**contrast.a * q**-contrast.b
    weights[p < contrast.plausibility * p.max()] = 0
    return (weights / weights.sum()).log()


def generated(model: Any, processor: ContrastiveLogits, **options: Any) -> Any:
    ids, attention, _ = left_padded(PROMPTS, "cpu")
    return model.generate(
        ids,
        attention_mask=attention,
        logits_processor=LogitsProcessorList([processor]),
        max_new_tokens=BUDGET,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
        **options,
    )


def processor_of(reference: Any, contrast: Contrast) -> ContrastiveLogits:
    attention = left_padded(PROMPTS, "cpu")[1]
    return ContrastiveLogits(reference, contrast.a, contrast.b, contrast.plausibility, attention_mask=attention)


def greedy(models: tuple[Any, Any], prompt: list[int], contrast: Contrast) -> list[int]:
    ids = list(prompt)
    for _ in range(BUDGET):
        ids.append(int(by_hand(models, ids, contrast).argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_samples_have_the_law_of_two_plain_models(contrast: Contrast, models: tuple[Any, Any]) -> None:
    """Both caches, left padding, repeated rows and rows that end early: log-probabilities token by token."""
    pair = Pair(*models, contrast)
    options: dict[str, Any] = {"num_samples": 4, "max_new_tokens": BUDGET}
    eos = sample(pair, PROMPTS, list("abcd"), **options, stop_ids=NEVER)[0][0].token_ids[4]
    drawn = sample(pair, PROMPTS, list("abcd"), **options, stop_ids=[eos])
    assert len({len(s.token_ids) for samples in drawn for s in samples}) > 1, "some must end before others"
    for prompt, samples in zip(PROMPTS, drawn, strict=True):
        for s in samples:
            steps = [by_hand(models, prompt + s.token_ids[:t], contrast)[token] for t, token in enumerate(s.token_ids)]
            assert [s.logp, s.logq] == pytest.approx([float(sum(steps))] * 2, abs=BUDGET * CLOSE)


@pytest.mark.parametrize("contrast", CONTRASTS)
def test_greedy_by_engine_and_by_generate(contrast: Contrast, models: tuple[Any, Any]) -> None:
    expected = [greedy(models, prompt, contrast) for prompt in PROMPTS]
    assert expected != [greedy(models, prompt, Contrast(1, 0)) for prompt in PROMPTS], "the contrast must matter"
    options: dict[str, Any] = {"num_samples": 1, "max_new_tokens": BUDGET, "stop_ids": NEVER}
    drawn = sample(Pair(*models, contrast), PROMPTS, list("abcd"), sampler=Sampler(temperature=1e-6), **options)
    assert [samples[0].token_ids for samples in drawn] == expected
    found = generated(models[0], processor_of(models[1], contrast), do_sample=False)
    assert found.sequences[:, -BUDGET:].tolist() == expected
    for t, scores in enumerate(found.scores):
        for row, prompt in enumerate(PROMPTS):
            law = by_hand(models, prompt + expected[row][:t], contrast).exp()
            torch.testing.assert_close(scores[row].softmax(-1).double(), law, rtol=0, atol=CLOSE)


def test_generate_with_several_sequences_and_beams(models: tuple[Any, Any]) -> None:
    """Rows repeated by generate, and reordered by beams: scores are those of the sequence each row has."""
    contrast = CONTRASTS[1]
    torch.manual_seed(0)
    found = generated(models[0], processor_of(models[1], contrast), do_sample=True, num_return_sequences=2)
    for row, ids in enumerate(found.sequences[:, -BUDGET:].tolist()):
        for t in range(BUDGET):
            law = by_hand(models, PROMPTS[row // 2] + ids[:t], contrast).exp()
            assert law[ids[t]] > 0
            # The default generation config filters by top-k of 50 behind the processor.
            scores = found.scores[t][row]
            kept = scores.isfinite()
            torch.testing.assert_close(scores[kept].softmax(-1).double(), law[kept] / law[kept].sum(), rtol=0, atol=CLOSE)
    beams = generated(models[0], processor_of(models[1], contrast), do_sample=False, num_beams=3, length_penalty=0.0)
    for row, prompt in enumerate(PROMPTS):
        ids = beams.sequences[row, -BUDGET:].tolist()
        # Beams add up what the processor returns, which is not normalised.
        of_policy, of_reference = (plain_logps(model, prompt, ids) for model in models)
        expected = float((contrast.a * of_policy - contrast.b * of_reference).sum())
        assert float(beams.sequences_scores[row]) == pytest.approx(expected, abs=BUDGET * CLOSE)


def test_the_ends(models: tuple[Any, Any]) -> None:
    """a = 1, b = 0 is the plain sampler of θ; a = 0, b = −1 is that of the reference; equal models give θ at a − b = 1."""
    policy, reference = models
    options: dict[str, Any] = {"num_samples": 5, "max_new_tokens": BUDGET, "stop_ids": NEVER, "sampler": Sampler(0.8, 0.95)}
    keys = list("abcd")

    def ids(model: Any) -> list[list[list[int]]]:
        return [[s.token_ids for s in samples] for samples in sample(model, PROMPTS, keys, **options)]

    of_policy, of_reference = ids(policy), ids(reference)
    assert of_policy != of_reference
    assert ids(Pair(policy, reference, Contrast(1, 0))) == of_policy
    assert ids(Pair(policy, reference, Contrast(0, -1))) == of_reference
    assert ids(Pair(policy, policy, Contrast(3, 2))) == of_policy


def test_first_tokens_follow_the_contrasted_law(models: tuple[Any, Any]) -> None:
    """A fixed seed: a right sampler fails once in 10 000 seeds. θ's own law is told apart."""
    contrast, draws = Contrast(0.5, -0.5), 20_000
    options: dict[str, Any] = {"num_samples": draws, "max_new_tokens": 1, "stop_ids": NEVER}
    (samples,) = sample(Pair(*models, contrast), PROMPTS[:1], ["k"], **options)
    tokens = [s.token_ids[0] for s in samples]
    assert p_value(tokens, by_hand(models, PROMPTS[0], contrast).exp()) > 1e-4
    assert p_value(tokens, by_hand(models, PROMPTS[0], Contrast(1, 0)).exp()) < 1e-6


def test_logits_by_hand() -> None:
    """θ = (.5, .3, .15, .05), ref = (.25, .25, .25, .25) and then (.7, .1, .1, .1)."""
    theta = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()
    even, skewed = torch.full((4,), 0.25).log(), torch.tensor([0.7, 0.1, 0.1, 0.1]).log()
    assert Contrast(2, 1).logits(theta, even).softmax(-1).tolist() == pytest.approx(
        [50 / 73, 18 / 73, 4.5 / 73, 0.5 / 73], abs=1e-6
    )
    ratios = [5 / 7, 3, 1.5, 0.5]
    found = Contrast(1, 1).logits(theta, skewed).softmax(-1).tolist()
    assert found == pytest.approx([ratio / sum(ratios) for ratio in ratios], abs=1e-6)
    # .3 of .5 is .15: the third stays, the last goes; at .31 only two are left, and at 1 the likeliest.
    masked = {share: Contrast(1, 1, share).logits(theta, skewed).isfinite().tolist() for share in (0.299, 0.301, 1.0)}
    assert masked == {0.299: [True] * 3 + [False], 0.301: [True, True, False, False], 1.0: [True] + [False] * 3}
    assert Contrast(1, 0, 1).logits(torch.zeros(3), even[:3]).isfinite().all(), "what ties with the likeliest is plausible"
    # A weight of 0 leaves a model out, also one with impossible tokens.
    impossible = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    assert torch.equal(Contrast(1, 0).logits(theta, impossible), Contrast(1, 0).logits(theta, even))
    assert not Contrast(0, -1).logits(impossible, theta).isnan().any()


def test_a_processor_for_other_prompts_is_refused(models: tuple[Any, Any]) -> None:
    processor = processor_of(models[1], CONTRASTS[0])
    scores = torch.zeros(3, models[0].config.vocab_size)
    with pytest.raises(ValueError, match=r"ids \[3, 9\] do not go on from prompts \[4, 9\]"):
        processor(torch.ones(3, 9, dtype=torch.long), scores)
    with pytest.raises(ValueError, match=r"ids \[4, 8\] do not go on"):
        processor(torch.ones(4, 8, dtype=torch.long), scores)


def test_a_processor_starts_anew(models: tuple[Any, Any]) -> None:
    """A second generation with the same prompts does not see the first one's cache."""
    processor = processor_of(models[1], CONTRASTS[0])
    first, second = (generated(models[0], processor, do_sample=False).sequences for _ in range(2))
    assert torch.equal(first, second)


def test_refused(models: tuple[Any, Any], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"plausibility must lie in \[0, 1\], got 1.5"):
        Contrast(1, 0, 1.5)
    other = load_policy(gemma2_folder(tmp_path / "other"))
    assert other.config.vocab_size != models[0].config.vocab_size
    message = rf"has {models[0].config.vocab_size} tokens and the reference .*other has \d+; take two models of one tokenizer"
    with pytest.raises(UserError, match=message):
        Pair(models[0], other, Contrast(1, 0))
    with pytest.raises(UserError, match=message):
        generated(models[0], processor_of(other, Contrast(1, 0)), do_sample=False)


def test_the_shorter_context_counts(models: tuple[Any, Any], tmp_path: Path) -> None:
    short = load_policy(llama3_folder(tmp_path / "short", max_position_embeddings=64))
    for pair in (Pair(models[0], short, Contrast(1, 0)), Pair(short, models[0], Contrast(1, 0))):
        assert pair.config.max_position_embeddings == 64
