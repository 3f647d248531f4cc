"""The committed paper suites of behaviour, every stage up to the tables, on tiny models of Mistral's family.

Pairs are the real file of HH-RLHF where it is at hand, read once more here by other means, and rows in UltraFeedback's columns.
"""

import gzip
import json
import math
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from behaviour_inputs import GSM8K, HH_RLHF, MATH, QUESTIONS, TRUTHS, made, named, ultrafeedback
from conftest import plain_logps
from sentence_transformers import SentenceTransformer
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdist.data import tables
from prefdist.exports.export import export_data
from prefdist.plan import Artefact, Plan

pytestmark = pytest.mark.slow
Made = tuple[Path, Plan]
Row = dict[str, Any]
NATS = 1e-3
"""Between packed rows and one unpadded pass, both in float32: some tens of tokens of a few nats."""
EMPTY_FINAL_TURNS, PROMPTS_DIFFER = (86, 516, 925, 1103), (1254, 1688, 1950, 1952, 2036)
"""Known rows of the real file that make no comparison."""


@pytest.fixture(scope="module")
def instruct(tmp_path_factory: pytest.TempPathFactory) -> Made:
    if not HH_RLHF.is_file():
        pytest.skip(f"{HH_RLHF} is not there")
    return made("spl", tmp_path_factory.mktemp("spl"))


@pytest.fixture(scope="module")
def zephyr(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("spl_best_of_n", tmp_path_factory.mktemp("gsm8k"))


@pytest.fixture(scope="module")
def mathematics(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("spl_best_of_n_math", tmp_path_factory.mktemp("math"))


def read(root: Path, artefact: Artefact, file: str, schema: Any) -> list[Row]:
    return tables.read_table(root / artefact.path / file, schema)


def metric(root: Path, artefact: Artefact, name: str) -> dict[str, float]:
    """Prompt -> value."""
    rows = read(root, artefact, "metrics.parquet", tables.METRICS)
    return {row["prompt_id"]: row["value"] for row in rows if row["metric"] == name}


class Plain:
    """A model folder by transformers alone: the ids of its conversations, and log-probabilities without packing."""

    def __init__(self, folder: Path) -> None:
        self.tokenizer: Any = AutoTokenizer.from_pretrained(folder)
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")

    def prompt(self, text: str) -> list[int]:
        turn = [{"role": "user", "content": text}]
        ids = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, return_dict=False)
        bos = self.tokenizer.bos_token_id
        return list(ids) if ids[0] == bos else [bos, *ids]

    def logp(self, prompt: str, response: list[int], temperature: float = 1.0) -> float:
        return float(plain_logps(self.model, self.prompt(prompt), response, temperature).sum())

    def next_token(self, prompt: str) -> Tensor:
        with torch.no_grad():
            return self.model(torch.tensor([self.prompt(prompt)])).logits[0, -1].double().log_softmax(-1)


# ---- pairs -----------------------------------------------------------------------------------------------------------


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


def test_messages_and_their_defects(zephyr: Made) -> None:
    """One training prompt is held out, too, and two rows are no comparison: 37 are left for policies and judge."""
    root, found = zephyr
    rows = ultrafeedback()
    triples = {
        (r["prompt"].strip(), *(r[side][-1]["content"].strip() for side in ("chosen", "rejected")))
        for s in rows.values()
        for r in s
    }
    for part in found.of_stage("pairs"):
        pairs = read(root, part, "preferences.parquet", tables.PREFERENCES)
        assert {(row["prompt"], row["chosen"], row["rejected"]) for row in pairs} <= triples
        trained = {row["prompt"] for row in pairs if row["split"] == "train"}
        assert rows["train_prefs"][0]["prompt"] not in trained | {"Same?", "Empty?"}
        file = "train_prefs-00000-of-00001.parquet"
        assert json.loads((root / part.path / "defects.json").read_text()) == [
            {"file": file, "row": 3, "defect": "identical_responses"},
            {"file": file, "row": 5, "defect": "empty_final_turn"},
        ]


# ---- models and samples ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suite", ["instruct", "zephyr"])
def test_references_are_those_of_the_conversation(suite: str, request: pytest.FixtureRequest) -> None:
    """log π₀ of both responses behind the rendered prompt, as one conversation of transformers' own."""
    root, found = request.getfixturevalue(suite)
    base = Plain(root / named(found, "model", "base").path)
    (reference,) = found.of_stage("reference")
    logps = read(root, reference, "logps.parquet", tables.LOGPS)
    pairs = read(root, reference.inputs["preferences"], "preferences.parquet", tables.PREFERENCES)
    assert len(logps) == len(pairs) == 17
    for row, pair in zip(logps, pairs, strict=True):
        for side in ("chosen", "rejected"):
            assert row[f"logp_{side}"] == pytest.approx(base.logp(pair["prompt"], pair[f"{side}_ids"]), abs=NATS)


def test_adapters_of_the_papers_rank(instruct: Made, zephyr: Made) -> None:
    for (root, found), rank in ((instruct, 16), (zephyr, 64)):
        folder = root / named(found, "train", "dpo-seed0").path
        adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
        assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (rank, rank, 0.05)
        assert len(adapter["target_modules"]) == 7
        merged, base = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, root / named(found, "model", "base").path))
        moved = {
            name for (name, a), b in zip(merged.named_parameters(), base.parameters(), strict=True) if not torch.equal(a, b)
        }
        assert moved and all(name.endswith("_proj.weight") for name in moved)


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


# ---- what is measured ------------------------------------------------------------------------------------------------


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


def test_questions_and_their_answers(zephyr: Made) -> None:
    """Gold letters are those of the files; shots are of the same subject; a letter counts with and without its space."""
    root, found = zephyr
    asked = {
        name: read(root, named(found, "choices", name), "choices.parquet", tables.CHOICES) for name in ("mmlu", "truthfulqa")
    }
    right = {row["question"]: row["choices"][row["answer"]] for row in QUESTIONS}
    right |= {row["question"]: row["mc1_targets"]["choices"][0] for row in TRUTHS}
    assert {name: len(rows) for name, rows in asked.items()} == {"mmlu": len(QUESTIONS), "truthfulqa": len(TRUTHS)}
    for name, rows in asked.items():
        for row in rows:
            *shots, last = row["prompt"].split("\n\n")
            question, *options, end = last.split("\n")
            assert end == "Answer:" and len(options) == row["options"]
            assert options[row["gold"]] == f"{'ABCDE'[row['gold']]}. {right[question]}"
            assert len(shots) == (1 + 5 if name == "mmlu" else 0)
            assert all(
                shot.startswith("Example") and f"A. {row['subject'][0]}" in shot and shot[-2:] in (" A", " B", " C", " D")
                for shot in shots[1:]
            )
    assert len({row["gold"] for row in asked["truthfulqa"]}) > 1, "the right option is not always the first"

    artefact = named(found, "calibration", "dpo")
    policy = Plain(root / named(found, "train", "dpo-seed0").path)
    vocabulary = policy.tokenizer.get_vocab()
    for answer in read(root, artefact, "answers.parquet", tables.ANSWERS):
        (row,) = [row for row in asked[answer["choices"]] if row["question_id"] == answer["question_id"]]
        law = policy.next_token(row["prompt"])
        letters = [[vocabulary[piece] for piece in (letter, f"▁{letter}") if piece in vocabulary] for letter in "ABCDE"]
        expected = [float(law[ids].logsumexp(0)) for ids in letters[: row["options"]]]
        assert answer["logp_options"] == pytest.approx(expected, abs=NATS)
        assert answer["gold"] == row["gold"]


def test_problems(zephyr: Made, mathematics: Made) -> None:
    """Of one configuration of GSM8K and all of MATH, instruction behind, annotations away, levels as modules."""
    root, found = zephyr
    rows = read(root, named(found, "problems", "gsm8k"), "prompts.parquet", tables.PROMPTS)
    instruction = 'Solve it step by step. End with a line that has only "#### " and the number.'
    assert {row["prompt"] for row in rows} == {f"{row['question']}\n\n{instruction}" for row in GSM8K}
    assert {row["reference"] for row in rows} == {f"{i} + 1 = {i + 1}.\n#### {i + 1}" for i in range(4)}
    root, found = mathematics
    rows = read(root, named(found, "problems", "math"), "prompts.parquet", tables.PROMPTS)
    assert sorted(row["module"] for row in rows) == ["math 1", "math 2", "math 3"]
    assert {row["prompt"].partition("\n\n")[0] for row in rows} == {row["problem"] for row in MATH}
    assert all(row["prompt"].endswith("\n\nSolve it step by step. Put the final answer into \\boxed{}.") for row in rows)


@pytest.mark.parametrize("suite", ["zephyr", "mathematics"])
def test_outcomes(suite: str, request: pytest.FixtureRequest) -> None:
    """Of each of two problems six answers with a reward, and five others of π₀ without."""
    root, found = request.getfixturevalue(suite)
    splits = set()
    for artefact in found.of_stage("best_of_n"):
        outcomes = read(root, artefact, "outcomes.parquet", tables.OUTCOMES)
        assert sorted(Counter(row["prompt_id"] for row in outcomes).values()) == [6, 6]
        assert all(math.isfinite(row["reward"]) for row in outcomes)
        share = {
            name: sum(r["correct"] for r in outcomes if r["prompt_id"] == name) / 6
            for name in {r["prompt_id"] for r in outcomes}
        }
        assert metric(root, artefact, "pass_at_1") == share
        split = read(root, artefact, "split.parquet", tables.OUTCOMES)
        assert sorted(Counter(row["prompt_id"] for row in split).values()) == [5, 5]
        assert {(row["run"], row["reward"]) for row in split} == {("base", None)}
        splits.add(json.dumps(split))
    assert len(splits) == 1, "problems are as difficult for all policies"
    assert len(found.of_stage("best_of_n")) > 2


def test_data_to_be_shared(zephyr: Made, tmp_path: Path) -> None:
    """Each table once, under names of its own: the suite's prompts above, the judge's and those of problems beside them."""
    root, found = zephyr
    export_data(found, root, tmp_path / "data")
    index = json.loads((tmp_path / "data" / "index.json").read_text())
    draws = {f"draws/{artefact.name}.parquet" for artefact in found.of_stage("draws")}
    assert index.keys() == draws | {
        "prompts.parquet",
        *(f"prompts/{name}.parquet" for name in ("judge", "gsm8k")),
        *(f"preferences/{name}.parquet" for name in ("policies", "judge")),
        "logps/policies.parquet",
        *(f"choices/{name}.parquet" for name in ("mmlu", "truthfulqa")),
    }
    assert index["prompts.parquet"]["artefact"].startswith("policies-")
    assert index["prompts/gsm8k.parquet"]["rows"] == len(GSM8K)
