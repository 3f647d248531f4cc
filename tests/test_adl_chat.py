"""The committed suite `chat`, every stage up to the tables, on tiny random Llama-3 models."""

import math

import pytest
import torch
from adl_inputs import Classifier, check_measures, check_tables, made
from behaviour_inputs import NATS, Made, Plain, metric, named, plain_logps, read
from chat_models import TEXTS
from judge_inputs import rating
from transformers import AutoModelForCausalLM

from prefdist.data import tables
from prefdist.judging.length_control import length_controlled, read_gamed
from prefdist.judging.schemas import COMPARISONS, JUDGEMENTS

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


def test_mt_bench_has_a_second_turn_behind_the_first_answer(chat: Made) -> None:
    """Of the first of three samples; its ids are behind the first question, then the template's end and the second question."""
    root, found = chat
    judged = named(found, "judge", "llama3-pmle-mt_bench-0")
    first, second = (judged.inputs[role] for role in ("answers", "second_answers"))
    plain = Plain(root / second.inputs["policy"].path)
    answers = {(row["prompt_id"], row["sample"]): row for row in read(root, first, "draws.parquet", tables.DRAWS)}
    drawn = {(row["prompt_id"], row["sample"]): row for row in read(root, second, "draws.parquet", tables.DRAWS)}
    prompts = {row["prompt_id"]: row["prompt"] for row in read(root, first.inputs["text"], "prompts.parquet", tables.PROMPTS)}
    follow = read(root, first.inputs["text"], "second_turns.parquet", tables.SECOND_TURNS)
    assert set(drawn) == {(name, 0) for name in prompts} and len(drawn) == 3
    end = plain.tokenizer.convert_tokens_to_ids("<|eot_id|>")
    for turn in follow:
        name = turn["prompt_id"]
        assert turn["prompt"] == f"Again, {TEXTS[3:6].index(prompts[name])}."
        asked = plain.prompt(prompts[name])
        dialogue = [{"role": "user", "content": prompts[name]}, {"role": "assistant", "content": "x"}]
        dialogue.append({"role": "user", "content": turn["prompt"]})
        whole = plain.tokenizer.apply_chat_template(
            dialogue, add_generation_prompt=True, return_dict=False, date_string="26 Jul 2024"
        )
        behind = whole[len(asked) + len(plain.tokenizer("x", add_special_tokens=False).input_ids) :]
        said = [i for i in answers[name, 0]["token_ids"] if i != end]
        reply = drawn[name, 0]
        assert reply["logp"] == pytest.approx(
            float(plain_logps(plain.model, asked + said + behind, reply["token_ids"], 1.0).sum()), abs=NATS
        )
    ratings = {name: (rating(answers[name, 0]["text"]) + rating(drawn[name, 0]["text"])) / 2 for name in prompts}
    assert metric(root, judged, "rating") == ratings
    assert not metric(root, named(found, "alignment", "llama3-dpo"), "mt_bench/reward_gain")


def test_answers_to_arena_hard_meet_those_of_its_baseline(chat: Made) -> None:
    root, found = chat
    judged = named(found, "judge", "llama3-dpo-arena_hard-0")
    rows = read(root, judged, "comparisons.parquet", COMPARISONS)
    assert {row["prompt"]: row["baseline"] for row in rows} == {text: f"Well, {text}" for text in TEXTS[:3]}
    won = [len(row["answer"]) > len(row["baseline"]) for row in rows]  # in both orders, one battle each
    values = list(metric(root, judged, "arena_hard").values())
    assert sum(values) / 3 == pytest.approx(sum(won) / 3)


def test_alpaca_eval_controls_length_by_its_own_files(chat: Made) -> None:
    """As the function does on what the judge said, the lengths, and the files; shown in the table."""
    root, found = chat
    judged = named(found, "judge", "llama3-rebel-alpaca_eval-0")
    rows = read(root, judged, "judgements.parquet", JUDGEMENTS)
    folder = root / judged.inputs["alpaca_eval"].path
    prompts = {
        row["prompt_id"]: row["prompt"] for row in read(root, judged.inputs["prompts"], "prompts.parquet", tables.PROMPTS)
    }
    controlled = length_controlled(
        [row["preference"] for row in rows],
        [float(row["length_baseline"]) for row in rows],
        [float(row["length_answer"]) for row in rows],
        instructions=[TEXTS[3:].index(prompts[row["prompt_id"]]) for row in rows],
        gamed=read_gamed(folder / "df_gamed.csv"),
    )
    assert len(rows) == 6
    assert list(metric(root, judged, "length_controlled").values()) == pytest.approx(list(controlled.preferences))
    assert "| at equal lengths ↑ (%) |" in (root / found.final.path / "alpaca_eval.md").read_text()


def test_a_reward_model_judges_chats(chat: Made) -> None:
    """σ(r̂(answer) − r̂(reference)), mean over the samples."""
    root, found = chat
    judged = named(found, "judge_local", "llama3-distill-ultrafeedback-0")
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
