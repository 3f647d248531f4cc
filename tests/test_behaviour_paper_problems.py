"""The committed suites `spl_best_of_n` and `spl_best_of_n_math`, every stage, on a tiny model of Mistral's family.

Pairs, questions and problems are a few rows in the columns of UltraFeedback, MMLU, TruthfulQA, GSM8K and MATH.
"""

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from behaviour_inputs import (
    GSM8K,
    MATH,
    NATS,
    QUESTIONS,
    TRUTHS,
    Made,
    Plain,
    check_adapter,
    check_references,
    made,
    metric,
    named,
    read,
    ultrafeedback,
)

from prefdist.data import tables
from prefdist.exports.export import export_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def zephyr(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("spl_best_of_n", tmp_path_factory.mktemp("gsm8k"))


@pytest.fixture(scope="module")
def mathematics(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("spl_best_of_n_math", tmp_path_factory.mktemp("math"))


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


def test_references_are_those_of_the_conversation(zephyr: Made) -> None:
    check_references(*zephyr)


def test_the_adapter_is_of_the_papers_rank(zephyr: Made) -> None:
    check_adapter(*zephyr, rank=64)


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
