"""The stage `responses`: nucleus sampling, diverse subsets, and which draws become rows."""

import json
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from conftest import plain_logps
from teacher_inputs import write_teacher, write_text
from transformers import TopPLogitsWarper

from prefdist.data import tables
from prefdist.data.selection import first_prompts, held_out
from prefdist.errors import UserError
from prefdist.evaluation.held_out import sample as held_out_samples
from prefdist.models import load_policy
from prefdist.sampling import engine, stage
from prefdist.sampling.engine import sample
from prefdist.sampling.law import Sampler, _nucleus
from prefdist.sampling.stage import choose
from prefdist.sampling.subsets import max_min_subset
from prefdist.tokens import TextCodec

SPEC = {
    "split": "test",
    "prompts": 9,
    "n": 3,
    "draws": 8,
    "temperature": 1.2,
    "top_p": 0.9,
    "max_new_tokens": 6,
    "select": "first",
    "key": "k",
}


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("policy") / "policy")


def brute_nucleus(law: list[float], top_p: float) -> list[float]:
    """Likeliest tokens until their sum reaches top_p, made a law again."""
    kept, total = [], 0.0
    for i in sorted(range(len(law)), key=lambda i: -law[i]):
        if total >= top_p:
            break
        kept.append(i)
        total += law[i]
    return [law[i] / total if i in kept else 0.0 for i in range(len(law))]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.5])
@pytest.mark.parametrize("top_p", [0.05, 0.3, 0.7, 0.95])
def test_tokens_follow_the_nucleus(temperature: float, top_p: float) -> None:
    """At 10 000 evenly spaced quantiles each token is drawn as often as its probability says, to within one quantile."""
    logits = torch.tensor([0.3, -1.0, 2.0, 1.1, -0.2, 0.9, -3.0])
    law = (logits.double() / temperature).softmax(-1)
    wanted = brute_nucleus(law.tolist(), top_p)
    size = 10_000
    noise = (torch.arange(size, dtype=torch.float64) + 0.5) / size
    tokens, logps = engine._draw(logits.repeat(size, 1), noise, Sampler(temperature, top_p))
    counts = Counter(tokens.tolist())
    for token, p in enumerate(wanted):
        assert abs(counts[token] - p * size) <= 1
    warped = TopPLogitsWarper(top_p)(torch.zeros(1, 1), (logits / temperature).unsqueeze(0))[0]
    assert set(counts) == set(warped.isfinite().nonzero().squeeze(-1).tolist())
    expected = logits.double().log_softmax(-1)[tokens]
    assert torch.allclose(logps[:, 0], expected, atol=1e-6), "the log-probability is that of the full law at T = 1"
    assert logps[:, 1].exp().tolist() == pytest.approx([wanted[token] for token in tokens.tolist()], abs=1e-6)


@pytest.mark.parametrize(("top_p", "size"), [(0.5, 1), (0.500001, 2), (0.75, 2), (0.750001, 3), (0.99, 4)])
def test_the_token_that_crosses_is_in_the_nucleus(top_p: float, size: int) -> None:
    law = torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64)
    assert int((_nucleus(law, top_p) > 0).sum()) == size


def test_a_whole_response_from_the_nucleus(policy: Path) -> None:
    prior, codec = load_policy(policy), TextCodec(policy)
    prompt = codec.prompt("Name a fruit.")
    options: dict[str, Any] = {"num_samples": 40, "max_new_tokens": 6, "stop_ids": codec.stop_ids}
    (full,) = sample(prior, [prompt], ["k"], **options, sampler=Sampler(1.3))
    (cut,) = sample(prior, [prompt], ["k"], **options, sampler=Sampler(1.3, top_p=0.8))
    assert [s.token_ids for s in cut] != [s.token_ids for s in full]
    for s in cut[:10]:
        for t, token in enumerate(s.token_ids):
            with torch.no_grad():
                logits = prior(torch.tensor([prompt + s.token_ids[:t]])).logits[0, -1].double()
            assert brute_nucleus((logits / 1.3).softmax(-1).tolist(), 0.8)[token] > 0
        assert s.logp == pytest.approx(float(plain_logps(prior, prompt, s.token_ids).sum()), abs=1e-4)


def plain_levenshtein(a: str, b: str) -> int:
    @cache
    def distance(i: int, j: int) -> int:
        if not i or not j:
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


def test_max_min_subset() -> None:
    """Against the definition: of all continuations of the greedy choice, the first that is farthest from what is chosen."""
    random = Random(0)
    for size in (2, 5, 7):
        texts = ["".join(random.choices("abé ", k=random.randrange(1, 8))) for _ in range(7)]
        chosen = max_min_subset(texts, size)
        assert len(set(chosen)) == size
        for k in range(1, size):
            nearest = [min(plain_levenshtein(texts[i], texts[j]) for j in chosen[:k]) for i in range(7)]
            rest = [i for i in range(7) if i not in chosen[:k]]
            assert chosen[k] == max(rest, key=lambda i: (nearest[i], -i))
        assert chosen == max_min_subset(texts, 7)[:size]


def test_max_min_subset_by_hand() -> None:
    assert max_min_subset(["aaaa", "aaab", "bbbb", "aabb"], 3) == [0, 2, 3]
    assert max_min_subset(["x", "x", "x"], 3) == [0, 1, 2], "ties go to the lowest index"
    with pytest.raises(ValueError, match="size is 4"):
        max_min_subset(["x", "y", "z"], 4)


def drawn(*texts: str, prompt_id: str = "p", length: int = 0) -> list[dict[str, Any]]:
    """Draws of one prompt; the last `length` ones are truncated."""
    return [
        {
            "prompt_id": prompt_id,
            "sample": i,
            "text": text,
            "finish_reason": "length" if i >= len(texts) - length else "stop",
        }
        for i, text in enumerate(texts)
    ]


def test_choose() -> None:
    first = drawn("aa", " aa\n", "", "ab", "zzzz", "a  a", prompt_id="p", length=2)
    second = drawn("b", "b", " ", "b ", "c", "c", prompt_id="q")
    rows, summary = choose([first, second], 3, "first")
    assert [(row["prompt_id"], row["sample"], row["text"]) for row in rows] == [
        ("p", 0, "aa"),
        ("p", 1, "ab"),
        ("p", 2, "zzzz"),
    ]
    assert summary == {"prompts": 2, "kept": 1, "dropped": 1, "duplicates": 4, "blanks": 2, "truncated": pytest.approx(1 / 3)}
    rows, _ = choose([first, second], 2, "max_min")
    assert [row["text"] for row in rows] == ["aa", "zzzz", "b", "c"]
    assert choose([second], 3, "first") == (
        [],
        {**summary, "prompts": 1, "kept": 0, "duplicates": 3, "blanks": 1, "truncated": 0},
    )


@pytest.mark.parametrize("split", ["test", "train"])
def test_stage(split: str, policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are the engine's draws under the prompt's own key, however they were cut into shards."""
    prompts = {str(i): f"Name fruit {i} {'please ' * (i % 3)}" for i in range(12)}
    inputs = {"text": write_text(tmp_path / "text", prompts, split), "policy": policy}
    for folder, rows in (("whole", 512), ("shards", 16)):
        monkeypatch.setattr(engine, "ROWS", rows)
        (tmp_path / folder).mkdir()
        stage.run({**SPEC, "split": split}, inputs, tmp_path / folder, tmp_path / "scratch")
        assert not (tmp_path / "scratch").exists()
    whole, shards = (tables.read_table(tmp_path / name / "responses.parquet", tables.SAMPLES) for name in ("whole", "shards"))
    assert [row | {"logp": 0} for row in whole] == [row | {"logp": 0} for row in shards]
    summary = json.loads((tmp_path / "whole" / "summary.json").read_text())
    assert summary["prompts"] == 9
    assert summary["kept"] * 3 == len(whole) > 0
    asked = (first_prompts if split == "train" else held_out)(inputs["text"], split, 9)
    assert list(dict.fromkeys(row["prompt_id"] for row in whole)) == [
        row["prompt_id"] for row in asked if row["prompt_id"] in {r["prompt_id"] for r in whole}
    ]
    codec, (prompt_id, prompt) = TextCodec(inputs["policy"]), (whole[0]["prompt_id"], whole[0]["prompt"])
    options: dict[str, Any] = {"num_samples": 8, "max_new_tokens": 6, "stop_ids": codec.stop_ids}
    (samples,) = sample(
        load_policy(policy), [codec.prompt(prompt)], [f"k/{prompt_id}"], sampler=Sampler(1.2, top_p=0.9), **options
    )
    by_ids = {tuple(s.token_ids): s for s in samples}
    for k, row in enumerate(whole[:3]):
        s = by_ids[tuple(row["token_ids"])]
        assert (row["sample"], row["text"], row["finish_reason"]) == (k, codec.decode(s.token_ids), s.finish_reason)
        assert (row["n_tokens"], row["logp"]) == (len(s.token_ids), pytest.approx(s.logp, abs=1e-5))


def test_a_prompt_without_room_for_its_response(policy: Path, tmp_path: Path) -> None:
    """Refused before anything is drawn, also where untrained models and students are sampled."""
    codec, prompt = TextCodec(policy), "Name a fruit, " * 20
    length = len(codec.prompt(prompt))
    inputs = {"text": write_text(tmp_path / "text", {"short": "One", "long": prompt}, "test"), "policy": policy}
    fits = 256 - length
    message = rf"policy: prompt 'long' has {length} tokens, which with max_new_tokens {fits + 1} is more than .* 256; lower"
    with pytest.raises(UserError, match=message):
        stage.run({**SPEC, "max_new_tokens": fits + 1}, inputs, tmp_path / "out", tmp_path / "scratch")
    assert not (tmp_path / "scratch").exists()
    rows, size = held_out(inputs["text"], "test", 2), {"samples": 1, "max_new_tokens": fits}
    assert len(held_out_samples(policy, rows, "k", size)) == 2
    with pytest.raises(UserError, match=message):
        held_out_samples(policy, rows, "k", size | {"max_new_tokens": fits + 1})


def test_stage_errors(policy: Path, tmp_path: Path) -> None:
    inputs = {"text": write_text(tmp_path / "text", split="test"), "policy": policy}
    out = tmp_path / "out"
    with pytest.raises(UserError, match=r"n = 8 distinct responses among 8 draws .* raise draws or temperature"):
        stage.run({**SPEC, "n": 8, "temperature": 0.01, "prompts": 2}, inputs, out, tmp_path / "scratch")
    with pytest.raises(UserError, match="no prompt of split 'dev'"):
        stage.run({**SPEC, "split": "dev"}, inputs, out, tmp_path / "scratch")
    assert not out.exists()
