"""Sampling and scoring with vLLM, behind the signature of the project's own sampler (sampling/engine.py). Token ids only.

vLLM runs in a process of its own, under the interpreter that PREFDIST_VLLM_PYTHON names (process.py). A response is drawn
with a seed that is a pure function of its key and its number. Which response the seed gives follows from logits, and those
of a row depend in their last bits on what vLLM computes beside it: the same work, asked of the same build on the same
machine, gives the same responses, and another batch may, rarely, give another one. sampling/engine.py has no such
exception. Left out: models that are being trained (policy.py).
"""

import hashlib
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.config.common import vllm_lacks
from prefdist.errors import UserError
from prefdist.paths import check_model_folder
from prefdist.sampling.engine import Sample
from prefdist.sampling.law import ANCESTRAL, Sampler
from prefdist.sampling.vllm.process import PATIENCE, Process
from prefdist.sampling.vllm.worker import MAX_NEXT

Ids = Sequence[int]

ROWS = 4096
"""Responses of one request: vLLM itself decides how many are drawn side by side."""
TOKENS = 131_072
"""Tokens of one request to score, prompts included, at most; a single longer sequence goes alone."""
MEMORY = "PREFDIST_VLLM_MEMORY"
"""Share of the GPU's memory that vLLM may take, instead of the default."""
_LOGITS = 1 << 28
"""Elements of the logits that scoring holds at once: vLLM has those of all tokens of a pass, 1 GiB in float32."""
_SEQUENCES = 256
"""Sequences of a pass, at most."""
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM may be prepared for; an adapter of a lower rank fits too."""


class Vllm:
    """A model in vLLM.

    folder: as transformers' save_pretrained writes it. longest: tokens of the longest sequence, prompt and response.
    dtype: float32 or bfloat16. memory: share of a GPU's memory, unless PREFDIST_VLLM_MEMORY says another one; on CPUs
    VLLM_CPU_KVCACHE_SPACE has the GiB of the key-value cache, 1 by default. rank: of the largest adapter, 0 without any.
    device: the GPU, where it matters which. patience: seconds until a silent process counts as hanging.
    UserError if vLLM is not there or cannot load the model.
    """

    def __init__(
        self,
        folder: Path,
        *,
        longest: int,
        dtype: str = "float32",
        memory: float = 0.85,
        rank: int = 0,
        device: torch.device | None = None,
        patience: float = PATIENCE,
    ) -> None:
        from transformers import AutoConfig

        check_model_folder(folder)
        self.folder = folder
        self.config: Any = AutoConfig.from_pretrained(folder, local_files_only=True)
        # A prompt without room for its response is the caller's to refuse, with the prompt's name.
        self._longest = min(longest, getattr(self.config, "max_position_embeddings", longest))
        tokens = _LOGITS // self.config.vocab_size
        options: dict[str, Any] = {
            "model": str(folder.resolve()),
            "dtype": dtype,
            "max_model_len": self._longest,
            "gpu_memory_utilization": _share(memory),
            "max_num_seqs": _SEQUENCES,
            "max_num_batched_tokens": max(_SEQUENCES, min(8192, tokens)),
        }
        if rank:
            options |= {"enable_lora": True, "max_lora_rank": _prepared(rank)}
        self.process = Process(options, only(device, os.environ), patience=patience)

    @property
    def about(self) -> dict[str, Any]:
        """Version of vLLM."""
        return {"engine": "vllm", **self.process.about}

    def close(self) -> None:
        self.process.close()

    def reload(self, folder: Path) -> None:
        """Weights of the same architecture instead. vLLM may keep some of the old ones, so check (policy.py does)."""
        self.process.ask("reload", folder=str(folder.resolve()))

    def adapt(self, folder: Path | None) -> None:
        """With peft's adapter in `folder` from now on, or without one.

        UserError if log-probabilities are the same with and without it, although it was trained (its B is not zero).
        """
        first, *rest = range(min(16, self.config.vocab_size, self._longest))
        self.process.ask("adapt", folder=None)
        if folder is None:
            return
        without = response_logps(self, [[first]], [[rest]])
        self.process.ask("adapt", folder=str(folder.resolve()))
        if torch.equal(response_logps(self, [[first]], [[rest]])[0], without[0]) and _trained(folder):
            self.process.ask("adapt", folder=None)
            raise UserError(
                f"{folder}: vLLM loads this adapter, but nothing changes, although its B is not zero; its target_modules are "
                "not applied to this architecture: merge the adapter into the weights, or set engine to transformers"
            )


def sample(
    model: Vllm,
    prompts: Sequence[Ids],
    keys: Sequence[str],
    *,
    num_samples: int,
    max_new_tokens: int,
    stop_ids: Ids,
    sampler: Sampler = ANCESTRAL,
) -> list[list[Sample]]:
    """`num_samples` responses a prompt, as sampling.engine.sample draws them, from other random numbers.

    logq is vLLM's own, of the law after temperature and filters. logp at T = 1 is the same number for the plain law; for
    any other it is computed by a second pass over the finished responses. UserError for a law that vLLM does not have.
    """
    law = _law(sampler)
    each = max(1, ROWS // num_samples)
    drawn: list[list[list[Any]]] = []
    for start in range(0, len(prompts), each):
        part = [list(prompt) for prompt in prompts[start : start + each]]
        seeds = [[seed(key, i) for i in range(num_samples)] for key in keys[start : start + each]]
        # vLLM refuses ids that the model cannot draw.
        arguments = {"law": law, "stop_ids": [i for i in stop_ids if i < model.config.vocab_size], "budget": max_new_tokens}
        drawn += model.process.ask("sample", prompts=part, seeds=seeds, **arguments)["samples"]
    logqs = [[logq for _, logq in samples] for samples in drawn]
    logps = logqs
    if sampler != ANCESTRAL:
        responses = [[ids for ids, _ in samples] for samples in drawn]
        logps = [[math.fsum(y) for y in of_prompt] for of_prompt in token_logps(model, prompts, responses)]
    return [
        [Sample(ids, p, q, "stop" if ids[-1] in stop_ids else "length") for (ids, _), p, q in zip(*of_prompt, strict=True)]
        for of_prompt in zip(drawn, logps, logqs, strict=True)
    ]


def response_logps(model: Vllm, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> list[Tensor]:
    """ℓ at T = 1, summed over the tokens (EOS included), for each prompt's responses: a float32 tensor [n] a prompt."""
    return [torch.tensor([math.fsum(y) for y in ys]) for ys in token_logps(model, prompts, responses)]


def token_logps(model: Vllm, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]]) -> list[list[list[float]]]:
    """log π of every response token at T = 1, in nats: for each prompt and each of its responses, a list.

    All but the last are those of a prompt that holds them, the last is that of the token behind it: so a response may fill
    the model's context.
    """
    rows = [([*p, *y[:-1]], len(p), [y[-1]]) for p, ys in zip(prompts, responses, strict=True) for y in ys]
    scored = ([*inside, *last] for inside, last in _scored(model, rows))
    return [[next(scored) for _ in ys] for ys in responses]


def next_logps(model: Vllm, prompts: Sequence[Ids], tokens: Ids) -> Tensor:
    """log π of each of `tokens` as the next one behind each prompt [prompts, tokens] float32, such as a question's letters.

    ValueError for more than 128 tokens, or for one that is named twice.
    """
    if not len(set(tokens)) == len(tokens) <= MAX_NEXT:
        raise ValueError(f"tokens: vLLM gives at most {MAX_NEXT} different ones at a place, got {len(tokens)}")
    return torch.tensor([found for _, found in _scored(model, [(list(p), len(p), list(tokens)) for p in prompts])])


def seed(key: str, number: int) -> int:
    """Of the response with this number under a key: 56 bits."""
    return int.from_bytes(hashlib.sha256(f"{key}/{number}".encode()).digest()[:7], "little")


def only(device: torch.device | None, environment: Mapping[str, str]) -> dict[str, str]:
    """The variable that shows a process this GPU alone; none for the CPU, or where it does not matter which."""
    if device is None or device.type != "cuda" or device.index is None:
        return {}
    visible = environment.get("CUDA_VISIBLE_DEVICES")
    return {"CUDA_VISIBLE_DEVICES": visible.split(",")[device.index] if visible else str(device.index)}


def _scored(model: Vllm, rows: list[tuple[list[int], int, list[int]]]) -> Iterator[tuple[list[float], list[float]]]:
    start = 0
    while start < len(rows):
        stop, tokens = start + 1, len(rows[start][0])
        while stop < len(rows) and stop - start < ROWS and tokens + len(rows[stop][0]) <= TOKENS:
            tokens += len(rows[stop][0])
            stop += 1
        yield from model.process.ask("score", rows=rows[start:stop])["scored"]
        start = stop


def _law(sampler: Sampler) -> dict[str, float]:
    if reason := vllm_lacks(sampler.temperature, sampler.top_p, sampler.min_p):
        raise UserError(reason)
    return {"temperature": sampler.temperature, "top_k": sampler.top_k, "top_p": sampler.top_p, "min_p": sampler.min_p}


def _share(default: float) -> float:
    given = os.environ.get(MEMORY, str(default))
    try:
        share = float(given)
    except ValueError:
        share = math.nan
    if not 0 < share <= 1:
        raise UserError(
            f"{MEMORY}: {given!r} is no share of a GPU's memory; set it to a number above 0, at most 1, or unset it"
        )
    return share


def _prepared(rank: int) -> int:
    if rank > _RANKS[-1]:
        raise UserError(f"r: {rank} is more than vLLM's largest rank of an adapter, {_RANKS[-1]}; set engine to transformers")
    return next(known for known in _RANKS if rank <= known)


def _trained(folder: Path) -> bool:
    """Whether any B of an adapter is not zero: a new one is, and changes nothing."""
    from safetensors.torch import load_file

    tensors = load_file(folder / "adapter_model.safetensors")
    return any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name)
