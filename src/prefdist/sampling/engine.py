"""Ancestral sampling with transformers: prompts computed once for all their samples, finished rows dropped.

Each token is the inverse of the cumulative distribution at one uniform number, and the numbers of a response are a pure
function of a key. A response therefore depends on the model, its prompt and its key only: not on the batch it was drawn
in, the number of processes or where a run was resumed.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefdist.sampling.law import ANCESTRAL, Sampler

ROWS = 512
"""Responses drawn side by side, at most."""
TOKENS = 65_536
"""Tokens of these responses and their prompts, at most: bounds the key-value cache. One prompt's are never drawn apart."""


@dataclass(frozen=True)
class Sample:
    """One response. `finish_reason` is stop (its last token is a stop id) or length (it filled its budget, no stop id).

    logp: natural log at T = 1, summed over the tokens including the stop id. logq: the same of the law drawn from, after
    temperature and filters.
    """

    token_ids: list[int]
    logp: float
    logq: float
    finish_reason: str


def uniforms(key: str, num_samples: int, length: int) -> Tensor:
    """Numbers in [0, 1) [num_samples, length], a pure function of the key."""
    seed = int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "little")
    return torch.rand(num_samples, length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@torch.no_grad()
def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    keys: Sequence[str],
    *,
    num_samples: int,
    max_new_tokens: int,
    stop_ids: Sequence[int],
    sampler: Sampler = ANCESTRAL,
) -> list[list[Sample]]:
    """`num_samples` responses a prompt. One key a prompt; equal keys give equal numbers.

    model: a causal language model of transformers, or a pair of them (contrastive.Pair).
    stop_ids: each of them ends a response, as its last token.
    sampler: the law of each token, given the model's logits.
    """
    results: list[list[Sample]] = [[] for _ in prompts]
    for batch in _batches([len(prompt) for prompt in prompts], num_samples, max_new_tokens):
        noise = torch.stack([uniforms(keys[i], num_samples, max_new_tokens) for i in batch])
        drawn = _sample_batch(model, [prompts[i] for i in batch], noise, stop_ids, sampler)
        for i, samples in zip(batch, drawn, strict=True):
            results[i] = samples
    return results


def _batches(lengths: Sequence[int], num_samples: int, budget: int) -> Iterator[list[int]]:
    """Indices of prompts of similar length, for little padding, as many as ROWS and TOKENS allow."""
    batch: list[int] = []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        rows = (len(batch) + 1) * num_samples
        if batch and (rows > ROWS or rows * (lengths[i] + budget) > TOKENS):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def left_padded(prompts: Sequence[Sequence[int]], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Token ids, attention mask and positions [B, T] of prompts that end in the same column."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts], device=device)
    return ids, attention, positions_of(attention)


def positions_of(attention: Tensor) -> Tensor:
    """Positions [B, T] that start at 0 where a row's attention mask does; 0 in the padding before."""
    return (attention.cumsum(-1) - 1).clamp_min(0)


def _sample_batch(
    model: Any, prompts: list[Sequence[int]], noise: Tensor, stop_ids: Sequence[int], sampler: Sampler
) -> list[list[Sample]]:
    device = next(model.parameters()).device
    n_prompts, n, budget = noise.shape
    noise = noise.view(n_prompts * n, budget).to(device)
    ids, attention, positions = left_padded(prompts, device)
    output = model(input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=True, logits_to_keep=1)
    cache = output.past_key_values
    cache.batch_repeat_interleave(n)
    logits = output.logits[:, -1].repeat_interleave(n, dim=0)
    attention = attention.repeat_interleave(n, dim=0)
    position = positions[:, -1].repeat_interleave(n, dim=0)
    alive = torch.arange(n_prompts * n, device=device)
    tokens = torch.zeros(n_prompts * n, budget, dtype=torch.long, device=device)
    stops = torch.tensor(stop_ids, device=device)
    logps = torch.zeros(n_prompts * n, 2, dtype=torch.float64, device=device)
    lengths = torch.full((n_prompts * n,), budget, device=device)
    for t in range(budget):
        chosen, chosen_logps = _draw(logits, noise[alive, t], sampler)
        tokens[alive, t] = chosen
        logps[alive] += chosen_logps
        going_on = ~torch.isin(chosen, stops)
        lengths[alive[~going_on]] = t + 1
        if t + 1 == budget or not bool(going_on.any()):
            break
        kept = going_on.nonzero().squeeze(-1)
        if len(kept) < len(alive):
            cache.batch_select_indices(kept)
            alive, attention, position, chosen = alive[kept], attention[kept], position[kept], chosen[kept]
        position = position + 1
        attention = torch.cat([attention, attention.new_ones(len(kept), 1)], dim=-1)
        output = model(
            input_ids=chosen.unsqueeze(-1),
            attention_mask=attention,
            position_ids=position.unsqueeze(-1),
            past_key_values=cache,
            use_cache=True,
        )
        logits = output.logits[:, -1]
    return _collect(tokens.tolist(), logps.tolist(), lengths.tolist(), stop_ids, n)


def _draw(logits: Tensor, noise: Tensor, sampler: Sampler) -> tuple[Tensor, Tensor]:
    """Tokens at the noise's quantiles of the sampler's law, and of each log π at T = 1 and log of the law.

    [B, V], [B] -> [B], [B, 2]. log π is that of all tokens, filtered out or not.
    """
    logps = logits.float().log_softmax(-1)
    weights = sampler.weights(logps)
    cumulative = weights.cumsum(-1)
    quantile = noise.unsqueeze(-1) * cumulative[:, -1:]
    chosen = torch.searchsorted(cumulative, quantile, right=True).clamp_max(logits.shape[-1] - 1)
    of_law = weights.gather(-1, chosen).log() - cumulative[:, -1:].log()
    return chosen.squeeze(-1), torch.cat([logps.gather(-1, chosen).double(), of_law], dim=-1)


def _collect(
    tokens: list[list[int]], logps: list[list[float]], lengths: list[int], stop_ids: Sequence[int], n: int
) -> list[list[Sample]]:
    samples = []
    for row, (logp, logq), length in zip(tokens, logps, lengths, strict=True):
        ids = row[:length]
        samples.append(Sample(ids, logp, logq, "stop" if ids[-1] in stop_ids else "length"))
    return [samples[i : i + n] for i in range(0, len(samples), n)]
