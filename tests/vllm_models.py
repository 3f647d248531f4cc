"""Tiny random models of the families that vLLM is tried on, with heads of 32: the smallest its attention has on CPUs."""

import os
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_models import gemma2_folder, llama3_folder, mistral_folder
from torch import Tensor
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, Qwen2Config, Qwen2ForCausalLM

from prefdist.sampling.vllm.process import VARIABLE

HIDDEN, WINDOW = 128, 6

needs_vllm = pytest.mark.skipif(
    not os.environ.get(VARIABLE) and find_spec("vllm") is None,
    reason=f"no vLLM here: {VARIABLE} names no interpreter that has it; make vllm-test sets one up",
)


def gpt_neox_folder(path: Path, **config: Any) -> Path:
    shape = _shape() | {"rotary_pct": 0.5}
    return _saved(path, GPTNeoXForCausalLM(GPTNeoXConfig(**shape | config)))


def qwen2_folder(path: Path, **config: Any) -> Path:
    """With biases on queries, keys and values, as Qwen2 has them."""
    return _saved(path, Qwen2ForCausalLM(Qwen2Config(**_shape() | {"num_key_value_heads": 2} | config)))


def _shape() -> dict[str, Any]:
    return {
        "vocab_size": 300,
        "hidden_size": HIDDEN,
        "intermediate_size": 2 * HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "max_position_embeddings": 512,
    }


def _saved(path: Path, model: Any) -> Path:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(path)
    return path


FOLDERS: dict[str, Callable[[Path], Path]] = {
    "llama3": lambda path: llama3_folder(path, hidden=HIDDEN),  # its positions are scaled from 8 tokens on
    "gpt_neox": gpt_neox_folder,
    "gemma2": lambda path: gemma2_folder(path, hidden=HIDDEN, sliding_window=WINDOW),  # capped, and every other layer windowed
    "mistral": lambda path: mistral_folder(path, hidden=HIDDEN, sliding_window=WINDOW),
    "qwen2": qwen2_folder,
}


def token_laws(model: Any, prompt: list[int], response: list[int]) -> Tensor:
    """Log-softmax [T, V] float64 where each response token is predicted, by one unpadded pass of transformers alone."""
    with torch.no_grad():
        logits = model(torch.tensor([prompt + response]), use_cache=False).logits[0, len(prompt) - 1 : -1]
    return logits.double().log_softmax(-1)


def random_ids(*lengths: int, seed: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(6, 290, (length,), generator=generator).tolist() for length in lengths]
