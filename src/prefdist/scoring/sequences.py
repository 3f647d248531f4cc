"""Sequence log-probabilities and rewards of many responses, in batches of similar length."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from prefdist.logprobs import packed_laws, packed_logprobs
from prefdist.models import Scorer
from prefdist.tokens import Packed, pack

TOKENS = 8192
"""Tokens of a batch, padding included."""

Ids = Sequence[int]


def response_logps(model: Any, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int) -> list[Tensor]:
    """ℓ at T = 1, summed over the tokens (EOS included), for each prompt's responses: a float32 tensor [n] a prompt."""
    return _in_batches(lambda packed: packed_logprobs(model, packed).sum(-1), model, prompts, responses, pad_id)


def response_logps_and_ends(
    model: Any, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int
) -> list[Tensor]:
    """ℓ as above and the log-probability of each response's last token alone: a float32 tensor [n, 2] a prompt."""

    def score(packed: Packed) -> Tensor:
        logps = packed_logprobs(model, packed)
        last = logps.gather(-1, packed.n_tokens.unsqueeze(-1) - 1)
        return torch.cat([logps.sum(-1, keepdim=True), last], dim=-1)

    return _in_batches(score, model, prompts, responses, pad_id)


@torch.no_grad()
def response_laws(model: Any, prompts: Sequence[Ids], responses: Sequence[Ids], *, pad_id: int) -> Tensor:
    """Log-softmax at every token of one response a prompt, one after another: [tokens in all, V] float32."""
    device = next(model.parameters()).device
    longest = max(len(p) + len(y) for p, y in zip(prompts, responses, strict=True))
    size = max(1, TOKENS // longest)
    laws = []
    for start in range(0, len(prompts), size):
        part = [[y] for y in responses[start : start + size]]
        laws.append(packed_laws(model, pack(prompts[start : start + size], part, pad_id=pad_id).to(device)).cpu())
    return torch.cat(laws)


def response_rewards(
    scorer: Scorer, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int
) -> list[Tensor]:
    """r̂ for each prompt's responses: a float32 tensor [n] a prompt."""
    return _in_batches(scorer.rewards, scorer, prompts, responses, pad_id)


@torch.no_grad()
def _in_batches(
    score: Callable[[Packed], Tensor],
    model: Any,
    prompts: Sequence[Ids],
    responses: Sequence[Sequence[Ids]],
    pad_id: int,
) -> list[Tensor]:
    device = next(model.parameters()).device
    lengths = [len(p) + sum(map(len, ys)) for p, ys in zip(prompts, responses, strict=True)]
    # Rows of one batch have the same number of responses and about the same length.
    order = sorted(range(len(prompts)), key=lambda i: (len(responses[i]), lengths[i]))
    results: list[Tensor] = [torch.empty(0)] * len(prompts)
    start = 0
    while start < len(order):
        stop = start + 1
        n = len(responses[order[start]])
        while stop < len(order) and len(responses[order[stop]]) == n and lengths[order[stop]] * (stop - start) < TOKENS:
            stop += 1
        batch = order[start:stop]
        packed = pack([prompts[i] for i in batch], [responses[i] for i in batch], pad_id=pad_id).to(device)
        for i, row in zip(batch, score(packed).float().cpu(), strict=True):
            results[i] = row
        start = stop
    return results
