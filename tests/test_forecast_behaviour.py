"""The work of the stages of behaviour against sums done by hand, on the smallest suite and on pairs of a dataset."""

import json
from pathlib import Path
from typing import Any

import pytest
from changed_suites import changed

from prefdist.config.adl import AdlSuite
from prefdist.forecast import behaviour
from prefdist.forecast.stages import FORMULAS, work_of
from prefdist.forecast.throughput import Throughput
from prefdist.forecast.work import Facts, UnknownWork
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite

ROOT = Path(__file__).parents[1]
PROMPT, RESPONSE = 31, 12
"""Tokens in the world smoke, from its limits: 60 characters at two a token and BOS; max_new_tokens."""
BODY, HEAD = 10_336, 16_384
"""Weights of its models: 4·32·32 of attention, 3·32·64 of the MLP, 3·32 of norms; 512·32 of the LM head."""


def row(n: int, prompt: float = PROMPT, response: float = RESPONSE) -> float:
    """Operations of a prompt and n responses: body at every token, LM head at those of responses."""
    return 2 * (BODY * (prompt + n * response) + HEAD * n * response)


@pytest.fixture(scope="module")
def smoke() -> Plan:
    return plan(load_suite("spl_smoke", ROOT), ROOT)


def named(made: Plan, stage: str, name: str) -> Artefact:
    (artefact,) = (a for a in made.of_stage(stage) if a.name == name)
    return artefact


def test_every_stage_that_runs_a_model_has_a_formula(smoke: Plan) -> None:
    stages = {a.stage for name in ("spl_smoke", "spl_best_of_n") for a in plan(load_suite(name, ROOT), ROOT).artefacts.values()}
    assert stages - FORMULAS.keys() == {"text", "dataset", "choices", "problems", "ablation", "spl_results"}


def test_draws(smoke: Plan, tmp_path: Path) -> None:
    """6 prompts with 4 samples; a contrast runs π₀ beside the model."""
    plain, contrasted = (
        work_of(named(smoke, "draws", f"{name}-held_out-0"), Facts(tmp_path)) for name in ("dpo", "dpo_strong")
    )
    assert plain.flops == {"sample": 6 * row(4)}
    assert plain.passes == {"sample": 1 + RESPONSE}
    assert contrasted.flops == {"sample": 2 * 6 * row(4)}
    assert plain.disk == 24 * (60 + 8 * RESPONSE)


def test_diversity(smoke: Plan, tmp_path: Path) -> None:
    """Of each of two seeds: own samples under π₀, own and π₀'s under own and judging reward model and under π*."""
    assert work_of(named(smoke, "diversity", "dpo"), Facts(tmp_path)).flops == {"score": 2 * 6 * row(4) * (1 + 4 + 2)}


def test_shift(smoke: Plan, tmp_path: Path) -> None:
    """As above for the judge (2), π* (2) and three SFT models (6), π₀ once to tilt it; 16 pairs under five models."""
    facts = Facts(tmp_path)
    pairs = 2 * 16 * row(2) * (2 + 2 + 1)
    assert work_of(named(smoke, "shift", "spl"), facts).flops == {"score": 2 * 6 * row(4) * (2 + 2 + 6 + 1) + pairs}
    assert work_of(named(smoke, "shift", "base"), facts).flops == {"score": 2 * 6 * row(4) * (2 + 2 + 6) + pairs}


def test_repeats(smoke: Plan, tmp_path: Path) -> None:
    """6 prompts behind 0 or 4 tokens, three fillings each, two continuations of 8 tokens of two models, for two seeds."""
    drawn = sum(6 * row(2, PROMPT + k, 8) for k in (0, 4)) * 3 * 2
    apart = sum(12 * row(1, PROMPT + k, 8) for k in (0, 4)) * 3 * 2
    first = sum(2 * 2 * BODY * 6 * (PROMPT + k) for k in (0, 4)) * 3 * 2
    found = work_of(named(smoke, "repeats", "dpo"), Facts(tmp_path)).flops
    assert found == {"sample": 2 * drawn, "score": 2 * drawn + 2 * apart + first}
    strong = work_of(named(smoke, "repeats", "dpo_strong"), Facts(tmp_path)).flops
    assert strong == {"sample": 3 * drawn, "score": found["score"]}


def test_calibration_and_texts(smoke: Plan, tmp_path: Path) -> None:
    """20 questions with two options and their letters; 16 references. Both of two seeds."""
    facts = Facts(tmp_path)
    lengths = facts.lengths(named(smoke, "tax", "dpo"))
    assert lengths.prompt == PROMPT and lengths.reference is not None
    shown = PROMPT + 2 * (lengths.reference + 2)
    assert work_of(named(smoke, "calibration", "dpo"), facts).flops == {"score": 2 * 20 * row(2, shown, 1)}
    assert work_of(named(smoke, "tax", "dpo"), facts).flops == {"score": 2 * 16 * row(1, PROMPT, lengths.reference)}


def test_best_of_n(tmp_path: Path) -> None:
    """Each seed's 128 answers to 60 problems under its judge; 128 other answers are only stored."""
    suite = load_suite("spl_arithmetic", ROOT)
    made, facts = plan(suite, ROOT), Facts(tmp_path)
    artefact = named(made, "best_of_n", "spl_2")
    size, lengths = facts.size(artefact.inputs["judge/0"]), facts.lengths(artefact)
    response = lengths.response(80)
    each = 2 * (size.body * (lengths.prompt + 128 * response) + size.predicts * 128 * response)
    found = work_of(artefact, facts)
    assert found.flops == pytest.approx({"score": 2 * 60 * each})
    assert found.disk == 3 * 60 * 128 * 40


# ---- pairs of a dataset ----------------------------------------------------------------------------------------------

PUBLISHED = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
    "torch_dtype": "bfloat16",
}
"""The published configuration of Mistral 7B."""
MISTRAL = 7_241_732_096
"""Its weights, as its files' index counts them (14 483 464 192 bytes in two each)."""


@pytest.fixture
def paper(tmp_path: Path) -> tuple[Plan, Facts]:
    """spl.yaml, and a checkout in which its base was fetched."""
    made = plan(load_suite("spl", ROOT), ROOT)
    folder = tmp_path / named(made, "model", "base").path
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    return made, Facts(tmp_path)


def test_the_papers_model(paper: tuple[Plan, Facts]) -> None:
    made, facts = paper
    assert work_of(named(made, "model", "base"), facts).disk == 2 * MISTRAL


def test_trainings_and_reference_on_pairs_of_a_dataset(paper: tuple[Plan, Facts]) -> None:
    """5000 steps of 8 pairs, prompts of at most 4000 characters at four a token, responses of 512; three passes of adapters."""
    made, facts = paper
    embeddings = 32000 * 4096
    one = 2 * ((MISTRAL - 2 * embeddings) * (1001 + 2 * 512) + embeddings * 2 * 512)
    found = work_of(named(made, "train", "spl_2-seed0"), facts)
    assert found.flops == pytest.approx({"train_half": 5000 * 8 * 3 * one})
    assert found.passes == {"train_half": 5000 * 8}
    single = 2 * ((MISTRAL - 2 * embeddings) * (1001 + 512) + embeddings * 512)
    for side in ("chosen", "rejected", "both"):
        assert work_of(named(made, "train", f"sft_{side}-seed0"), facts).flops == pytest.approx(
            {"train_half": 10000 * 8 * 3 * single}
        )
    assert work_of(named(made, "reference", "policies"), facts).flops == pytest.approx({"score": 41_000 * one})
    assert work_of(named(made, "pairs", "judge"), facts).flops == {}


def test_references_that_are_not_counted_are_as_long_as_stored_responses(paper: tuple[Plan, Facts]) -> None:
    """500 held-out texts of two seeds, each a response of at most 512 tokens behind a prompt of 1001."""
    made, facts = paper
    embeddings = 32000 * 4096
    one = 2 * ((MISTRAL - 2 * embeddings) * (1001 + 512) + embeddings * 512)
    assert work_of(named(made, "tax", "dpo"), facts).flops == pytest.approx({"score": 2 * 500 * one})
    unlimited = Artefact("tax", "x", {}, {"text": Artefact("prompts", "prompts", {})})
    with pytest.raises(UnknownWork, match="the references of prompts are not counted yet"):
        facts.reference(unlimited)


def test_what_is_not_known_is_said(paper: tuple[Plan, Facts], tmp_path: Path) -> None:
    made, facts = paper
    benchmarks = named(made, "benchmarks", "dpo")
    with pytest.raises(UnknownWork, match=r"the documents of the benchmarks gsm8k, mmlu, .* are not counted"):
        work_of(benchmarks, facts)
    elsewhere = Facts(tmp_path / "elsewhere")
    with pytest.raises(UnknownWork, match=r"mistralai/Mistral-7B-Instruct-v0\.2 is not fetched yet"):
        work_of(named(made, "diversity", "dpo"), elsewhere)
    (dataset,) = made.of_stage("dataset")
    with pytest.raises(UnknownWork, match="downloads depend on the network"):
        Throughput([]).seconds(dataset, work_of(dataset, facts), "cpu")


def test_questions_of_a_dataset_are_as_long_as_their_shots(tmp_path: Path) -> None:
    made = plan(load_suite("spl_best_of_n", ROOT), ROOT)
    artefact = named(made, "calibration", "base")
    folder = tmp_path / artefact.inputs["policy/0"].path
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(PUBLISHED))
    size = Facts(tmp_path).size(artefact.inputs["policy/0"])

    def asked(questions: int, shots: int, options: int) -> float:
        tokens = (1 + shots) * (behaviour.QUESTION + options * behaviour.OPTION)
        return questions * 2.0 * (size.body * (tokens + options) + size.predicts * options)

    expected: dict[str, Any] = {"score": 2 * (asked(2000, 5, 4) + asked(817, 0, 4))}
    assert work_of(artefact, Facts(tmp_path)).flops == pytest.approx(expected)


# ---- answers that are judged, and second turns ------------------------------------------------------------------------


def chat(**changes: Any) -> Plan:
    return plan(changed("chat", AdlSuite, **changes), ROOT)


def test_a_reward_model_reads_each_judged_answer_and_its_baseline() -> None:
    """The first answer to each of 500 prompts under a model of Llama 3's shape: the prompt once, two longest responses."""
    made = chat(**{"evaluation/sets/ultrafeedback/judging": {"judge": {"kind": "reward_model"}, "samples": 1}})
    artefact, facts = named(made, "judge_local", "llama3-dpo-ultrafeedback-0"), Facts(ROOT)
    size, lengths = facts.size(artefact.inputs["reward_model"]), facts.lengths(artefact.inputs["answers"])
    response = lengths.response(1024)
    each = 2 * (size.body * (lengths.prompt + 2 * response) + size.predicts * 2 * response)
    assert work_of(artefact, facts).flops == pytest.approx({"score": 500 * each})


def test_second_turns_read_the_first_question_and_answer() -> None:
    """One behind each of 80 first answers."""
    second = named(chat(), "draws", "llama3-dpo-mt_bench-t0.8_p0.9-0-second")
    facts = Facts(ROOT)
    size, lengths = facts.size(second.inputs["policy"]), facts.lengths(second)
    response = lengths.response(1024)
    each = 2 * (size.body * (2 * lengths.prompt + 2 * response) + size.predicts * response)
    assert work_of(second, facts).flops == pytest.approx({"sample": 80 * each})
