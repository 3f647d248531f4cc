"""The committed suite `spl`, every stage up to the tables, on a tiny instruct model of Mistral's family.

Pairs are the real file of HH-RLHF where it is at hand, read once more here by other means.
"""

import gzip
import json
import math
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
import torch
from behaviour_inputs import HH_RLHF, NATS, Made, Plain, Row, check_adapter, check_references, made, metric, named, read
from sentence_transformers import SentenceTransformer
from transformers import AutoTokenizer

from prefdist.data import tables

pytestmark = pytest.mark.slow
EMPTY_FINAL_TURNS, PROMPTS_DIFFER = (86, 516, 925, 1103), (1254, 1688, 1950, 1952, 2036)
"""Known rows of the real file that make no comparison."""


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Made:
    if not HH_RLHF.is_file():
        pytest.skip(f"{HH_RLHF} is not there")
    return made("spl", tmp_path_factory.mktemp("spl"))


def real_rows() -> list[tuple[str, str, str]]:
    """What stands before the last answer, and the two answers, of each row; by splitting its text at its last mark."""
    rows = []
    with gzip.open(HH_RLHF, "rt", encoding="utf-8") as lines:
        for line in lines:
            sides = [json.loads(line)[side].rpartition("\n\nAssistant:") for side in ("chosen", "rejected")]
            rows.append((sides[0][0], sides[0][2].strip(), sides[1][2].strip()))
    return rows


def test_pairs_are_the_real_files(instruct: Made) -> None:
    """Each is a row of it; a dialogue of one turn is its text, and one of several a transcript."""
    root, found = instruct
    rows = real_rows()
    answers = {(chosen, rejected): before for before, chosen, rejected in rows}
    tokenizer = AutoTokenizer.from_pretrained(root / named(found, "model", "base").path)
    turns = set()
    for part in found.of_stage("pairs"):
        for row in read(root, part, "preferences.parquet", tables.PREFERENCES):
            before = answers[row["chosen"], row["rejected"]]
            several = "\n\nAssistant:" in before
            spoken = before.strip() if several else before.removeprefix("\n\nHuman:").strip()
            assert row["prompt"].split() == spoken.split(), "white space around turns is trimmed"
            assert len(row["prompt"]) <= 160
            turns.add(several)
            for side in ("chosen", "rejected"):
                ids = row[f"{side}_ids"]
                whole = [*tokenizer(row[side], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
                assert ids == whole[:24], "cut off at 24 tokens, else with the template's end"
    assert turns == {False, True}


def test_the_judge_shares_no_prompt_with_the_policies(instruct: Made) -> None:
    root, found = instruct
    prompts: dict[tuple[str, str], set[str]] = {}
    for part in found.of_stage("pairs"):
        for row in read(root, part, "preferences.parquet", tables.PREFERENCES):
            prompts.setdefault((part.name, row["split"]), set()).add(row["prompt"])
    assert {key: len(value) for key, value in prompts.items()} == {
        ("policies", "train"): 12,
        ("policies", "test"): 5,
        ("judge", "train"): 12,
        ("judge", "test"): 5,
    }
    assert prompts["policies", "test"] == prompts["judge", "test"]
    groups = [prompts["policies", "train"], prompts["judge", "train"], prompts["judge", "test"]]
    assert not any(first & second for first, second in combinations(groups, 2))


def test_rows_that_are_no_comparison_are_named(instruct: Made) -> None:
    root, found = instruct
    defects = json.loads((root / named(found, "pairs", "judge").path / "defects.json").read_text())
    kinds = {}
    for defect in defects:
        kinds.setdefault((defect["file"], defect["defect"]), []).append(defect["row"])
    for split in ("train", "test"):
        file = f"harmless-base/{split}.jsonl.gz"
        assert set(EMPTY_FINAL_TURNS) <= set(kinds[file, "empty_final_turn"])
        assert set(PROMPTS_DIFFER) <= set(kinds[file, "prompts_differ"])


def test_references_are_those_of_the_conversation(instruct: Made) -> None:
    check_references(*instruct)


def test_the_adapter_is_of_the_papers_rank(instruct: Made) -> None:
    check_adapter(*instruct, rank=16)


def test_draws_are_of_the_law_that_the_suite_names(instruct: Made) -> None:
    """logp at temperature 1 by transformers; logq of a temperature likewise; no token that a filter excludes."""
    root, found = instruct
    prompts = {
        row["prompt_id"]: row["prompt"] for row in read(root, found.final.inputs["text"], "prompts.parquet", tables.PROMPTS)
    }
    policy = Plain(root / named(found, "train", "dpo-seed0").path)
    for name in ("dpo", "dpo_t1.5", "dpo_top_k_50", "dpo_min_p_0.1", "dpo_top_p_0.9"):
        rows = read(root, named(found, "draws", f"{name}-held_out-0"), "draws.parquet", tables.DRAWS)
        assert Counter(row["prompt_id"] for row in rows) == Counter({row["prompt_id"]: 4 for row in rows})
        assert len(rows) == 12
        for row in rows:
            prompt, ids = prompts[row["prompt_id"]], row["token_ids"]
            ended = row["finish_reason"] == "stop"
            assert (ids[-1] == policy.tokenizer.eos_token_id) == ended and (ended or len(ids) == 8)
            assert row["logp"] == pytest.approx(policy.logp(prompt, ids), abs=NATS)
            if name == "dpo":
                assert row["logq"] == pytest.approx(row["logp"], abs=1e-5)
            elif name == "dpo_t1.5":
                assert row["logq"] == pytest.approx(policy.logp(prompt, ids, 1.5), abs=NATS)
            else:
                assert row["logq"] == pytest.approx(filtered(policy, prompt, ids, name), abs=NATS)


def filtered(policy: Plain, prompt: str, ids: list[int], name: str) -> float:
    """log q, each law of a token by its definition: what is kept, over its sum."""
    start = policy.prompt(prompt)
    with torch.no_grad():
        laws = policy.model(torch.tensor([start + ids])).logits[0, len(start) - 1 : -1].double().softmax(-1)
    total = 0.0
    for token, law in zip(ids, laws, strict=True):
        ranked = law.sort(descending=True)
        if "top_k" in name:
            kept = ranked.indices[:50]
        elif "min_p" in name:
            kept = (law >= 0.1 * law.max()).nonzero().squeeze(-1)
        else:  # the smallest set of the likeliest that has 0.9
            kept = ranked.indices[: int((ranked.values.cumsum(-1) < 0.9).sum()) + 1]
        assert token in kept
        total += math.log(law[token] / law[kept].sum())
    return total


def test_diversity_and_quality(instruct: Made) -> None:
    """Cross-entropy by transformers, cosines by sentence-transformers; π₀ is no better than itself; nothing is known of π*."""
    root, found = instruct
    base = Plain(root / named(found, "model", "base").path)
    embedder = SentenceTransformer(str(root / named(found, "model", "embedder").path), device="cpu")
    embedder.max_seq_length = 16
    prompts = {
        row["prompt_id"]: row["prompt"] for row in read(root, found.final.inputs["text"], "prompts.parquet", tables.PROMPTS)
    }
    assert len(found.of_stage("diversity")) == 1 + 4 + 4, "π₀, runs and decoders"
    artefact = named(found, "diversity", "spl_2")
    draws: dict[str, list[Row]] = {}
    for row in read(root, artefact.inputs["draws/0"], "draws.parquet", tables.DRAWS):
        draws.setdefault(row["prompt_id"], []).append(row)
    for prompt_id, rows in draws.items():
        crossed = -sum(base.logp(prompts[prompt_id], row["token_ids"]) for row in rows) / 4
        assert metric(root, artefact, "cross_entropy")[prompt_id] == pytest.approx(crossed, abs=NATS)
        vectors = embedder.encode([row["text"] for row in rows]).astype(float)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        distance = np.mean([1 - a @ b for a, b in combinations(vectors, 2)])
        assert metric(root, artefact, "embedding_distance")[prompt_id] == pytest.approx(distance, abs=1e-5)
        assert metric(root, artefact, "length")[prompt_id] == sum(len(row["token_ids"]) for row in rows) / 4
    own = named(found, "diversity", "base")
    for name in ("reward_apart", "reward_own"):
        assert set(metric(root, own, name).values()) == {0.0}
    assert not metric(root, own, "win_rate_base")


def test_shift(instruct: Made) -> None:
    """π₀ has not moved; rejected responses by transformers; no known preferences, so no win rate."""
    root, found = instruct
    still = named(found, "shift", "base")
    assert metric(root, still, "tpm_reward") == metric(root, still, "tpm_reward_0")
    assert metric(root, still, "tpm_sft") == metric(root, still, "tpm_sft_0")
    for name in ("log_ratio_chosen", "log_ratio_rejected"):
        assert set(metric(root, still, name).values()) == {0.0}
    moved = named(found, "shift", "spl_2")
    assert not metric(root, moved, "tpm_win") and not metric(root, moved, "won")
    policy = Plain(root / named(found, "train", "spl_2-seed0").path)
    pairs = read(root, moved.inputs["preferences/0"], "preferences.parquet", tables.PREFERENCES)
    held_out = {row["prompt_id"]: row for row in pairs if row["split"] == "test"}
    rejected = metric(root, moved, "logp_rejected")
    assert len(rejected) == 4 and rejected.keys() <= held_out.keys()
    for prompt_id, value in rejected.items():
        row = held_out[prompt_id]
        assert value == pytest.approx(policy.logp(row["prompt"], row["rejected_ids"]), abs=NATS)
    slopes = json.loads((root / moved.path / "slopes.json").read_text())
    assert {row["reward"] for row in slopes} == {"none", "own", "judge"}


def test_tax_and_benchmarks(instruct: Made) -> None:
    """Chosen answers a token, by transformers; three documents of the task, right or wrong."""
    root, found = instruct
    base = Plain(root / named(found, "model", "base").path)
    artefact = named(found, "tax", "base")
    rows = {row["prompt_id"]: row for row in read(root, artefact.inputs["text"], "prompts.parquet", tables.PROMPTS)}
    texts = metric(root, artefact, "text_nll")
    assert len(texts) == 3
    for prompt_id, value in texts.items():
        reference = rows[prompt_id]["reference"]
        ids = [*base.tokenizer(reference, add_special_tokens=False).input_ids, base.tokenizer.eos_token_id]
        assert value == pytest.approx(-base.logp(rows[prompt_id]["prompt"], ids) / len(ids), abs=NATS)
    accuracy = metric(root, named(found, "benchmarks", "base"), "gsm8k/acc,none")
    assert accuracy.keys() == {f"gsm8k/{i}" for i in range(3)} and set(accuracy.values()) <= {0.0, 1.0}
