"""Tiny random instruct models on disk: architecture, special tokens and chat template behave as those of the real families."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

TEXTS = [f"{verb} the {noun} and {verb} it again." for verb in ("open", "close", "read") for noun in ("file", "list", "tree")]

COMPLETES = "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
"""The template of the suite `tldr` for base models: prompt and answer are one text."""
GEMMA2_SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
GEMMA2_TEMPLATE = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)

LLAMA3_SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|finetune_right_pad_id|>",
)
LLAMA3_TEMPLATE = (
    "{{ bos_token }}{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\nToday Date: ' }}"
    "{{ date_string + '\n\n<|eot_id|>' }}"
    "{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)

# Mistral's two forms: of the instruct model 0.2 (a space before the answer) and of Zephyr's SFT model (line breaks, no BOS).
MISTRAL_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' [INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + eos_token }}{% endif %}{% endfor %}"
)
ZEPHYR_TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + eos_token + '\n' }}"
    "{% if loop.last and add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}{% endfor %}"
)


def tokenizer(special: Sequence[str], template: str, **named: str) -> Any:
    """A byte-level BPE of about 300 tokens. `named`: bos_token, eos_token and, where the family has one, pad_token."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(TEXTS, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, chat_template=template, **named)


def gemma2_tokenizer(template: str = GEMMA2_TEMPLATE) -> Any:
    return tokenizer(GEMMA2_SPECIAL, template, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def llama3_tokenizer(template: str = LLAMA3_TEMPLATE) -> Any:
    """Without PAD, as the real one."""
    return tokenizer(LLAMA3_SPECIAL, template, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")


def mistral_tokenizer(template: str = MISTRAL_TEMPLATE) -> Any:
    """As Mistral's: SentencePiece's spaces, bytes for other letters, no PAD, and markup that is plain text."""
    bpe = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    bpe.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    letters = list("▁ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.,:;|<>/[]()?!")
    trainer = trainers.BpeTrainer(vocab_size=440, special_tokens=special, initial_alphabet=letters, show_progress=False)
    bpe.train_from_iterator([*TEXTS, "[INST] [/INST] <|user|> <|assistant|>"], trainer)
    learnt = json.loads(bpe.to_str())["model"]
    merges = [(first, second) for first, second in learnt["merges"]]
    return LlamaTokenizer(vocab=learnt["vocab"], merges=merges, chat_template=template)


def neox_tokenizer() -> Any:
    """As Pythia's: one token is BOS, EOS and unknown, PAD is there without its role, runs of spaces are tokens, no template."""
    end = "<|endoftext|>"
    found = tokenizer((end, "<|padding|>"), "", bos_token=end, eos_token=end, unk_token=end)
    found.chat_template = None
    found.add_tokens(["  ", "   "])
    return found


def neox_folder(path: Path, *, hidden: int = 16, seed: int = 0, **config: Any) -> Path:
    """Two layers, dropout that is to be off, and more embeddings than tokens, as Pythia. Returns `path`."""
    codec = neox_tokenizer()
    shape = {key: value for key, value in _shape(codec, hidden).items() if not key.startswith("num_key")}
    shape |= {"vocab_size": len(codec) + 27, "pad_token_id": None, "hidden_dropout": 0.1, "attention_dropout": 0.1}
    return _saved(path, GPTNeoXForCausalLM, GPTNeoXConfig(**shape | config), codec, seed)


def gemma2_folder(path: Path, *, hidden: int = 16, seed: int = 0, **config: Any) -> Path:
    """Two layers, one with a window of 6, and caps that bite. Returns `path`."""
    options = {"sliding_window": 6, "attn_logit_softcapping": 5.0, "final_logit_softcapping": 3.0} | config
    codec = gemma2_tokenizer()
    shape = _shape(codec, hidden) | {"head_dim": hidden // 4, "query_pre_attn_scalar": hidden // 4}
    return _saved(path, Gemma2ForCausalLM, Gemma2Config(**shape | options), codec, seed)


def llama3_folder(path: Path, *, hidden: int = 16, seed: int = 0, tied: bool = False, **config: Any) -> Path:
    """Two layers, grouped queries, and positions scaled as in Llama 3.1 from 8 tokens on. Returns `path`."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    }
    codec = llama3_tokenizer()
    shape = _shape(codec, hidden) | {"rope_parameters": rope, "tie_word_embeddings": tied}
    return _saved(path, LlamaForCausalLM, LlamaConfig(**shape | config), codec, seed)


def mistral_folder(path: Path, *, hidden: int = 16, seed: int = 0, template: str = MISTRAL_TEMPLATE, **config: Any) -> Path:
    """Two layers, grouped queries, no window, as the instruct model 0.2. Returns `path`."""
    codec = mistral_tokenizer(template)
    shape = _shape(codec, hidden) | {"sliding_window": None, "head_dim": hidden // 4}
    return _saved(path, MistralForCausalLM, MistralConfig(**shape | config), codec, seed)


def incline_to_end(path: Path, end: str) -> Path:
    """Make a saved model end about one of ten answers at every token: random ones hardly ever do. Returns `path`."""
    codec = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path, attn_implementation="eager")
    with torch.no_grad():
        hidden = model.base_model(codec(" ".join(TEXTS), return_tensors="pt").input_ids).last_hidden_state[0].mean(0)
        model.get_output_embeddings().weight[codec.convert_tokens_to_ids(end)] = 4 * hidden / hidden.square().sum()
    model.save_pretrained(path)
    return path


def _shape(codec: Any, hidden: int) -> dict[str, Any]:
    return {
        "vocab_size": len(codec),
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "bos_token_id": codec.bos_token_id,
        "eos_token_id": codec.eos_token_id,
        "pad_token_id": codec.pad_token_id,
    }


def _saved(path: Path, model_class: Any, config: Any, codec: Any, seed: int) -> Path:
    torch.manual_seed(seed)
    model = model_class(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.3 * torch.randn_like(parameter)  # the usual 0.02 gives a nearly uniform distribution
    model.save_pretrained(path)
    codec.save_pretrained(path)
    return path
