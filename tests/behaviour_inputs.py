"""The committed paper suites of behaviour, shrunk to tiny models and files, and their artefacts made in one process."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from chat_models import MISTRAL_TEMPLATE, TEXTS, ZEPHYR_TEMPLATE, mistral_folder
from conftest import plain_logps
from embedder_models import bert_folder
from test_pad_hub_models import make
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from prefdist.config.spl import SplSuite
from prefdist.data import tables
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import parse_suite

Made = tuple[Path, Plan]
Row = dict[str, Any]
NATS = 1e-3
"""Between packed rows and one unpadded pass, both in float32: some tens of tokens of a few nats."""
ROOT = Path(__file__).resolve().parents[1]
HH_RLHF = ROOT.parent / "shared/data/hh_rlhf/harmless-base.test.jsonl.gz"
STEPS = {"steps": 2, "batch_size": 4, "micro_batch_size": 2, "warmup_steps": 1, "learning_rate": 1e-2}
KEPT = ("dpo", "spl_1.1", "spl_2", "spl_small_11")
"""Runs of which one is trained in each suite; the others differ from them in numbers alone."""
DECODERS = ("dpo_t1.5", "dpo_top_p_0.9", "dpo_top_k_50", "dpo_min_p_0.1", "dpo_t1.2_min_p_0.1")

QUESTIONS = [
    {
        "question": f"What is {i} in {subject}?",
        "subject": subject,
        "choices": [f"{subject[0]}{i}{j}" for j in range(4)],
        "answer": i % 4,
    }
    for subject in ("some_algebra", "world_law")
    for i in range(6)
]
TRUTHS = [
    {
        "question": f"Is {i} so?",
        "mc1_targets": {"choices": [f"yes {i}", *(f"no {i}{j}" for j in range(n))], "labels": [1] + [0] * n},
    }
    for i, n in enumerate((1, 2, 4))
]
GSM8K = [
    {"question": f"How many are {i} and 1?", "answer": f"{i} + 1 = <<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in range(4)
]
MATH = [
    {"problem": f"Find $x={i}$.", "level": f"Level {i + 1}", "type": kind, "solution": f"So $\\boxed{{{i}}}$."}
    for i, kind in enumerate(("Algebra", "Algebra", "Geometry"))
]


def write_parquet(file: Path, rows: list[dict[str, Any]]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), file)


def messages(prompt: str, *answers: str) -> dict[str, Any]:
    """A row in UltraFeedback's columns, binarised."""
    sides = {
        side: [{"content": prompt, "role": "user"}, {"content": answer, "role": "assistant"}]
        for side, answer in zip(("chosen", "rejected"), answers, strict=True)
    }
    return {"prompt": prompt, "prompt_id": "0", **sides, "score_chosen": 8.0, "score_rejected": 2.0}


def ultrafeedback() -> dict[str, list[dict[str, Any]]]:
    """Held-out prompts, one of which is in the training split, too; two training rows that are no comparison."""
    train = [messages(f"{TEXTS[i % 9]} Number {i}.", f"I did {i}.", f"No {i}.") for i in range(40)]
    train[3] = messages("Same?", "The same.", " The same. ")
    train[5] = messages("Empty?", "Something.", " ")
    return {"train_prefs": train, "test_prefs": [train[0], *(messages(f"Held out {i}.", "Yes.", "No.") for i in range(7))]}


def write_datasets(folder: Path) -> dict[str, Path]:
    """The datasets of the paper suites in the hub's files and columns, by the names that the suites give them."""
    paths = {
        name: folder / name for name in ("hh-rlhf", "ultrafeedback_binarized", "mmlu", "truthful_qa", "gsm8k", "hendrycks_math")
    }
    if HH_RLHF.is_file():
        (paths["hh-rlhf"] / "harmless-base").mkdir(parents=True)
        for split in ("train", "test"):
            shutil.copyfile(HH_RLHF, paths["hh-rlhf"] / "harmless-base" / f"{split}.jsonl.gz")
    for split, rows in ultrafeedback().items():
        write_parquet(paths["ultrafeedback_binarized"] / "data" / f"{split}-00000-of-00001.parquet", rows)
    write_parquet(paths["mmlu"] / "all" / "test-00000-of-00001.parquet", QUESTIONS)
    dev = [row | {"question": f"Example {i}?"} for i, row in enumerate(QUESTIONS)]
    write_parquet(paths["mmlu"] / "all" / "dev-00000-of-00001.parquet", dev)
    write_parquet(paths["mmlu"] / "some_algebra" / "test-00000-of-00001.parquet", QUESTIONS[:6])
    write_parquet(paths["truthful_qa"] / "multiple_choice" / "validation-00000-of-00001.parquet", TRUTHS)
    write_parquet(paths["gsm8k"] / "main" / "test-00000-of-00001.parquet", GSM8K)
    write_parquet(paths["gsm8k"] / "socratic" / "test-00000-of-00001.parquet", GSM8K)
    for kind in ("Algebra", "Geometry"):
        rows = [row for row in MATH if row["type"] == kind]
        write_parquet(paths["hendrycks_math"] / kind.lower() / "test-00000-of-00001.parquet", rows)
    return paths


def write_tasks(folder: Path) -> Path:
    """A task of lm-evaluation-harness of one's own, with four documents and an example before each."""
    folder.mkdir()
    rows = [{"question": f"What is {i}?", "options": [f"it {i}", "a file", "no"], "answer": i % 3} for i in range(4)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    task = {
        "task": "gsm8k",  # comes before the harness's own of that name
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}, "cache_dir": str(folder / "cache")},
        "test_split": "test",
        "fewshot_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{question}}",
        "doc_to_choice": "options",
        "doc_to_target": "answer",
        "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1},
    }
    (folder / "gsm8k.yaml").write_text(yaml.safe_dump(task))
    return folder


def shrunk(name: str, folder: Path) -> SplSuite:
    """A committed paper suite on the files of `folder`: all of its sections, some of its runs, small numbers."""
    mapping = yaml.safe_load((ROOT / f"workflow/suites/{name}.yaml").read_text())
    mapping["seeds"] = [0]
    datasets = write_datasets(folder / "datasets")
    pairs = mapping["pairs"]
    pairs |= {"train_pairs": 12, "test_prompts": 5, "max_prompt_chars": 160, "max_response_tokens": 24}
    template = MISTRAL_TEMPLATE if "Instruct" in mapping["base"]["hub"] else ZEPHYR_TEMPLATE
    base = mistral_folder(folder / "base", template=template, max_position_embeddings=1024)
    mapping["base"] = {"folder": str(base)}
    for training in (mapping["reward_model"], mapping["defaults"]):
        training["optimisation"] |= STEPS
    mapping["runs"] = {run: value for run, value in mapping["runs"].items() if run in KEPT}
    mapping["decoders"] = {name: value for name, value in mapping["decoders"].items() if name in DECODERS}
    kept = {"base", *mapping["runs"], *mapping["decoders"]}
    for ablation in mapping["ablations"].values():
        ablation["policies"] = {value: policy for value, policy in ablation["policies"].items() if policy in kept}
    mapping["ablations"] = {key: value for key, value in mapping["ablations"].items() if len(value["policies"]) > 1}
    sources = [pairs]
    if name == "spl":
        mapping["draws"] = {"prompts": 3, "samples": 4, "max_new_tokens": 8}
        mapping["diversity"]["embedder"] = {"folder": str(bert_folder(folder)), "max_tokens": 16}
        mapping["shift"]["pairs"] = 4
        mapping["shift"]["mixture"]["optimisation"] |= STEPS
        mapping["tax"] = {"texts": 3}
        mapping["benchmarks"] = {"tasks": {"gsm8k": 1}, "folder": str(write_tasks(folder / "tasks")), "limit": 3}
    else:
        problems = mapping["best_of_n"]["problems"]
        problems["problems"] = 2
        mapping["best_of_n"] |= {"samples": 6, "split_samples": 5, "max_new_tokens": 8}
        if mapping["best_of_n"].get("policies"):
            mapping["best_of_n"]["policies"] = [policy for policy in mapping["best_of_n"]["policies"] if policy in kept]
        sources.append(problems["dataset"])
        sources += [choices["dataset"] for choices in mapping.get("calibration", {"choices": {}})["choices"].values()]
    for source in sources:
        source["dataset"] = str(datasets[source["dataset"].rpartition("/")[2]])
        del source["revision"]
    suite = parse_suite(mapping, Path(f"workflow/suites/{name}.yaml"))
    assert isinstance(suite, SplSuite)
    return suite


def made(name: str, folder: Path) -> tuple[Path, Plan]:
    """A checkout in which all that a shrunk suite's tables are made from has been made, and its plan."""
    found = plan(shrunk(name, folder), folder)
    root = folder / "made"
    for artefact in found.final.inputs.values():
        make(root, artefact)
    return root, found


def named(found: Plan, stage: str, name: str) -> Artefact:
    (artefact,) = (a for a in found.of_stage(stage) if a.name == name)
    return artefact


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
        options = {"return_dict": False, "date_string": "26 Jul 2024"}  # Llama-3's default, where a template has a date
        ids = self.tokenizer.apply_chat_template(turn, add_generation_prompt=True, **options)
        bos = self.tokenizer.bos_token_id
        return list(ids) if ids[0] == bos else [bos, *ids]

    def logp(self, prompt: str, response: list[int], temperature: float = 1.0) -> float:
        return float(plain_logps(self.model, self.prompt(prompt), response, temperature).sum())

    def next_token(self, prompt: str) -> Tensor:
        with torch.no_grad():
            return self.model(torch.tensor([self.prompt(prompt)])).logits[0, -1].double().log_softmax(-1)


def check_references(root: Path, found: Plan) -> None:
    """log π₀ of both responses behind the rendered prompt, as one conversation of transformers' own."""
    base = Plain(root / named(found, "model", "base").path)
    (reference,) = found.of_stage("reference")
    logps = read(root, reference, "logps.parquet", tables.LOGPS)
    pairs = read(root, reference.inputs["preferences"], "preferences.parquet", tables.PREFERENCES)
    assert len(logps) == len(pairs) == 17
    for row, pair in zip(logps, pairs, strict=True):
        for side in ("chosen", "rejected"):
            assert row[f"logp_{side}"] == pytest.approx(base.logp(pair["prompt"], pair[f"{side}_ids"]), abs=NATS)


def check_adapter(root: Path, found: Plan, *, rank: int) -> None:
    """Of DPO: the rank, scale and dropout of the paper, and nothing but projections has moved."""
    folder = root / named(found, "train", "dpo-seed0").path
    adapter = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"]) == (rank, rank, 0.05)
    assert len(adapter["target_modules"]) == 7
    merged, base = (AutoModelForCausalLM.from_pretrained(f) for f in (folder, root / named(found, "model", "base").path))
    moved = {name for (name, a), b in zip(merged.named_parameters(), base.parameters(), strict=True) if not torch.equal(a, b)}
    assert moved and all(name.endswith("_proj.weight") for name in moved)
