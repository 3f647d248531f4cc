"""The committed suite `tldr`, every stage up to the tables, on tiny random GPT-NeoX models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from adl_inputs import check_measures, check_tables, made
from behaviour_inputs import NATS, Made, Plain, metric, named, read
from transformers import AutoModelForCausalLM

from prefdist.data import tables
from prefdist.plan import Artefact

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tldr(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("tldr", tmp_path_factory.mktemp("tldr"))


def test_tldr_is_measured(tldr: Made) -> None:
    root, found = tldr
    for policy, base in {"2.8b-distill": "2.8b", "2.8b-pmle": "2.8b", "1.4b-dpo": "1.4b"}.items():
        check_measures(root, found, policy, "tldr", base)


def test_tldrs_start_has_not_moved(tldr: Made) -> None:
    root, found = tldr
    start = named(found, "alignment", "2.8b-base")
    assert max(map(abs, metric(root, start, "tldr/kl").values())) < NATS


def test_the_tables_of_tldr(tldr: Made) -> None:
    check_tables(*tldr, {"1.4b": 2, "2.8b": 10}, ("tldr",))
    results = tldr[0] / tldr[1].final.path
    text = (results / "comparisons.md").read_text()
    for run, against in {"pmle": "dpo", "distill": "rebel", "reverse_kl": "rlhf"}.items():
        section = text[text.index(f"against `2.8b-{against}`") :]
        assert f"| 2.8b-{run} |" in section


def test_a_judge_who_likes_long_summaries(tldr: Made) -> None:
    """Of the first sample of three, in both orders; equal lengths are one win and one loss."""
    root, found = tldr
    judged = named(found, "judge", "2.8b-distill-tldr-0")
    references = {
        row["prompt_id"]: row["reference"] for row in read(root, judged.inputs["prompts"], "prompts.parquet", tables.PROMPTS)
    }
    draws = read(root, judged.inputs["answers"], "draws.parquet", tables.DRAWS)
    longer_by = {row["prompt_id"]: len(row["text"]) - len(references[row["prompt_id"]]) for row in draws if row["sample"] == 0}
    expected = {name: 0.5 if difference == 0 else float(difference > 0) for name, difference in longer_by.items()}
    assert metric(root, judged, "win_rate") == expected and len(expected) == 3
    rows = [row for row in read(root, found.final, "metrics.parquet", tables.METRICS) if row["metric"] == "tldr/win_rate"]
    assert {row["prompt_id"]: row["value"] for row in rows if row["run"] == "2.8b-distill"} == expected
    assert len({row["run"] for row in rows}) == 7, "six runs on 2.8b, of which one is on 1.4b, too"


def test_fine_tuning_moves_all_weights_and_adapters_the_named_ones(tldr: Made) -> None:
    root, found = tldr
    model, start, tuned = (
        AutoModelForCausalLM.from_pretrained(root / named(found, *of).path)
        for of in (("model", "2.8b"), ("train", "2.8b-base"), ("train", "2.8b-rebel-seed0"))
    )

    def moved(a: Any, b: Any) -> set[str]:
        return {name for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True) if not torch.equal(x, y)}

    assert {name.partition(".")[2] for name in moved(model, start)} >= {"embed_in.weight", "layers.0.mlp.dense_h_to_4h.weight"}
    assert moved(start, tuned) == {f"gpt_neox.layers.{i}.attention.query_key_value.weight" for i in (0, 1)}
    adapter = json.loads((root / named(found, "train", "2.8b-rebel-seed0").path / "adapter/adapter_config.json").read_text())
    assert (adapter["r"], adapter["lora_alpha"], adapter["lora_dropout"], adapter["bias"]) == (4, 8, 0.0, "none")


def test_summaries_are_learnt_behind_their_posts(tldr: Made) -> None:
    """The loss of the first step is −log p of the four demonstrations, as one text that begins with BOS and ends with EOS."""
    root, found = tldr
    trained = named(found, "train", "2.8b-base")
    rows = read(root, trained.inputs["text"], "prompts.parquet", tables.PROMPTS)
    plain = Plain(root / named(found, "model", "2.8b").path)
    losses = []
    for row in rows:
        if row["split"] == "train":
            ids = [*plain.tokenizer(row["reference"], add_special_tokens=False).input_ids, plain.tokenizer.eos_token_id]
            losses.append(-plain.logp(row["prompt"], ids))
    first = first_step(root, trained)
    assert len(losses) == 9 and min(losses) <= first["loss"] <= max(losses)


def first_step(root: Path, trained: Artefact) -> dict[str, float]:
    log: dict[str, float] = json.loads((root / trained.path / "log.jsonl").read_text().splitlines()[0])
    return log


def test_rewards_are_scaled_as_the_run_says(tldr: Made) -> None:
    """Those of unfinished summaries too, of which there are some; test_training_on_policy.py has the single ones."""
    root, found = tldr
    one, ten = (first_step(root, named(found, "train", f"2.8b-{run}-seed0")) for run in ("distill", "distill_reward_10"))
    assert ten["reward"] == pytest.approx(10 * one["reward"]), "the same first samples"
    assert 0 < one["unfinished"] < 1


def test_a_pmle_without_kl_samples_nothing(tldr: Made) -> None:
    root, found = tldr
    logs = {run: first_step(root, named(found, "train", f"2.8b-{run}-seed0")) for run in ("pmle", "pmle_beta_0")}
    assert "kl_to_prior" in logs["pmle"] and "kl_to_prior" not in logs["pmle_beta_0"]
