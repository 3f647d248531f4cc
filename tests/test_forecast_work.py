"""Sizes against models that are really built, and the work of artefacts against sums done by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from prefdist.config.testbed import Suite
from prefdist.errors import UserError
from prefdist.forecast import work
from prefdist.forecast.parameters import Size, size_of
from prefdist.forecast.stages import number_of_questions, work_of
from prefdist.forecast.work import Facts, UnknownWork, forward, sampled, scored
from prefdist.hub_models import hub_models
from prefdist.plan import Artefact, plan
from prefdist.sampling import engine
from prefdist.scoring import sequences
from prefdist.scoring.questions import orders
from prefdist.suites import load_suite

ROOT = Path(__file__).parents[1]
SMALL: dict[str, Any] = {
    "hidden_size": 24,
    "intermediate_size": 40,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 70,
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **SMALL},
    "llama, shared head": {"model_type": "llama", **SMALL, "tie_word_embeddings": True},
    "llama, biases": {"model_type": "llama", **SMALL, "attention_bias": True, "mlp_bias": True},
    "mistral, wide heads": {"model_type": "mistral", **SMALL, "head_dim": 10},
    "qwen2": {"model_type": "qwen2", **SMALL},
    "qwen3": {"model_type": "qwen3", **SMALL, "head_dim": 8},
    "gemma2": {"model_type": "gemma2", **SMALL, "head_dim": 8},
    "gpt_neox": {"model_type": "gpt_neox", **SMALL},
    "gpt_neox, shared head": {"model_type": "gpt_neox", **SMALL, "tie_word_embeddings": True},
    "gpt_neox, no biases in attention": {"model_type": "gpt_neox", **SMALL, "attention_bias": False},
}


def _architectures_of_suites() -> dict[str, dict[str, Any]]:
    testbed, pad = load_suite("testbed", ROOT), load_suite("pad_testbed", ROOT)
    assert isinstance(testbed, Suite)
    models = pad.models.items()  # type: ignore[union-attr]
    return {"testbed": {**testbed.architecture, "vocab_size": 2048}} | {
        f"pad_testbed {name}": {**model.architecture, "vocab_size": model.vocabulary} for name, model in models
    }


@pytest.mark.parametrize("name", [*ARCHITECTURES, *_architectures_of_suites()])
def test_sizes_are_those_of_built_models(name: str) -> None:
    config = {**ARCHITECTURES, **_architectures_of_suites()}[name]
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    size = size_of(config)
    assert size is not None
    assert size.total == sum(parameter.numel() for parameter in model.parameters())
    assert size.body == sum(parameter.numel() for name, parameter in model.base_model.named_parameters() if "embed" not in name)
    assert size.predicts == model.get_output_embeddings().weight.numel()


def test_sizes_are_read_from_a_saved_configuration(tmp_path: Path) -> None:
    config = AutoConfig.for_model(**ARCHITECTURES["gemma2"], dtype="bfloat16")
    config.save_pretrained(tmp_path)
    saved = size_of(json.loads((tmp_path / "config.json").read_text()))
    assert saved is not None
    assert saved.bytes_a_weight == 2
    assert saved.total == size_of(ARCHITECTURES["gemma2"]).total  # type: ignore[union-attr]


# Of the models' pages on the hub. Pythia's card gives the weights without embeddings; the others' pages the weights in all.
BODIES = {
    "EleutherAI/pythia-1.4b-deduped": 1_208_602_624,
    "EleutherAI/pythia-2.8b-deduped": 2_517_652_480,
    "EleutherAI/pythia-6.9b-deduped": 6_444_163_072,
}
TOTALS = {
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.1-8B-Instruct": 8_030_261_248,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "HuggingFaceH4/mistral-7b-sft-beta": 7_241_732_096,
    "google/gemma-2-9b-it": 9_241_705_984,
    "google/gemma-2-2b-it": 2_614_341_888,
}


@pytest.mark.parametrize("name", [*BODIES, *TOTALS])
def test_listed_models_have_the_weights_that_their_pages_state(name: str) -> None:
    model = hub_models(ROOT).model(name)
    assert model is not None
    size = size_of(model.config)
    assert size is not None
    assert size.bytes_a_weight == 2
    assert (size.body if name in BODIES else size.total) == {**BODIES, **TOTALS}[name]


def test_a_model_is_listed_once_and_mistakes_are_named(tmp_path: Path) -> None:
    names = [name for model in hub_models(ROOT).models for name in model.names]
    assert len(names) == len(set(names))
    assert hub_models(ROOT).model("nobody/nothing") is None
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/hub_models.yaml").write_text("models: [{names: [a/b], license: mit, evidence: read, config: {}}]")
    with pytest.raises(UserError, match=r"^workflow/hub_models\.yaml: .*models\.0\.licence"):
        hub_models(tmp_path)


def test_a_fetched_configuration_stands_before_the_listed_one(tmp_path: Path) -> None:
    (tmp_path / "workflow").mkdir()
    listed = {"names": ["google/gemma-2-2b-it"], "licence": "x", "evidence": "read", "config": ARCHITECTURES["llama"]}
    (tmp_path / "workflow/hub_models.yaml").write_text(json.dumps({"models": [listed]}))
    (fetched,) = (a for a in plan(load_suite("pad", ROOT), ROOT).of_stage("model") if a.name == "gemma_2b")
    facts = Facts(tmp_path)
    assert facts.size(fetched) == size_of(ARCHITECTURES["llama"])
    assert facts.listed == {"google/gemma-2-2b-it"}
    AutoConfig.for_model(**ARCHITECTURES["gemma2"]).save_pretrained(tmp_path / fetched.path)
    facts = Facts(tmp_path)
    assert facts.size(fetched) == size_of(ARCHITECTURES["gemma2"])
    assert facts.listed == set()


def test_other_families_have_no_size() -> None:
    assert size_of({"model_type": "mamba", **SMALL}) is None
    assert size_of({"model_type": "llama", "hidden_size": 24}) is None
    assert size_of({"model_type": "gpt_neox", "hidden_size": 24}) is None


def test_constants_are_those_of_the_engines() -> None:
    assert (work.ROWS, work.TOKENS) == (engine.ROWS, sequences.TOKENS)


@pytest.mark.parametrize(
    ("kind", "scheme"), [("n_way", s) for s in ("all", "cyclic", "fixed")] + [("pairwise", "fixed"), ("pairwise", "all")]
)
def test_questions_are_counted_as_they_are_asked(kind: str, scheme: str) -> None:
    assert number_of_questions(kind, scheme, 4) == len(orders(kind, scheme, 4))


def test_forward_sampling_and_scoring_by_hand() -> None:
    size = Size(body=100, embeddings=50, head=0, predicts=50)
    # 10 + 2·5 tokens meet the body, 2·5 the head.
    assert forward(size, 10, 5, 2) == 2 * (100 * 20 + 50 * 10) == 5000
    # 300 prompts with 2 responses are 600 rows: two batches of 512, each with a pass for the prompts and five for tokens.
    assert sampled(size, 300, 10, 5, 2).flops == {"sample": 300 * 5000}
    assert sampled(size, 300, 10, 5, 2).passes == {"sample": 12}
    # 1000 rows of 20 tokens are 20 000: three batches of 8192.
    assert scored(size, 1000, 10, 5, 2, half=True).flops == {"score_half": 5_000_000}
    assert scored(size, 1000, 10, 5, 2).passes == {"score": 3}


PROMPT, RESPONSE = 31, 12
"""Tokens in the suite smoke, from its limits: 60 characters at two a token and BOS; max_new_tokens."""
BODY, HEAD = 10_336, 16_384
"""Weights of the suite smoke's models: 4·32·32 of attention, 3·32·64 of the MLP, 3·32 of norms; 512·32 of the LM head."""
PASS = 2 * (BODY * (PROMPT + 2 * RESPONSE) + HEAD * 2 * RESPONSE)
"""Operations of one forward pass over a prompt and two responses."""


@pytest.fixture(scope="module")
def smoke() -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in plan(load_suite("smoke", ROOT), ROOT).of_stage("train")}


def test_a_training_on_pairs_by_hand(smoke: dict[str, Artefact], tmp_path: Path) -> None:
    found = work_of(smoke["dpo-seed0"], Facts(tmp_path))
    # 6 steps of 8 pairs; a probe of 8 prompts with two samples after steps 3 and 6.
    assert found.flops == {"train": 6 * 8 * 3 * PASS, "score": 2 * 8 * PASS}
    assert found.passes == {"train": 6, "score": 2}
    assert found.disk == pytest.approx(4 * (BODY + HEAD), rel=0.05)


def test_a_regularised_training_by_hand(smoke: dict[str, Artefact], tmp_path: Path) -> None:
    found = work_of(smoke["pmle-seed0"], Facts(tmp_path))
    # Beside the pairs, 8 prompts a step with two fresh samples: drawn, scored by π₀, learnt from.
    assert found.flops == {"train": 2 * 6 * 8 * 3 * PASS, "score": 2 * 8 * PASS + 6 * 8 * PASS, "sample": 6 * 8 * PASS}


def test_a_training_by_ppo_by_hand(smoke: dict[str, Artefact], tmp_path: Path) -> None:
    found = work_of(smoke["reverse_kl_ppo-seed0"], Facts(tmp_path))
    # 3 rollouts feed two steps each. Scored by π₀, by r̂, and by policy and critic, which both learn.
    assert found.flops == {
        "train": 6 * 8 * 2 * 3 * PASS,
        "score": 2 * 8 * PASS + 3 * 8 * 4 * PASS,
        "sample": 3 * 8 * PASS,
    }


def test_an_adapter_learns_with_two_passes(tmp_path: Path) -> None:
    suite = plan(load_suite("testbed", ROOT), ROOT)
    trained = {artefact.name: artefact for artefact in suite.of_stage("train")}
    whole, adapter = (work_of(trained[f"{name}-seed0"], Facts(tmp_path)) for name in ("dpo", "dpo_lora"))
    assert adapter.flops["train"] == pytest.approx(2 / 3 * whole.flops["train"])


def test_a_model_that_is_not_fetched_has_unknown_work(tmp_path: Path) -> None:
    suite = plan(load_suite("pad", ROOT), ROOT)
    trained = next(artefact for artefact in suite.of_stage("train") if artefact.name == "gemma_paper-seed0")
    with pytest.raises(UnknownWork, match="google/gemma-2-2b-it is not fetched yet"):
        work_of(trained, Facts(tmp_path))


def test_a_fetched_model_has_a_size(tmp_path: Path) -> None:
    suite = plan(load_suite("pad", ROOT), ROOT)
    model = next(artefact for artefact in suite.of_stage("model") if artefact.name == "gemma_2b")
    (tmp_path / model.path).mkdir(parents=True)
    published = {"hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26, "num_attention_heads": 8}
    config = {**published, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "model_type": "gemma2"}
    (tmp_path / model.path / "config.json").write_text(json.dumps({**config, "torch_dtype": "bfloat16"}))
    assert work_of(model, Facts(tmp_path)).disk == 2 * 2_614_341_888  # the model card's 2.6 billion, in two bytes each
