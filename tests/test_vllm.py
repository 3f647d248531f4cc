"""Real vLLM on the CPU beside one plain forward pass of transformers a response: log-probabilities, laws, stops, adapters.

Everything is in float32. Log-probabilities of a few nats come out of two layers of sums of a few hundred products, added in
another order: differences of up to 1e-5 a token were found, 1e-4 is allowed. What must not be taken for rounding (a window, a
cap, a stale head) is of another size, as test_architectures.py shows.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import p_value
from scipy.stats import chisquare
from torch import Tensor
from vllm_models import FOLDERS, needs_vllm, random_ids, token_laws

from prefdist.errors import UserError
from prefdist.models import add_lora, load_policy
from prefdist.sampling.law import ANCESTRAL, Sampler
from prefdist.sampling.vllm import engine
from prefdist.sampling.vllm.engine import Vllm, next_logps, response_logps, sample, token_logps
from prefdist.scoring import sequences

pytestmark = [pytest.mark.vllm, needs_vllm]

TOLERANCE = 1e-4
LONGEST = 40
PROMPTS = random_ids(4, 9, 1, seed=0)
RESPONSES = [random_ids(*lengths, seed=row) for row, lengths in enumerate([(9, 3, 1), (2, 31, 11), (1, 7)], start=1)]
"""One of a single token, one that fills the context, prompts and responses on both sides of the windows."""


@pytest.fixture(scope="module", params=list(FOLDERS))
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return FOLDERS[request.param](tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def model(folder: Path) -> Any:
    return load_policy(folder)


@pytest.fixture(scope="module")
def vllm(folder: Path) -> Iterator[Vllm]:
    started = Vllm(folder, longest=LONGEST)
    yield started
    started.close()


def test_log_probabilities_of_given_responses(vllm: Vllm, model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Token by token against transformers, and summed against the project's scorer; the requests may be cut anywhere."""
    found = token_logps(vllm, PROMPTS, RESPONSES)
    for prompt, responses, of_prompt in zip(PROMPTS, RESPONSES, found, strict=True):
        for response, logps in zip(responses, of_prompt, strict=True):
            expected = token_laws(model, prompt, response)[torch.arange(len(response)), torch.tensor(response)]
            assert logps == pytest.approx(expected.tolist(), abs=TOLERANCE)
    monkeypatch.setattr(engine, "TOKENS", 12)
    sums = response_logps(vllm, PROMPTS, RESPONSES)
    ours = sequences.response_logps(model, PROMPTS, RESPONSES, pad_id=0)
    for a, b, responses in zip(sums, ours, RESPONSES, strict=True):
        assert a.dtype == torch.float32 and a.shape == (len(responses),)
        assert a.tolist() == pytest.approx(b.tolist(), abs=31 * TOLERANCE)


def test_letters(vllm: Vllm, model: Any) -> None:
    """Probabilities of given tokens as the next one, however unlikely, in the order asked."""
    letters = [250, 11, 7, 120]
    found = next_logps(vllm, PROMPTS, letters)
    for prompt, row in zip(PROMPTS, found, strict=True):
        expected = token_laws(model, prompt, [0])[0, letters]
        assert row.tolist() == pytest.approx(expected.tolist(), abs=TOLERANCE)
    assert found.shape == (3, 4) and found.dtype == torch.float32


@pytest.mark.parametrize(
    "sampler",
    [ANCESTRAL, Sampler(0.6), Sampler(1.4, top_k=5), Sampler(0.9, top_p=0.8), Sampler(1.2, top_k=30, min_p=0.1)],
    ids=str,
)
def test_samples(sampler: Sampler, vllm: Vllm, model: Any) -> None:
    """logp is that of the model at T = 1, logq that of the law as law.py has it, both with the stop id; nothing follows it."""
    options: dict[str, Any] = {"num_samples": 8, "max_new_tokens": 20, "sampler": sampler}
    unstopped = sample(vllm, PROMPTS, list("abc"), stop_ids=[], **options)
    stop_ids = [999, unstopped[1][0].token_ids[4]]  # beyond the vocabulary, and one that ends at least this response early
    drawn = sample(vllm, PROMPTS, list("abc"), stop_ids=stop_ids, **options)
    ends = set()
    for prompt, samples in zip(PROMPTS, drawn, strict=True):
        for s in samples:
            index = torch.arange(len(s.token_ids)), torch.tensor(s.token_ids)
            laws = token_laws(model, prompt, s.token_ids)
            assert s.logp == pytest.approx(float(laws[index].sum()), abs=20 * TOLERANCE)
            # At a temperature of 0.6 rounding of logits grows to 1/0.6.
            assert s.logq == pytest.approx(float(sampler.law(laws)[index].log().sum()), abs=40 * TOLERANCE)
            stopped = s.token_ids[-1] in stop_ids
            assert s.finish_reason == ("stop" if stopped else "length")
            assert stopped or len(s.token_ids) == 20
            assert not set(s.token_ids[:-1]) & set(stop_ids)
            ends.add(s.finish_reason)
    assert "stop" in ends
    assert drawn == sample(vllm, PROMPTS, list("abc"), stop_ids=stop_ids, **options), "the same work again"
    assert drawn[0] != sample(vllm, PROMPTS[:1], ["z"], stop_ids=stop_ids, **options)[0], "another key"


def uniform_p_value(tokens: list[int], laws: Tensor) -> float:
    """Each token against its own law [N, V]: its place in the cumulative law, likeliest first, is uniform in [0, 1].

    0 if a token cannot come.
    """
    ordered, order = laws.sort(dim=-1, descending=True)
    place = (order == torch.tensor(tokens)[:, None]).nonzero()[:, 1:]
    own = ordered.gather(-1, place)[:, 0]
    if own.min() == 0:
        return 0.0
    within = torch.rand(len(tokens), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = ordered.cumsum(-1).gather(-1, place)[:, 0] - within * own
    return float(chisquare(torch.histc(found, 100, 0.0, 1.0)).pvalue)


@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)
@pytest.mark.parametrize(
    "sampler", [ANCESTRAL, Sampler(2.0, top_k=12), Sampler(1.5, top_p=0.9), Sampler(1.5, min_p=0.05)], ids=str
)
def test_tokens_follow_the_law(sampler: Sampler, vllm: Vllm, model: Any) -> None:
    """3 000 first tokens, and what follows each of them, by chi-square tests. All families share vLLM's sampler."""
    options: dict[str, Any] = {"num_samples": 3000, "stop_ids": [], "sampler": sampler}
    drawn = sample(vllm, PROMPTS[:1], [str(sampler)], max_new_tokens=2, **options)
    firsts, seconds = (list(tokens) for tokens in zip(*(s.token_ids for s in drawn[0]), strict=True))
    law = sampler.law(token_laws(model, PROMPTS[0], [0]))[0]
    assert p_value(firsts, law) > 1e-3
    behind = {first: sampler.law(token_laws(model, [*PROMPTS[0], first], [0]))[0] for first in set(firsts)}
    laws = torch.stack([behind[first] for first in firsts])
    assert uniform_p_value(seconds, laws) > 1e-3
    assert uniform_p_value(seconds, laws.roll(1, 0)) < 1e-6, "the law behind another token"


@pytest.mark.parametrize("folder", ["qwen2"], indirect=True)
def test_more_prompts_than_a_pass_takes(vllm: Vllm, model: Any) -> None:
    """300 of 36 tokens, where a pass has 8 192: a prompt that is cut in two must not lose its seed."""
    prompts = random_ids(*[36] * 300, seed=9)
    drawn = sample(vllm, prompts, list(map(str, range(300))), num_samples=1, max_new_tokens=3, stop_ids=[])
    ours = sequences.response_logps(model, prompts, [[s.token_ids for s in samples] for samples in drawn], pad_id=0)
    found = [samples[0].logp for samples in drawn]
    assert found == pytest.approx(torch.cat(ours).tolist(), abs=3 * TOLERANCE)


def test_what_vllm_cannot_do(vllm: Vllm) -> None:
    options: dict[str, Any] = {"num_samples": 1, "max_new_tokens": 2, "stop_ids": [3]}
    with pytest.raises(UserError, match=r"min_p: 0.1 with top_p 0.9.* set one of them"):
        sample(vllm, PROMPTS, list("abc"), sampler=Sampler(top_p=0.9, min_p=0.1), **options)
    with pytest.raises(UserError, match=r"temperature: 0.001"):
        sample(vllm, PROMPTS, list("abc"), sampler=Sampler(0.001), **options)
    with pytest.raises(UserError, match=r"refused \(sample\)"):
        sample(vllm, [list(range(6, 50))], ["a"], **options)
    with pytest.raises(ValueError, match="at most 128"):
        next_logps(vllm, PROMPTS, range(200))
    with pytest.raises(ValueError, match="different"):
        next_logps(vllm, PROMPTS, [5, 5])
    assert len(sample(vllm, PROMPTS, list("abc"), **options)) == 3, "it goes on after errors"


# ---- adapters --------------------------------------------------------------------------------------------------------


def adapter(folder: Path, path: Path, scale: float, **settings: Any) -> Any:
    """A policy with an adapter whose B is random times `scale`, saved in `path`."""
    policy = add_lora(load_policy(folder), {"r": 3, "lora_alpha": 6, **settings}, seed=0)
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_B" in name:
                parameter.copy_(scale * torch.randn_like(parameter))
    policy.save_pretrained(path)
    return policy


def test_adapters(tmp_path: Path) -> None:
    """Two adapters one after the other, none, and a new one, whose B is zero: each gives the log-probabilities of peft."""
    base = FOLDERS["llama3"](tmp_path / "base")
    projections = {"target_modules": ["q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"]}
    adapted = {name: adapter(base, tmp_path / name, s, **projections) for name, s in {"a": 0.3, "b": -0.2, "new": 0.0}.items()}
    vllm = Vllm(base, longest=LONGEST, rank=3)
    plain = sequences.response_logps(load_policy(base), PROMPTS, RESPONSES, pad_id=0)
    for name in ("a", "b", None, "new", "a"):
        vllm.adapt(None if name is None else tmp_path / name)
        policy = load_policy(base) if name is None else adapted[name]
        expected = torch.cat(sequences.response_logps(policy, PROMPTS, RESPONSES, pad_id=0))
        found = torch.cat(response_logps(vllm, PROMPTS, RESPONSES))
        assert found.tolist() == pytest.approx(expected.tolist(), abs=31 * TOLERANCE)
        changed = float((found - torch.cat(plain)).abs().max())
        assert changed > 1 if name in ("a", "b") else changed < 31 * TOLERANCE
        drawn = sample(vllm, PROMPTS[:1], ["k"], num_samples=4, max_new_tokens=9, stop_ids=[3])[0]
        again = sequences.response_logps(policy, PROMPTS[:1], [[s.token_ids for s in drawn]], pad_id=0)[0]
        assert [s.logp for s in drawn] == pytest.approx(again.tolist(), abs=9 * TOLERANCE)
    vllm.close()


def test_an_adapter_that_changes_nothing(tmp_path: Path) -> None:
    """Of rank 3 with an A of zero, a B that is not: the product is zero, as where vLLM ignores it."""
    base = FOLDERS["llama3"](tmp_path / "base")
    policy = adapter(base, tmp_path / "idle", 0.3, target_modules=["q_proj"])
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if "lora_A" in name:
                parameter.zero_()
    policy.save_pretrained(tmp_path / "idle")
    vllm = Vllm(base, longest=LONGEST, rank=3)
    with pytest.raises(UserError, match=r"idle: vLLM loads this adapter, but nothing changes, although its B is not zero"):
        vllm.adapt(tmp_path / "idle")
    with pytest.raises(UserError, match="r: 600 is more than vLLM's largest rank"):
        Vllm(base, longest=LONGEST, rank=600)
    vllm.close()


def test_a_model_without_weights(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no config.json there"):
        Vllm(tmp_path, longest=8)
