"""The committed suite `chat`, every stage up to the tables, on tiny random Llama-3 models."""

import math

import pytest
import torch
from adl_inputs import Classifier, check_measures, check_tables, made
from behaviour_inputs import NATS, Made, Plain, metric, named, read
from chat_models import TEXTS
from transformers import AutoModelForCausalLM

from prefdist.data import tables

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return made("chat", tmp_path_factory.mktemp("chat"))


@pytest.mark.parametrize("name", ["ultrafeedback", "alpaca_eval", "arena_hard"])
def test_chat_is_measured(name: str, chat: Made) -> None:
    check_measures(*chat, "llama3-distill", name, "llama3")


def test_the_tables_of_chat(chat: Made) -> None:
    check_tables(*chat, {"llama3": 8}, ("ultrafeedback", "alpaca_eval", "arena_hard", "mt_bench"))


def test_the_reward_model_is_the_stored_one_and_all_weights_move(chat: Made) -> None:
    root, found = chat
    trained = named(found, "train", "llama3-distill-seed0")
    assert trained.inputs["reward_model"].stage == "model"
    a, b = (AutoModelForCausalLM.from_pretrained(root / source.path) for source in (trained.inputs["init"], trained))
    still = [name for (name, x), y in zip(a.named_parameters(), b.parameters(), strict=True) if torch.equal(x, y)]
    assert not still


def test_only_the_first_turn_of_mt_bench_is_asked(chat: Made) -> None:
    root, found = chat
    rows = read(root, named(found, "prompts", "llama3-mt_bench"), "prompts.parquet", tables.PROMPTS)
    assert [(row["prompt"], row["reference"]) for row in rows] == [(text, "") for text in TEXTS[3:6]]
    assert not metric(root, named(found, "alignment", "llama3-dpo"), "mt_bench/reward_gain")


def test_a_reward_model_judges_chats(chat: Made) -> None:
    """σ(r̂(answer) − r̂(reference)), mean over the samples."""
    root, found = chat
    judged = named(found, "judge_local", "llama3-distill-alpaca_eval-0")
    plain, scorer = (
        Plain(root / judged.inputs["answers"].inputs["policy"].path),
        Classifier(root / judged.inputs["reward_model"].path),
    )
    prompts = {row["prompt_id"]: row for row in read(root, judged.inputs["prompts"], "prompts.parquet", tables.PROMPTS)}
    expected: dict[str, float] = {}
    for row in read(root, judged.inputs["answers"], "draws.parquet", tables.DRAWS):
        prompt = prompts[row["prompt_id"]]
        ids = plain.prompt(prompt["prompt"])
        end = plain.tokenizer.convert_tokens_to_ids("<|eot_id|>")
        reference = [*plain.tokenizer(prompt["reference"], add_special_tokens=False).input_ids, end]
        margin = scorer.reward(ids, row["token_ids"]) - scorer.reward(ids, reference)
        expected[row["prompt_id"]] = expected.get(row["prompt_id"], 0.0) + 1 / (1 + math.exp(-margin)) / 3
    assert metric(root, judged, "win_rate") == pytest.approx(expected, abs=NATS)
