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
ROW_TOKENS = 1024
"""Tokens of a packed row, where it holds several responses: attention grows with the square of them."""

Ids = Sequence[int]


def response_logps(
    model: Any, prompts: Sequence[Ids], responses: Sequence[Sequence[Ids]], *, pad_id: int, temperature: float = 1.0
) -> list[Tensor]:
    """ℓ at logits/temperature, summed over the tokens (EOS included), for each prompt's responses: float32 [n] a prompt."""

    def score(packed: Packed) -> Tensor:
        return packed_logprobs(model, packed, temperature=temperature).sum(-1)

    return _in_batches(score, model, prompts, responses, pad_id)


def next_logps(model: Any, prompts: Sequence[Ids], tokens: Ids) -> Tensor:
    """log π of each of `tokens` as the next one behind each prompt [prompts, tokens] float32, such as a question's letters."""
    # Each token is a response of its own, so that one pass over a prompt gives all of them.
    return torch.stack(response_logps(model, prompts, [[[token] for token in tokens]] * len(prompts), pad_id=0))


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
    parts = [(i, some) for i, (p, ys) in enumerate(zip(prompts, responses, strict=True)) for some in _rows(len(p), ys)]
    lengths = [len(prompts[i]) + sum(map(len, ys)) for i, ys in parts]
    # Rows of one batch have the same number of responses and about the same length.
    order = sorted(range(len(parts)), key=lambda k: (len(parts[k][1]), lengths[k]))
    scored: list[Tensor] = [torch.empty(0)] * len(parts)
    start = 0
    while start < len(order):
        stop = start + 1
        n = len(parts[order[start]][1])
        while stop < len(order) and len(parts[order[stop]][1]) == n and lengths[order[stop]] * (stop - start) < TOKENS:
            stop += 1
        batch = order[start:stop]
        packed = pack([prompts[parts[k][0]] for k in batch], [parts[k][1] for k in batch], pad_id=pad_id).to(device)
        for k, row in zip(batch, score(packed).float().cpu(), strict=True):
            scored[k] = row
        start = stop
    results: list[list[Tensor]] = [[] for _ in prompts]
    for (i, _), row in zip(parts, scored, strict=True):
        results[i].append(row)
    return [torch.cat(rows) for rows in results]


def _rows(prompt: int, responses: Sequence[Ids]) -> list[Sequence[Ids]]:
    """The responses to a prompt of so many tokens, in as few equal rows of ROW_TOKENS as hold them."""
    total = sum(map(len, responses))
    each = max(1, (ROW_TOKENS - prompt) * len(responses) // total) if prompt + total > ROW_TOKENS else len(responses)
    each = max(1, -(-len(responses) // -(-len(responses) // each)))
    return [responses[start : start + each] for start in range(0, len(responses), each)]
