"""Policies in training, sampled by real vLLM: weights arrive after every step, tied or not, adapters too; and whole stages."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import gemma2_folder, llama3_folder
from conftest import World, read_log
from vllm_models import FOLDERS, HIDDEN, gpt_neox_folder, needs_vllm, random_ids

from prefdist.behaviour import draws
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.models import add_lora, load_policy, new_policy, save
from prefdist.sampling import stage as responses_stage
from prefdist.sampling.engines import ABOUT
from prefdist.sampling.vllm import policy as module
from prefdist.sampling.vllm.policy import PolicySampler
from prefdist.scoring.sequences import response_logps
from prefdist.training import stage as training_stage

PROMPTS = random_ids(4, 9, 1, seed=0)
OPTIONS: dict[str, Any] = {"num_samples": 3, "max_new_tokens": 8, "stop_ids": [3]}


def logp_gap(sampler: PolicySampler, policy: Any) -> float:
    """Largest difference of the samples' log-probability from the policy's own."""
    drawn = sampler(policy, PROMPTS, list("abc"), **OPTIONS)
    own = response_logps(policy, PROMPTS, [[s.token_ids for s in samples] for samples in drawn], pad_id=0)
    return float((torch.cat(own) - torch.tensor([s.logp for samples in drawn for s in samples])).abs().max())


def shake(policy: Any, only: str = "") -> None:
    """A change of all weights, or of those of a name, that moves log-probabilities by nats."""
    with torch.no_grad():
        for name, parameter in policy.named_parameters():
            if only in name:
                parameter += 0.05 * torch.randn_like(parameter)


MAKERS: dict[str, Callable[[Path], Path]] = {
    "llama3": FOLDERS["llama3"],
    "llama3_tied": lambda path: llama3_folder(path, hidden=HIDDEN, tied=True),
    "gpt_neox_tied": lambda path: gpt_neox_folder(path, tie_word_embeddings=True),
    "gemma2_tied": lambda path: gemma2_folder(path, hidden=HIDDEN),
}
RESTARTS = {"llama3": 0, "llama3_tied": 1, "gpt_neox_tied": 1, "gemma2_tied": 0}
"""Gemma-2 has no head of its own in vLLM. Where one is kept, the first refresh is found out and no other one needs it."""


@pytest.mark.vllm
@needs_vllm
@pytest.mark.parametrize("name", list(MAKERS))
def test_weights_arrive(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(0)
    policy = load_policy(MAKERS[name](tmp_path / "init"))
    sampler = PolicySampler(tmp_path / "scratch", longest=20)
    for _ in range(4):
        assert logp_gap(sampler, policy) < 8e-4  # 8 tokens at 1e-4
        shake(policy)
    assert capfd.readouterr().err.count("vLLM kept old weights") == RESTARTS[name]
    assert not list((tmp_path / "scratch").iterdir()), "weights on their way do not pile up"
    assert sampler.about["engine"] == "vllm" and sampler.about["version"]
    sampler.close()


@pytest.mark.vllm
@needs_vllm
def test_adapters_arrive(tmp_path: Path) -> None:
    """Only adapters change hands, so tied embeddings do no harm."""
    torch.manual_seed(0)
    init = llama3_folder(tmp_path / "init", hidden=HIDDEN, tied=True)
    policy = add_lora(load_policy(init), {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "down_proj"]}, seed=0)
    sampler = PolicySampler(tmp_path / "scratch", longest=20, base=init)
    for _ in range(3):
        assert logp_gap(sampler, policy) < 8e-4
        shake(policy, "lora_")
    sampler.close()


@pytest.mark.vllm
@needs_vllm
def test_weights_that_do_not_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy says one thing, its files another: neither a refresh nor a new vLLM helps, and nothing is drawn."""
    policy = load_policy(FOLDERS["llama3"](tmp_path / "init"))
    sampler = PolicySampler(tmp_path / "scratch", longest=20)
    sampler(policy, PROMPTS, list("abc"), **OPTIONS)
    stale = load_policy(tmp_path / "init")
    monkeypatch.setattr(module, "_write", lambda _, folder, untied: stale.save_pretrained(folder))
    shake(policy)
    with pytest.raises(UserError, match=r"differ from the policy's by .* nats a token .* another model .* llama"):
        sampler(policy, PROMPTS, list("abc"), **OPTIONS)
    sampler.close()


def test_a_tied_policy_written_untied(tmp_path: Path) -> None:
    """The folder is the same model with a head of its own, and the policy is what it was."""
    policy = load_policy(llama3_folder(tmp_path / "init", tied=True))
    module._write(policy, tmp_path / "out", untied=True)
    found = load_policy(tmp_path / "out")
    assert policy.config.tie_word_embeddings and not found.config.tie_word_embeddings
    ids = torch.tensor(PROMPTS[1:2])
    assert torch.equal(found(ids).logits, policy(ids).logits)
    assert found.lm_head.weight.data_ptr() != found.model.embed_tokens.weight.data_ptr()
    assert policy.lm_head.weight is policy.model.embed_tokens.weight


# ---- stages ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def prior(world: World, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained π₀ for the tiny world, whose own has heads too small for vLLM."""
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    architecture = {"model_type": "llama", "num_key_value_heads": 2, "max_position_embeddings": 128, **sizes}
    folder = tmp_path_factory.mktemp("prior") / "prior"
    save(new_policy(architecture, world.codec, seed=0), folder, world.codec)
    return folder


@pytest.mark.vllm
@needs_vllm
@pytest.mark.parametrize("lora", [None, {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj"]}])
def test_training_with_either_engine(lora: dict[str, Any] | None, prior: Path, world: World, tmp_path: Path) -> None:
    """One key of the specification is all that differs. Rewards of 12 steps agree to within their spread over samples."""
    logs = {}
    for engine in ("transformers", "vllm"):
        spec, inputs = world.training("rlhf_rloo", steps=12, learning_rate=1e-3, batch_size=16)
        spec["rollouts"]["engine"] = engine
        spec["lora"] = lora
        out = tmp_path / engine
        out.mkdir()
        training_stage.run(spec, {**inputs, "init": prior, "prior": prior}, out, tmp_path / f"{engine}.scratch")
        logs[engine] = read_log(out)
        assert (out / ABOUT).is_file() == (engine == "vllm")
        assert not (tmp_path / f"{engine}.scratch").exists()
    assert json.loads((tmp_path / "vllm" / ABOUT).read_text())["engine"] == "vllm"
    for name, spread in (("reward", 0.5), ("response_tokens", 0.5), ("kl_to_prior", 0.5)):
        means = [sum(row[name] for row in log) / len(log) for log in logs.values()]
        assert means[0] == pytest.approx(means[1], abs=spread), name
    assert logs["vllm"][0]["kl_to_prior"] == pytest.approx(0, abs=1e-4)


@pytest.mark.vllm
@needs_vllm
def test_stages_that_draw(prior: Path, world: World, tmp_path: Path) -> None:
    """Draws of behaviour under a law with filters, and responses of distillation: log-probabilities are the model's."""
    policy, inputs = load_policy(prior), {"text": world.folder("text"), "policy": prior}
    spec = {"split": "test", "prompts": 4, "samples": 3, "max_new_tokens": 6, "key": "k", "engine": "vllm"}
    draws.run({**spec, "law": {"temperature": 0.7, "top_k": 40}}, inputs, tmp_path, tmp_path / "scratch")
    rows = tables.read_table(tmp_path / "draws.parquet", tables.DRAWS)
    assert len(rows) == 12
    assert json.loads((tmp_path / ABOUT).read_text())["engine"] == "vllm"
    of_list = {"n": 2, "draws": 4, "temperature": 1.3, "top_p": 1.0, "select": "first"}
    responses_stage.run({**spec, **of_list}, inputs, tmp_path, tmp_path / "scratch")
    rows += tables.read_table(tmp_path / "responses.parquet", tables.SAMPLES)
    assert len(rows) == 12 + 8
    texts = {row["prompt_id"]: row["prompt"] for row in tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS)}
    for row in rows:
        prompt = world.codec.prompt(texts[row["prompt_id"]])
        (own,) = response_logps(policy, [prompt], [[row["token_ids"]]], pad_id=0)
        assert row["logp"] == pytest.approx(float(own), abs=1e-3)
