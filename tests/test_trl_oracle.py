"""Losses and gradients against TRL 1.16.0, an independent implementation, on the same weights and token ids.

Trainers keep their defaults except float32 and no gradient checkpointing, and whatever a test names. Each example is a
batch of its own, so that per-example losses are compared. TRL sums over unpacked rows, prefdist over packed ones.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM, LlamaForSequenceClassification, PreTrainedTokenizerFast

from prefdist.logprobs import packed_logprobs
from prefdist.models import Scorer
from prefdist.objectives import load
from prefdist.tokens import pack

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.filterwarnings("ignore"),  # TRL's own, of its experimental modules and of what it imports
]

PAD, BOS, EOS, VOCABULARY = 0, 1, 2, 32
EXAMPLES = [
    # prompt, chosen, rejected: ragged, one rejected response that filled its budget (no EOS), one of EOS alone
    ([BOS, 5, 6, 7], [8, 9, 10, EOS], [11, 12, EOS]),
    ([BOS, 4], [13, EOS], [14, 15, 16, 17, 18]),
    ([BOS, 20, 21], [EOS], [22, 23, EOS]),
]


@pytest.fixture(autouse=True)
def trl(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    module = pytest.importorskip("trl", reason="TRL is not installed: `make oracle` installs the pinned version")
    assert module.__version__ == "1.16.0", "the mappings below were read from TRL 1.16.0"
    return module


def language_model(kind: Callable[[LlamaConfig], Any] = LlamaForCausalLM, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        num_labels=1,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=EOS,
        attn_implementation="sdpa",
    )
    model = kind(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)  # the usual 0.02 gives a nearly uniform distribution
    return model


def tokenizer() -> PreTrainedTokenizerFast:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit

    words = ["<pad>", "<bos>", "<eos>", *(f"w{i}" for i in range(3, VOCABULARY))]
    inner = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="w3"))
    inner.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="w3"
    )


def trainer(kind: Any, config: Any, model: Any, folder: Path, columns: dict[str, str], **options: Any) -> Any:
    """A trainer whose data set only satisfies its constructor: the batches are made from ids below."""
    from datasets import Dataset

    settings = {"output_dir": str(folder), "report_to": "none", "gradient_checkpointing": False, "bf16": False}
    arguments = config(**settings, use_cpu=True, **options.pop("settings", {}))
    data = Dataset.from_list([columns])
    return kind(model=model, args=arguments, train_dataset=data, processing_class=tokenizer(), **options)


def gradients(model: nn.Module, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def compare(model: nn.Module, theirs: Callable[[int], Tensor], ours: Callable[[Any], Tensor], *, single: bool = False) -> None:
    """`ours` gives losses [1] from one packed row, `theirs` the loss of the example with that index."""
    for index, (prompt, chosen, rejected) in enumerate(EXAMPLES):
        packed = pack([prompt], [[chosen] if single else [chosen, rejected]], pad_id=PAD)
        loss, expected = ours(packed).sum(), theirs(index)
        # float32: sums of ten log-probabilities of order three.
        torch.testing.assert_close(loss, expected.float(), rtol=1e-5, atol=1e-5)
        mine, reference = gradients(model, loss), gradients(model, expected)
        assert mine.keys() == reference.keys()
        for name, gradient in reference.items():
            # 1e-4 of the largest entry: float32 through two layers, attention in another order.
            limit = 1e-4 * float(gradient.abs().max()) + 1e-7
            torch.testing.assert_close(mine[name], gradient, rtol=0, atol=limit, msg=lambda m, n=name: f"{n}: {m}")


def summed(model: nn.Module, packed: Any) -> Tensor:
    return packed_logprobs(model, packed).sum(-1)


PAIR = {"prompt": "w5 w6", "chosen": " w8 w9", "rejected": " w10"}


def preference_batch(made: Any, index: int) -> dict[str, Tensor]:
    prompt, chosen, rejected = EXAMPLES[index]
    batch: dict[str, Tensor] = made.data_collator([{"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected}])
    return batch


def test_sft(trl: Any, tmp_path: Path) -> None:
    """TRL's loss is a mean over the tokens of the batch: for one example, the row with `length: mean`."""
    model = language_model().eval()
    made = trainer(trl.SFTTrainer, trl.SFTConfig, model, tmp_path, {"prompt": "w5", "completion": " w6 w7"})

    def theirs(index: int) -> Tensor:
        prompt, chosen, _ = EXAMPLES[index]
        example = {"input_ids": prompt + chosen, "labels": [-100] * len(prompt) + chosen}
        loss: Tensor = made.compute_loss(model, made.data_collator([example]))
        return loss

    row = {"title": "", "source": "", "family": "likelihood"}
    mean, total = load(row | {"length": "mean"}), load("sft")
    compare(model, theirs, lambda p: mean({"policy": summed(model, p)}, {"n_tokens": p.n_tokens}), single=True)
    compare(
        model,
        lambda index: theirs(index) * len(EXAMPLES[index][1]),
        lambda p: total({"policy": summed(model, p)}, {}),
        single=True,
    )


def test_dpo(trl: Any, tmp_path: Path) -> None:
    model, reference = language_model().eval(), language_model(seed=1).eval()
    settings = {"beta": 0.3}
    made = trainer(trl.DPOTrainer, trl.DPOConfig, model, tmp_path, PAIR, settings=settings, ref_model=reference)
    objective = load("dpo", {"beta": 0.3})

    def ours(packed: Any) -> Tensor:
        with torch.no_grad():
            of_reference = summed(reference, packed)
        return objective({"policy": summed(model, packed), "reference": of_reference}, {})

    compare(model, lambda index: made.compute_loss(model, preference_batch(made, index)), ours)


def test_ipo(trl: Any, tmp_path: Path) -> None:
    """TRL divides each log-ratio by its response's tokens and calls τ beta: our row with `length: mean`, 1/(2τ).

    The row ipo.yaml sums, as the paper's Eq. 17 does.
    """
    model, reference = language_model().eval(), language_model(seed=1).eval()
    settings = {"beta": 0.2, "loss_type": ["ipo"]}
    made = trainer(trl.DPOTrainer, trl.DPOConfig, model, tmp_path, PAIR, settings=settings, ref_model=reference)
    row = load("ipo", {"margin": 1 / (2 * 0.2)}).row.model_dump()
    row["score"]["length"] = "mean"
    objective = load(row)

    def ours(packed: Any) -> Tensor:
        with torch.no_grad():
            of_reference = summed(reference, packed)
        logps = {"policy": summed(model, packed), "reference": of_reference}
        return objective(logps, {"n_tokens": packed.n_tokens})

    compare(model, lambda index: made.compute_loss(model, preference_batch(made, index)), ours)


def test_simpo(trl: Any, tmp_path: Path) -> None:
    """SimPO is CPO's trainer without its likelihood term (cpo_alpha 0); simpo_gamma is our margin."""
    from trl.experimental.cpo import CPOConfig, CPOTrainer

    model = language_model().eval()
    settings = {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.0, "simpo_gamma": 0.5}
    made = trainer(CPOTrainer, CPOConfig, model, tmp_path, PAIR, settings=settings)

    def theirs(index: int) -> Tensor:
        prompt, chosen, rejected = EXAMPLES[index]
        batch = {}
        for name, response in (("chosen", chosen), ("rejected", rejected)):
            ids = torch.tensor([prompt + response])
            batch[f"{name}_input_ids"] = ids
            batch[f"{name}_attention_mask"] = torch.ones_like(ids)
            batch[f"{name}_labels"] = torch.tensor([[-100] * len(prompt) + response])
        loss: Tensor = made.compute_loss(model, batch)
        return loss

    objective = load("simpo", {"beta": 2.0, "gamma": 0.5})
    compare(model, theirs, lambda p: objective({"policy": summed(model, p)}, {"n_tokens": p.n_tokens}))


def test_reward_model(trl: Any, tmp_path: Path) -> None:
    """The reward is read at the last token, EOS or not, and prompts are part of what TRL calls chosen and rejected."""
    model = language_model(LlamaForSequenceClassification).eval()
    pair = {"chosen": "w5 w6 w8", "rejected": "w5 w6 w9"}
    made = trainer(trl.RewardTrainer, trl.RewardConfig, model, tmp_path, pair)
    scorer, objective = Scorer(model), load("reward_model")

    def theirs(index: int) -> Tensor:
        prompt, chosen, rejected = EXAMPLES[index]
        batch = made.data_collator([{"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected}])
        loss: Tensor = made.compute_loss(model, batch)
        return loss

    compare(model, theirs, lambda p: objective({"reward": scorer.rewards(p)}, {}))
