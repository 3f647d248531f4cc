"""Models on disk and in memory: what is saved is what is loaded, by us, by transformers and by peft."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import World
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GemmaConfig,
    GemmaForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from prefdist.errors import UserError
from prefdist.models import add_lora, fold_temperature, load_policy, load_scorer, new_policy, parameter_count, save
from prefdist.sampling.engine import sample
from prefdist.sampling.law import Sampler
from prefdist.tokens import pack

STORIES = Path(__file__).resolve().parents[2] / "shared" / "data" / "stories260k"
IDS = torch.tensor([[1, 5, 9, 200, 31, 2]])
SIZES: dict[str, Any] = {
    "vocab_size": 300,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
# A mapped file is aligned otherwise than fresh memory, and then sums of logits up to 10 add in another order.
ORDER = 2e-5
LORA = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "down_proj"]}


@torch.no_grad()
def logits(model: Any) -> Tensor:
    return model(input_ids=IDS).logits


def same_weights(a: Any, b: Any) -> bool:
    mine, other = a.state_dict(), b.state_dict()
    return mine.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in mine.items())


def randomised(model: nn.Module) -> Any:
    """Every parameter away from its usual start of 0, 1 or small numbers, which hide mistakes."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("model_type", ["llama", "gpt_neox"])
def test_a_saved_policy_is_the_policy(model_type: str, tied: bool, world: World, tmp_path: Path) -> None:
    architecture = {"model_type": model_type, "tie_word_embeddings": tied, **SIZES}
    del architecture["vocab_size"]
    model = randomised(new_policy(architecture, world.codec, seed=0))
    save(model, tmp_path, world.codec)
    for loaded in (load_policy(tmp_path), AutoModelForCausalLM.from_pretrained(tmp_path)):
        assert same_weights(loaded, model)
        assert logits(loaded) == pytest.approx(logits(model), abs=ORDER)
    assert AutoTokenizer.from_pretrained(tmp_path)("def f").input_ids == world.codec.response("def f")[:-1]
    assert parameter_count(tmp_path) == sum(parameter.numel() for parameter in model.parameters())
    assert not [file for file in tmp_path.rglob("*") if file.suffix in (".bin", ".pt", ".pkl")]
    assert load_policy(tmp_path).config.eos_token_id == world.codec.eos_id


def test_a_new_policy_is_a_function_of_its_seed(world: World) -> None:
    architecture = world.artefacts["target"].spec["architecture"]
    first, again, other = (logits(new_policy(architecture, world.codec, seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_lora_is_saved_merged_and_as_an_adapter(world: World, tmp_path: Path) -> None:
    import peft

    model = add_lora(world.policy("prior"), LORA, seed=0)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert {name.split(".")[-3] for name in trained} == {"lora_A", "lora_B"}
    assert torch.equal(logits(model), logits(world.policy("prior"))), "a new adapter changes nothing"
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in trained:
                parameter.copy_(0.3 * torch.randn_like(parameter))
    expected, model_before = logits(model), copy.deepcopy(model)
    assert float((expected - logits(world.policy("prior"))).abs().max()) > 0.1
    save(model, tmp_path, world.codec)
    # (W + BA)x against Wx + B(Ax): another order of float32 additions, on logits of about 10
    assert logits(load_policy(tmp_path)) == pytest.approx(expected, abs=1e-4)
    assert parameter_count(tmp_path) == parameter_count(world.folder("prior"))
    opened = peft.PeftModel.from_pretrained(world.policy("prior"), tmp_path / "adapter")
    assert same_weights(opened, model_before)
    assert logits(opened) == pytest.approx(expected, abs=ORDER)


def test_a_saved_reward_model_is_the_reward_model(world: World, tmp_path: Path) -> None:
    """Also read by transformers itself, which takes the last token of an unpadded sequence."""
    scorer = load_scorer(world.folder("prior"), seed=0)
    save(scorer.model, tmp_path, world.codec)
    packed = pack([[1, 5, 9]], [[[200, 31, 2], [40, 2]]], pad_id=0)
    with torch.no_grad():
        rewards = scorer.rewards(packed)
        assert load_scorer(tmp_path).rewards(packed) == pytest.approx(rewards, abs=ORDER)
        assert torch.equal(load_scorer(world.folder("prior"), seed=0).rewards(packed), rewards)
        assert not torch.equal(load_scorer(world.folder("prior"), seed=1).rewards(packed), rewards)
        plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
        expected = [plain(torch.tensor([ids])).logits.item() for ids in ([1, 5, 9, 200, 31, 2], [1, 5, 9, 40, 2])]
    assert rewards[0] == pytest.approx(expected, abs=1e-5)


def test_critic_values_stand_before_their_tokens(world: World) -> None:
    """The value of a state may not depend on the token chosen in it; the reward must depend on the last one."""
    scorer = world.reward_model()
    one, other = (pack([[1, 5, 9]], [[[200, last]]], pad_id=0) for last in (31, 2))
    with torch.no_grad():
        assert torch.equal(scorer.values(one), scorer.values(other))
        assert not torch.equal(scorer.rewards(one), scorer.rewards(other))
        plain = [scorer.model(torch.tensor([ids])).logits.item() for ids in ([1, 5, 9], [1, 5, 9, 200])]
    assert scorer.values(one)[0, 0].tolist() == pytest.approx(plain, abs=1e-5)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no config.json there; name a folder saved by transformers' save_pretrained"),
        (["config.json"], r"no \*.safetensors weights there; only safetensors are loaded, save the model again"),
        (["config.json", "pytorch_model.bin"], r"no \*.safetensors weights there; only safetensors are loaded"),
    ],
)
@pytest.mark.parametrize("loader", [load_policy, load_scorer])
def test_a_folder_that_is_no_model(
    loader: Callable[[Path], Any], files: list[str], message: str, world: World, tmp_path: Path
) -> None:
    """Weights in pickle are refused even where torch could read them."""
    folder = tmp_path / "some_model"
    folder.mkdir()
    for name in files:
        if name == "config.json":
            (folder / name).write_bytes((world.folder("prior") / name).read_bytes())
        else:
            torch.save(world.policy("prior").state_dict(), folder / name)
    with pytest.raises(UserError, match=f"some_model: {message}"):
        loader(folder)
    with pytest.raises(UserError, match=r"absent: no config\.json"):
        loader(tmp_path / "absent")


def llama(**options: Any) -> Any:
    return LlamaForCausalLM(LlamaConfig(**SIZES, **options))


def gpt_neox(**options: Any) -> Any:
    return GPTNeoXForCausalLM(GPTNeoXConfig(**SIZES, **options))


def gpt2(**options: Any) -> Any:
    return GPT2LMHeadModel(GPT2Config(vocab_size=300, n_embd=16, n_layer=2, n_head=2, **options))


@pytest.mark.parametrize("temperature", [0.5, 1.7])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("make", [llama, gpt_neox, gpt2])
def test_folding_a_temperature_is_exact(make: Callable[..., Any], tied: bool, temperature: float) -> None:
    """The RMS norm of Llama computes in float32 whatever the model is: 1e-6 of logits of about 10."""
    model = randomised(make(tie_word_embeddings=tied)).double().eval()
    before = logits(model)
    fold_temperature(model, temperature)
    assert logits(model) == pytest.approx(before / temperature, abs=1e-5 if make is llama else 1e-12)
    expected = (before / temperature).log_softmax(-1)
    assert logits(model).log_softmax(-1) == pytest.approx(expected, abs=1e-5 if make is llama else 1e-12)


def test_a_model_that_cannot_be_folded_is_refused() -> None:
    """Gemma multiplies by 1 + weight, so that dividing the weight is not dividing the logits."""
    model = randomised(GemmaForCausalLM(GemmaConfig(**SIZES, num_key_value_heads=2, head_dim=8))).eval()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(UserError, match="a temperature cannot be folded into a gemma model"):
        fold_temperature(model, 0.5)  # halving and doubling are exact
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.parametrize(
    ("make", "dropout"),
    [
        (llama, {"attention_dropout": 0.5}),
        (gpt_neox, {"attention_dropout": 0.5, "hidden_dropout": 0.5}),
        (gpt2, {"attn_pdrop": 0.5, "resid_pdrop": 0.5, "embd_pdrop": 0.5}),
    ],
)
def test_dropout_is_off(make: Callable[..., Any], dropout: dict[str, float], world: World, tmp_path: Path) -> None:
    """Of new and of loaded models, in training mode too; a model with dropout shows that the test would see it."""
    raw = make(**dropout).train()
    assert not torch.equal(logits(raw), logits(raw))
    raw.save_pretrained(tmp_path)
    architecture = {"model_type": raw.config.model_type, **dropout, "num_attention_heads": 2, "hidden_size": 16}
    scorer = load_scorer(tmp_path, seed=0).model
    for model in (load_policy(tmp_path), new_policy(architecture, world.codec, seed=0), scorer):
        model.config.pad_token_id = 0
        model.train()
        assert torch.equal(logits(model), logits(model))


@pytest.mark.skipif(not STORIES.is_dir(), reason=f"needs the real checkpoint of {STORIES}, which is no part of the project")
def test_a_real_checkpoint_writes_its_published_text() -> None:
    """karpathy's stories260K: its greedy continuation of the empty prompt, as published; and by our own sampler, cold."""
    model = load_policy(STORIES)
    tokenizer = AutoTokenizer.from_pretrained(STORIES)
    expected = (STORIES / "expected_greedy_200.txt").read_text()
    ids = [model.config.bos_token_id]
    with torch.no_grad():
        for _ in range(200):
            ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
    assert str(tokenizer.decode(ids, skip_special_tokens=True)).strip() == expected.strip()
    options: dict[str, Any] = {"num_samples": 1, "max_new_tokens": 200, "stop_ids": [2]}
    ((cold,),) = sample(model, [ids[:1]], ["k"], sampler=Sampler(temperature=1e-6), **options)
    assert cold.token_ids == ids[1:]
