"""The committed suites `tldr` and `chat` made on tiny random models, and what is measured of them computed again.

Pairs, demonstrations and prompts are a few rows in the columns of the real datasets. Measures are computed by transformers
alone, one unpadded sequence at a time.
"""

import csv
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from behaviour_inputs import NATS, Made, Plain, metric, named, read, ultrafeedback, write_parquet
from changed_suites import committed
from chat_models import TEXTS, incline_to_end, llama3_folder, neox_folder
from judge_inputs import likes_length
from judge_servers import serving
from test_pad_hub_models import make, write_alpaca_eval
from transformers import AutoModelForSequenceClassification

from prefdist.config.adl import AdlSuite
from prefdist.data import tables
from prefdist.plan import plan
from prefdist.results.from_rows import WRITERS
from prefdist.suites import parse_suite

END = "<|endoftext|>"
KEPT = {
    "tldr": (
        *("dpo", "pmle", "rebel", "distill", "rlhf", "reverse_kl"),
        "distill_kl_in_loss",
        "pmle_beta_0",
        "distill_reward_10",
    ),
    "chat": ("dpo", "pmle", "rebel", "distill", "rlhf", "reverse_kl_0.1", "distill_reward_10"),
}


def post(split: str, i: int) -> str:
    return f"SUBREDDIT: r/{split}{i}\n\nPOST: {TEXTS[i % 9]}\n\nTL;DR:"


def posts() -> dict[str, list[dict[str, Any]]]:
    return {
        split: [
            {
                "query": post(split, i),
                "reference_response": f" {TEXTS[i % 9][:12]}{END}",
            }
            for i in range(size)
        ]
        for split, size in {"train": 9, "test": 4}.items()
    }


def comparisons() -> dict[str, list[dict[str, Any]]]:
    return {
        split: [
            {
                "query": post(split, i),
                "chosen": f" open it {i}.{END}",
                "rejected": f" no.{END}",
            }
            for i in range(size)
        ]
        for split, size in {"train": 9, "validation": 3}.items()
    }


def write_datasets(folder: Path) -> dict[str, str]:
    """By the names that the suites give them."""
    messages = ultrafeedback()
    files: dict[str, dict[str, list[dict[str, Any]]]] = {
        "summarize_from_feedback_tldr_3_filtered_oai_preprocessing_1704563162": posts(),
        "summarize_from_feedback_oai_preprocessing_1706381144": comparisons(),
        "ultrafeedback_binarized_cleaned": {"train_prefs": messages["train_prefs"][:14], "test_prefs": messages["test_prefs"]},
        "mt_bench_prompts": {"train": dialogues()},
    }
    for name, splits in files.items():
        for split, rows in splits.items():
            write_parquet(folder / name / "data" / f"{split}-00000-of-00001.parquet", rows)
    write_alpaca_eval(folder / "alpaca_eval")
    write_arena_hard(folder / "arena-hard-auto/data/arena-hard-v0.1")
    return {name: str(folder / name) for name in [*files, "alpaca_eval", "arena-hard-auto"]}


def dialogues() -> list[dict[str, Any]]:
    return [{"prompt": [text, f"Again, {i}."], "reference": []} for i, text in enumerate(TEXTS[3:6])]


def write_arena_hard(folder: Path) -> None:
    (folder / "model_answer").mkdir(parents=True)
    questions = [{"uid": f"q{i}", "prompt": text} for i, text in enumerate(TEXTS[:3])]
    said = [{"uid": f"q{i}", "messages": [{"content": {"answer": f"Well, {text}"}}]} for i, text in enumerate(TEXTS[:3])]
    for file, rows in {"question.jsonl": questions, "model_answer/gpt-4-0314.jsonl": said}.items():
        (folder / file).write_text("".join(f"{json.dumps(row)}\n" for row in rows))


def shrunk(name: str, folder: Path, endpoint: str) -> AdlSuite:
    """A committed suite on the files of `folder`: all of its sections, runs of each method, small numbers.

    Its judges are the endpoint, and of answers to ultrafeedback the reward model.
    """
    mapping = committed(name)
    sets = mapping["evaluation"]["sets"]
    for judging in (of_set["judging"] for of_set in sets.values() if "judging" in of_set):
        judging["judge"] = {"kind": "endpoint", "base_url": endpoint, "model": "judge", "key_variable": None}
    if name == "chat":
        sets["ultrafeedback"]["judging"] = {"judge": {"kind": "reward_model"}, "runs": ["base", "distill"]}
    datasets = write_datasets(folder / "datasets")
    mapping["seeds"] = [0]
    mapping["runs"] = {run: mapping["runs"][run] for run in KEPT[name]}
    mapping["prompts"]["max_tokens"] = 120
    sources = [mapping["pairs"], *sets.values()]
    mapping["pairs"] |= {"train_pairs": 8, "test_pairs": 3, "max_response_tokens": 12}
    if name == "tldr":
        sources.append(mapping["demonstrations"])
        del mapping["bases"]["6.9b"]
        for run in mapping["runs"].values():
            run["bases"] = ["2.8b"]
        mapping["runs"]["dpo"].pop("bases")
        mapping["defaults"]["lora"] |= {"r": 4, "lora_alpha": 8}
    models = {base: neox_folder if name == "tldr" else llama3_folder for base in mapping["bases"]}
    for seed, (base, maker) in enumerate(models.items()):
        del mapping["bases"][base]["hub"], mapping["bases"][base]["revision"]
        tiny = maker(folder / base, hidden=8 * (seed + 2), seed=seed, max_position_embeddings=256)
        mapping["bases"][base]["folder"] = str(incline_to_end(tiny, END if name == "tldr" else "<|eot_id|>"))
    if name == "chat":
        mapping["external_reward_model"] = {"folder": str(reward_folder(folder))}
    for source in sources:
        source["dataset"] = datasets[source["dataset"].rpartition("/")[2]]
        del source["revision"]
    trainings = [run["optimisation"] for run in mapping["runs"].values() if "optimisation" in run]
    trainings += [mapping[key]["optimisation"] for key in ("demonstrations", "reward_model") if key in mapping]
    if "optimisation" in mapping["defaults"]:
        trainings.append(mapping["defaults"]["optimisation"])
    for optimisation in trainings:
        optimisation |= {"steps": 4, "batch_size": 4, "micro_batch_size": 2, "learning_rate": 1e-3, "warmup_steps": 1}
    for run in mapping["runs"].values():
        if "rollouts" in run:
            run["rollouts"] = run["rollouts"] | {"max_new_tokens": 6}
    for of_set in sets.values():
        of_set["prompts"] = 6 if of_set["format"] == "alpaca_eval" else 3  # length control needs five
    mapping["evaluation"] |= {"samples": 3, "max_new_tokens": 6}
    for ablation in mapping["ablations"].values():
        ablation["runs"] = {value: run for value, run in ablation["runs"].items() if run in KEPT[name]}
    mapping["ablations"] = {key: value for key, value in mapping["ablations"].items() if len(value["runs"]) > 1}
    suite = parse_suite(mapping, Path(f"workflow/suites/{name}.yaml"))
    assert isinstance(suite, AdlSuite)
    return suite


def reward_folder(folder: Path) -> Path:
    """A sequence classifier with one label on a tiny Llama, with its tokenizer."""
    path = llama3_folder(folder / "reward", seed=7, max_position_embeddings=256)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1)
    model.save_pretrained(path)
    return path


def made(name: str, folder: Path) -> Made:
    with serving(likes_length) as server:
        found = plan(shrunk(name, folder, server.url), folder)
        root = folder / "made"
        for final in (found, *found.ablations.values()):
            make(root, final.final)
    return root, found


class Classifier:
    """r̂ by transformers alone: the head's output at the last token of one sequence."""

    def __init__(self, folder: Path) -> None:
        self.model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, dtype=torch.float32)
        self.model.config.pad_token_id = 0

    @torch.no_grad()
    def reward(self, prompt: list[int], response: list[int]) -> float:
        backbone, head = self.model.base_model, self.model.score
        return head(backbone(torch.tensor([prompt + response])).last_hidden_state[0, -1]).item()


def check_measures(root: Path, found: Any, policy: str, name: str, base: str) -> None:
    """Reward, reward gain, KL and length of a policy on a set of prompts, at both laws."""
    measured = named(found, "alignment", policy)
    plain = Plain(root / named(found, "alignment", f"{base}-base").inputs["base"].path)
    own = Plain(root / measured.inputs[f"draws/{name}/common/0"].inputs["policy"].path)
    scorer = Classifier(root / measured.inputs["reward_model/0"].path)
    prompts = {
        row["prompt_id"]: row for row in read(root, measured.inputs[f"prompts/{name}"], "prompts.parquet", tables.PROMPTS)
    }
    for label, suffix in {"common": "", "own": "_own"}.items():
        law = measured.spec["laws"][label]
        draws: dict[str, list[dict[str, Any]]] = {}
        for row in read(root, measured.inputs[f"draws/{name}/{label}/0"], "draws.parquet", tables.DRAWS):
            draws.setdefault(row["prompt_id"], []).append(row)
        wanted = measured.inputs[f"draws/{name}/{label}/0"].spec["prompts"]
        assert len(draws) == wanted >= 3 and all(len(rows) == 3 for rows in draws.values())
        for prompt_id, rows in draws.items():
            prompt = prompts[prompt_id]["prompt"]
            ids = plain.prompt(prompt)
            rewards = [scorer.reward(ids, row["token_ids"]) for row in rows]
            values = {"reward": sum(rewards) / 3, "length": sum(len(row["token_ids"]) for row in rows) / 3}
            reference = prompts[prompt_id]["reference"]
            if reference:
                answer = [*plain.tokenizer(reference, add_special_tokens=False).input_ids, plain.tokenizer.eos_token_id]
                values["reward_gain"] = values["reward"] - scorer.reward(ids, answer)
            if law["top_p"] == 1:
                t = law["temperature"]
                values["kl"] = (
                    sum(own.logp(prompt, r["token_ids"], t) - plain.logp(prompt, r["token_ids"], t) for r in rows) / 3
                )
            for key, value in values.items():
                tolerance = NATS / min(1.0, law["temperature"]) if key == "kl" else NATS
                assert metric(root, measured, f"{name}/{key}{suffix}")[prompt_id] == pytest.approx(value, abs=tolerance), key
        assert bool(metric(root, measured, f"{name}/kl{suffix}")) == (law["top_p"] == 1)


def check_tables(root: Path, found: Any, bases: dict[str, int], sets: tuple[str, ...]) -> None:
    """Every policy with every metric of every set; tables rebuilt from the rows; a table an ablation."""
    results = root / found.final.path
    cells = list(csv.DictReader((results / "table.csv").read_text().splitlines()))
    policies = {cell["run"] for cell in cells}
    assert len(policies) == sum(bases.values())
    for name in sets:
        text = (results / f"{name}.md").read_text()
        judged = any(cell["metric"] in (f"{name}/win_rate", f"{name}/rating") for cell in cells)
        sections = [part.splitlines()[0] for part in re.split("^### ", text, flags=re.MULTILINE)[1:]]
        assert all(f"## {base}\n" in text for base in bases)
        assert sections == [*["The judge"] * judged, "At one temperature", "Own decoding"] * len(bases)
        assert (results / f"frontier-{name}.svg").is_file()
    assert {cell["metric"].partition("/")[0] for cell in cells} == set(sets)
    assert len((results / "cost.csv").read_text().splitlines()) == 1 + sum(bases.values()) - len(bases)
    again = root / "again"
    again.mkdir()
    WRITERS["adl_results"](found.final.spec, results, again)
    for file in again.iterdir():
        assert file.read_bytes() == (results / file.name).read_bytes()
    for ablation in found.ablations.values():
        rows = list(csv.DictReader((root / ablation.final.path / "table.csv").read_text().splitlines()))
        assert list(dict.fromkeys(row["run"] for row in rows)) == list(ablation.final.spec["runs"])
