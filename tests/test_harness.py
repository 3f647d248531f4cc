"""lm-evaluation-harness on a tiny Llama and local tasks, against log-probabilities of our own."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import matthews_corrcoef
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

from prefdist.data.tokenizer import train_tokenizer
from prefdist.errors import UserError
from prefdist.evaluation.harness import Benchmark, run_tasks
from prefdist.logprobs import sequence_logprobs
from prefdist.models import load_policy

DOCUMENTS: list[dict[str, Any]] = [
    {"question": "What opens a file?", "options": ["open it", "a long and winding list", "no"], "answer": 0},
    {"question": "What sorts a list?", "options": ["the file", "sort the list", "x"], "answer": 1},
    {"question": "What reads a line?", "options": ["sort", "read", "close the line"], "answer": 2},
    {"question": "What is a tree?", "options": ["node", "page", "a row"], "answer": 2},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One layer, random, 64 positions, with the project's own tokenizer, which by itself adds no BOS."""
    folder = tmp_path_factory.mktemp("model")
    texts = [text for row in DOCUMENTS for text in (row["question"], *row["options"])]
    train_tokenizer(texts, 300, folder)
    shape = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **ids, **shape))
    with torch.no_grad():
        for parameter in llama.parameters():
            parameter += 0.3 * torch.randn_like(parameter)  # as made, its distributions are nearly uniform
    llama.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of task files: `pick` (multiple choice), `pick_text` (its answers as text), `write` (generation), `whole`."""
    folder = tmp_path_factory.mktemp("tasks")
    rows = [row | {"answer_text": row["options"][row["answer"]]} for row in DOCUMENTS]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    common = {
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "doc_to_text": "Question: {{question}}\nAnswer:",
        "metadata": {"version": 3},
    }
    accuracy = [{"metric": name, "aggregation": "mean", "higher_is_better": True} for name in ("acc", "acc_norm")]
    mcc = {"metric": "mcc", "aggregation": "matthews_corrcoef", "higher_is_better": True}
    choices = {"output_type": "multiple_choice", "doc_to_choice": "options", "metric_list": [*accuracy, mcc]}
    files = {
        "pick": choices | {"doc_to_target": "answer"},
        "pick_text": choices | {"doc_to_target": "answer_text", "metric_list": accuracy},
        "write": {
            "output_type": "generate_until",
            "doc_to_target": "answer_text",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 4},
            "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        },
        "whole": {
            "output_type": "loglikelihood_rolling",
            "doc_to_target": "question",
            "metric_list": [{"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}],
        },
    }
    for name, settings in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"task": name} | common | settings))
    return folder


@pytest.fixture(scope="module")
def picked(model: Path, tasks: Path) -> Benchmark:
    return run_tasks(model, ["pick"], include=tasks, batch_size=3)


def own_logps(folder: Path, prefix: str = "") -> list[list[float]]:
    """log p(" option" | BOS, prompt), summed, of each document's options, by the project's own function."""
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    policy = load_policy(folder)
    found = []
    for row in DOCUMENTS:
        prompt = [1, *tokenizer(f"{prefix}Question: {row['question']}\nAnswer:").input_ids]
        found.append([])
        for option in row["options"]:
            response = tokenizer(" " + option).input_ids
            ids = torch.tensor([prompt + response])
            mask = torch.arange(ids.shape[1]).unsqueeze(0) >= len(prompt)
            with torch.no_grad():
                found[-1].append(float(sequence_logprobs(policy, ids, torch.ones_like(ids), mask).sum()))
    return found


def metric_values(benchmark: Benchmark, metric: str, task: str = "pick") -> list[float]:
    rows = [row for row in benchmark.rows if (row["task"], row["metric"]) == (task, metric)]
    assert [row["doc_id"] for row in rows] == list(range(len(rows)))
    return [row["value"] for row in rows]


def test_choices_have_our_log_probabilities(model: Path, picked: Benchmark) -> None:
    """The prompt is `<bos>Question: …Answer:`; a continuation begins with its space. 1e-4: float32 sums, other padding."""
    assert [row["doc_id"] for row in picked.choices] == [0, 1, 2, 3]
    assert [row["gold"] for row in picked.choices] == [0, 1, 2, 2]
    np.testing.assert_allclose([row["logps"] for row in picked.choices], own_logps(model), atol=1e-4)


def test_accuracy_is_that_of_our_log_probabilities(model: Path, picked: Benchmark) -> None:
    logps = np.array(own_logps(model))
    lengths = np.array([[len(option) for option in row["options"]] for row in DOCUMENTS])
    gold = np.array([row["answer"] for row in DOCUMENTS])
    right = (logps.argmax(axis=1) == gold).astype(float)
    right_norm = ((logps / lengths).argmax(axis=1) == gold).astype(float)
    assert metric_values(picked, "acc,none") == right.tolist()
    assert metric_values(picked, "acc_norm,none") == right_norm.tolist()
    assert not np.array_equal(right, right_norm)  # else one could stand for the other


def test_aggregates_are_the_means_of_the_rows_and_a_correlation_has_no_rows(picked: Benchmark) -> None:
    found = picked.aggregates["pick"]
    assert set(found) == {"acc,none", "acc_norm,none", "mcc,none"}
    for metric in ("acc,none", "acc_norm,none"):
        assert found[metric] == pytest.approx(np.mean(metric_values(picked, metric)), rel=1e-12)
    assert {row["metric"] for row in picked.rows} == {"acc,none", "acc_norm,none"}
    logps = np.array([row["logps"] for row in picked.choices])
    gold = [row["gold"] for row in picked.choices]
    assert found["mcc,none"] == pytest.approx(matthews_corrcoef(gold, logps.argmax(axis=1)), rel=1e-12)
    assert (picked.versions, picked.num_fewshot, picked.cut) == ({"pick": "3"}, {"pick": 0}, {"pick": 0})


def test_answers_given_as_text_limit_and_batches(model: Path, tasks: Path, picked: Benchmark) -> None:
    found = run_tasks(model, ["pick_text", "pick"], include=tasks, limit=2, batch_size=1)
    assert {(row["task"], row["doc_id"]) for row in found.rows} == {(t, i) for t in ("pick", "pick_text") for i in (0, 1)}
    as_text = [row for row in found.choices if row["task"] == "pick_text"]
    assert [row["gold"] for row in as_text] == [0, 1]
    expected = [row["logps"] for row in picked.choices[:2]]
    np.testing.assert_allclose([row["logps"] for row in as_text], expected, atol=1e-4)
    assert metric_values(found, "acc,none", "pick_text") == metric_values(picked, "acc,none")[:2]


def test_a_tokenizer_that_adds_bos_gets_no_second_one(model: Path, tasks: Path, tmp_path: Path, picked: Benchmark) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer.save_pretrained(folder)
    assert AutoTokenizer.from_pretrained(folder)("a").input_ids[0] == 1
    assert run_tasks(folder, ["pick"], include=tasks, batch_size=3).choices == picked.choices


@pytest.mark.slow  # a group may name tasks of the harness, so it reads all its task files
def test_a_group_has_its_tasks_rows_and_its_own_aggregate(model: Path, tasks: Path, picked: Benchmark) -> None:
    mean = {"metric": "acc", "aggregation": "mean", "weight_by_size": True}
    group = {"group": "both", "task": ["pick", "pick_text"], "aggregate_metric_list": [mean]}
    (tasks / "both.yaml").write_text(yaml.safe_dump(group))
    found = run_tasks(model, ["both"], include=tasks)
    assert {row["task"] for row in found.rows} == {"pick", "pick_text"} == set(found.versions)
    assert metric_values(found, "acc,none") == metric_values(picked, "acc,none")
    assert found.aggregates["both"]["acc,none"] == pytest.approx(picked.aggregates["pick"]["acc,none"], rel=1e-12)


@pytest.mark.slow  # three runs, of which each collects what the machine is
def test_few_shot_examples_stand_before_the_question(model: Path, tasks: Path, picked: Benchmark) -> None:
    one, again, other = (run_tasks(model, ["pick"], include=tasks, num_fewshot=1, seed=seed) for seed in (0, 0, 1))
    assert one.num_fewshot == {"pick": 1}
    assert one.choices == again.choices
    assert one.choices != other.choices
    assert one.choices[0]["logps"] != pytest.approx(picked.choices[0]["logps"], abs=1e-2)


@pytest.mark.parametrize("too_few", [0, 1])
def test_prompts_that_do_not_fit_are_counted(
    model: Path, tasks: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, too_few: int
) -> None:
    """With exactly as many positions as the longest input none is cut, with one less one is: as the harness itself says."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    texts = [f"Question: {row['question']}\nAnswer: {option}" for row in DOCUMENTS for option in row["options"]]
    longest = max(len(tokenizer(text).input_ids) for text in texts)  # with BOS one more; the last is only predicted
    folder = Path(shutil.copytree(model, tmp_path / "model"))
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": longest - too_few}
    (folder / "config.json").write_text(json.dumps(config))
    assert run_tasks(folder, ["pick"], include=tasks).cut == {"pick": too_few}
    assert ("exceeds model's maximum length" in caplog.text) == bool(too_few)


def test_generation_is_greedy_decoding_after_bos(model: Path, tasks: Path) -> None:
    """The exact match is against what four greedy steps by hand give; a row of answers is made so that one matches."""
    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    policy = load_policy(model)
    written = []
    for row in DOCUMENTS:
        ids = [1, *tokenizer(f"Question: {row['question']}\nAnswer:").input_ids]
        start = len(ids)
        for _ in range(4):
            with torch.no_grad():
                ids.append(int(policy(torch.tensor([ids])).logits[0, -1].argmax()))
        written.append(tokenizer.decode(ids[start:], skip_special_tokens=True).split("\n")[0])
    rows = [
        row | {"answer_text": text if i % 2 else text + "x"}
        for i, (row, text) in enumerate(zip(DOCUMENTS, written, strict=True))
    ]
    (tasks / "rows_written.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = yaml.safe_load((tasks / "write.yaml").read_text()) | {"task": "write_own"}
    settings["dataset_kwargs"]["data_files"]["test"] = str(tasks / "rows_written.jsonl")
    (tasks / "write_own.yaml").write_text(yaml.safe_dump(settings))
    found = run_tasks(model, ["write_own"], include=tasks, batch_size=4)
    assert metric_values(found, "exact_match,none", "write_own") == [0.0, 1.0, 0.0, 1.0]
    assert found.choices == []


def test_whole_documents_are_refused(model: Path, tasks: Path) -> None:
    with pytest.raises(UserError, match="task whole: scores whole documents"):
        run_tasks(model, ["whole"], include=tasks)


def test_a_data_set_that_is_not_there_is_named(model: Path, tasks: Path, tmp_path: Path) -> None:
    settings = yaml.safe_load((tasks / "pick.yaml").read_text()) | {"task": "absent"}
    settings["dataset_kwargs"]["data_files"]["test"] = str(tmp_path / "absent.jsonl")
    (tmp_path / "absent.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(UserError, match="tasks absent: a data set cannot be had"):
        run_tasks(model, ["absent"], include=tmp_path)


def test_folders_that_are_not_there(model: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such folder; name the one with your task files"):
        run_tasks(model, ["pick"], include=tmp_path / "none")
    with pytest.raises(UserError, match=r"no config\.json there"):
        run_tasks(tmp_path, ["pick"], include=tasks)


@pytest.mark.slow  # the harness reads its 14 000 task files
def test_an_unknown_task_names_the_nearest(model: Path, tasks: Path) -> None:
    with pytest.raises(UserError, match=r"task helaswag: lm-evaluation-harness [\d.]+ knows none of that name; .*hellaswag"):
        run_tasks(model, ["pick", "helaswag"], include=tasks)
