"""How many weights a model of the llama family or of GPT-NeoX has, from its configuration alone, in closed form.

Left out: other families (None), adapters (a few per cent of their model).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Size:
    """Weights: of the layers with the last norm, of the embeddings, and of the LM head (0 where it shares the embeddings').

    `predicts` are the weights that a predicted token meets behind the layers: the LM head's, shared or not.
    """

    body: int
    embeddings: int
    head: int
    predicts: int
    bytes_a_weight: int = 4

    @property
    def total(self) -> int:
        return self.body + self.embeddings + self.head


@dataclass(frozen=True)
class _Family:
    """How a family differs from llama: biases of the projections to q, k, v; norms a layer; norms of q and k; shared head."""

    qkv_bias: bool = False
    norms: int = 2
    qk_norms: bool = False
    tied: bool = False


FAMILIES = {
    "llama": _Family(),
    "mistral": _Family(),
    "qwen2": _Family(qkv_bias=True),
    "qwen3": _Family(qk_norms=True),
    "gemma2": _Family(norms=4, tied=True),
}
_NEEDED = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "vocab_size")


def size_of(config: Mapping[str, Any]) -> Size | None:
    """Weights from the keys of a transformers configuration (config.json); None for a family or keys that are not known.

    With d = hidden_size, m = intermediate_size, h query heads and g key-value heads of width w, a layer has
    d·w·(2h + 2g) weights of attention, 3·d·m of the gated MLP, d a norm, and biases where the family or its keys say so.
    """
    if config.get("model_type") == "gpt_neox":
        return _gpt_neox(config)
    family = FAMILIES.get(str(config.get("model_type")))
    if family is None or any(config.get(key) is None for key in _NEEDED):
        return None
    d, m, layers, h, vocabulary = (int(config[key]) for key in _NEEDED)
    g = int(config.get("num_key_value_heads") or h)
    w = int(config.get("head_dim") or d // h)
    attention = d * w * (2 * h + 2 * g)
    if family.qkv_bias or config.get("attention_bias"):
        attention += w * (h + 2 * g)
    if config.get("attention_bias"):
        attention += d
    if family.qk_norms:
        attention += 2 * w
    mlp = 3 * d * m + (2 * m + d if config.get("mlp_bias") else 0)
    embeddings = vocabulary * d
    tied = config.get("tie_word_embeddings", family.tied)
    return Size(
        body=layers * (attention + mlp + family.norms * d) + d,
        embeddings=embeddings,
        head=0 if tied else embeddings,
        predicts=embeddings,
        bytes_a_weight=_bytes_a_weight(config),
    )


def _gpt_neox(config: Mapping[str, Any]) -> Size | None:
    """4·d² of attention and 2·d·m of an MLP without gate, a bias beside each, and norms that have one, too."""
    if any(config.get(key) is None for key in _NEEDED):
        return None
    d, m, layers, _, vocabulary = (int(config[key]) for key in _NEEDED)
    attention = 4 * d * d + (4 * d if config.get("attention_bias", True) else 0)
    embeddings = vocabulary * d
    return Size(
        body=layers * (attention + 2 * d * m + m + d + 4 * d) + 2 * d,
        embeddings=embeddings,
        head=0 if config.get("tie_word_embeddings") else embeddings,
        predicts=embeddings,
        bytes_a_weight=_bytes_a_weight(config),
    )


def _bytes_a_weight(config: Mapping[str, Any]) -> int:
    """As stored."""
    return 2 if str(config.get("dtype") or config.get("torch_dtype")) in ("bfloat16", "float16") else 4
