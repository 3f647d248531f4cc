"""The only place where log-probabilities are shifted, masked and gathered.

The LM head is applied at the predicted positions alone, in chunks that are recomputed in the backward pass, so that
logits of [batch, length, vocabulary] never exist. Log-softmax is in float32 (float64 for float64 models). Left out:
sums over tokens (the callers state theirs) and sampling.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from prefdist.tokens import Packed

CHUNK_ELEMENTS = 1 << 24
"""Logits held at once (64 MiB in float32): large enough to keep matrix products busy, small beside any model. Not less:
glibc keeps blocks below 32 MiB in a heap that fragments, which at a vocabulary of 50 000 grew by 1.5 GB."""


def sequence_logprobs(
    model: nn.Module, input_ids: Tensor, attention_mask: Tensor, response_mask: Tensor, *, temperature: float = 1.0
) -> Tensor:
    """log p(input_ids[:, t] | before) at logits/temperature where response_mask is set, 0 elsewhere: [B, T] in nats.

    All arguments are [B, T]; padding on either side. ValueError if the first token of a row is asked for.
    """
    wanted = response_mask.bool()
    if bool(wanted[:, 0].any()):
        raise ValueError("response_mask selects position 0, which nothing predicts: start the sequence with BOS")
    positions = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
    hidden = _backbone(model)(
        input_ids=input_ids, attention_mask=attention_mask, position_ids=positions, use_cache=False
    ).last_hidden_state
    rows, columns = wanted.nonzero(as_tuple=True)
    logps = token_logprobs(_head(model), hidden[rows, columns - 1], input_ids[rows, columns], temperature=temperature)
    return logps.new_zeros(wanted.shape).index_put((rows, columns), logps)


def packed_logprobs(model: nn.Module, packed: Packed, *, temperature: float = 1.0) -> Tensor:
    """Token log-probabilities [R, n, T] in nats of packed rows (prompt · response · … · response), 0 outside packed.mask."""
    hidden, _ = packed_hidden(model, packed)
    logps = token_logprobs(_head(model), hidden, packed.targets[packed.mask], temperature=temperature)
    return logps.new_zeros(packed.mask.shape).masked_scatter(packed.mask, logps)


def packed_laws(model: nn.Module, packed: Packed) -> Tensor:
    """Log-softmax [N, V] in nats at the N predicted positions, in the order of packed.mask: all of it, for a few responses."""
    hidden, _ = packed_hidden(model, packed)
    return _logits(_head(model), hidden).log_softmax(-1)


def packed_token_kl(teacher: nn.Module, student: nn.Module, packed: Packed, *, forward: bool) -> Tensor:
    """KL between two models' laws of every next response token [R, n, T] in nats, 0 outside packed.mask.

    forward: KL(teacher‖student), else KL(student‖teacher); differentiable in the student. The models share a vocabulary.
    """
    with torch.no_grad():
        of_teacher, _ = packed_hidden(teacher, packed)
    of_student, _ = packed_hidden(student, packed)
    heads = (_head(teacher), _head(student)) if forward else (_head(student), _head(teacher))
    hidden = (of_teacher, of_student) if forward else (of_student, of_teacher)
    chunk = max(1, CHUNK_ELEMENTS // (2 * heads[0].out_features))
    pieces = [
        checkpoint(_token_kl, *heads, p, q, use_reentrant=False)
        for p, q in zip(hidden[0].split(chunk), hidden[1].split(chunk), strict=True)
    ]
    divergences = torch.cat(pieces)
    return divergences.new_zeros(packed.mask.shape).masked_scatter(packed.mask, divergences)


def _token_kl(p_head: Any, q_head: Any, p_hidden: Tensor, q_hidden: Tensor) -> Tensor:
    """KL(p‖q) of softmax(head(hidden)), hidden [N, d] each -> [N]."""
    log_p, log_q = (_logits(head, hidden).log_softmax(-1) for head, hidden in ((p_head, p_hidden), (q_head, q_hidden)))
    return (log_p.exp() * (log_p - log_q)).sum(-1)


def packed_hidden(model: nn.Module, packed: Packed) -> tuple[Tensor, Tensor]:
    """Hidden states [N, d] that predict the N response tokens, in the order of packed.mask, and all of them [R, L, d]."""
    backbone = _backbone(model)
    hidden = backbone(
        input_ids=packed.input_ids,
        attention_mask=_attention_masks(backbone, packed),
        position_ids=packed.position_ids,
        use_cache=False,
    ).last_hidden_state
    rows = packed.mask.nonzero(as_tuple=True)[0]
    return hidden[rows, packed.predictors[packed.mask]], hidden


def _attention_masks(backbone: Any, packed: Packed) -> Any:
    """The mask [R, 1, L, L] as the model's attention takes it; of models with layers of several kinds, one a kind."""
    config, seen = backbone.config, packed.attention_mask()

    def prepared(mask: Tensor) -> Tensor:
        if config._attn_implementation != "eager":
            return mask
        # Eager attention adds its mask to the scores. Every row sees itself, so the least number never stands alone.
        added = torch.zeros(mask.shape, dtype=backbone.dtype, device=mask.device)
        return added.masked_fill(~mask, torch.finfo(backbone.dtype).min)

    window = getattr(config, "sliding_window", None)
    if window is None:
        return prepared(seen)
    # Measured in positions, which restart behind the prompt: in the row, other responses stand in between.
    distance = packed.position_ids.unsqueeze(2) - packed.position_ids.unsqueeze(1)
    near = prepared(seen & (distance < window).unsqueeze(1))
    if not getattr(config, "layer_types", None):
        return near  # Mistral: every layer has the window
    return {"full_attention": prepared(seen), "sliding_attention": near}


def token_logprobs(head: Any, hidden: Tensor, targets: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(head(hidden)/temperature)[targets]: hidden [N, d], targets [N] -> [N], float32 or better."""
    chunk = max(1, CHUNK_ELEMENTS // head.out_features)
    if len(targets) <= chunk:
        return _gathered(head, hidden, targets, temperature)
    recompute = torch.is_grad_enabled()
    pieces = []
    for part, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True):
        if recompute:
            pieces.append(checkpoint(_gathered, head, part, wanted, temperature, use_reentrant=False))
        else:
            pieces.append(_gathered(head, part, wanted, temperature))
    return torch.cat(pieces)


def _gathered(head: Any, hidden: Tensor, targets: Tensor, temperature: float) -> Tensor:
    logits = _logits(head, hidden)
    if temperature != 1.0:
        logits = logits / temperature
    return logits.gather(-1, targets.unsqueeze(-1)).squeeze(-1) - logits.logsumexp(-1)


def _logits(head: Any, hidden: Tensor) -> Tensor:
    """In float32, or float64 for float64 models."""
    logits: Tensor = head(hidden)
    return logits if logits.dtype == torch.float64 else logits.float()


def _causal_lm(model: Any) -> Any:
    """The transformers model inside a LoRA wrapper, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _backbone(model: nn.Module) -> Any:
    return _causal_lm(model).base_model


def _head(model: nn.Module) -> Any:
    inner = _causal_lm(model)
    if getattr(inner.config, "final_logit_softcapping", None):
        return _SoftCapped(inner.get_output_embeddings(), inner.config.final_logit_softcapping)
    return inner.get_output_embeddings()


class _SoftCapped(nn.Module):
    """Gemma-2's head: cap·tanh(logits/cap)."""

    def __init__(self, head: nn.Linear, cap: float) -> None:
        super().__init__()
        self.head, self.cap, self.out_features = head, cap, head.out_features

    def forward(self, hidden: Tensor) -> Tensor:
        return self.cap * torch.tanh(self.head(hidden) / self.cap)
