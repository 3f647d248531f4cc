"""Contrastive decoding: the next token from a weighted difference of two models' log-probabilities.

logits = a·log-softmax(θ) − b·log-softmax(ref), at each token. `Pair` is drawn from by engine.sample; `ContrastiveLogits` is the
same for transformers' `generate`. Both keep the reference's own key-value cache.

a = 1 + c, b = c strengthens a tuned θ by the factor 1 + c, and c < 0 leads back to its reference (Huang's note; DeRa,
arXiv 2402.02992). The law of whole responses is p_θ^a·p_ref^{−b} only approximately, because every token is normalised on its
own (exact/contrastive.py measures by how much). Left out: an amateur's temperature, models of two tokenizers.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LogitsProcessor
from transformers.modeling_outputs import CausalLMOutputWithPast

from prefdist.errors import UserError
from prefdist.sampling.engine import positions_of


@dataclass(frozen=True)
class Contrast:
    """The weights a of θ and b of the reference, and which tokens are plausible.

    plausibility: tokens below this share of π_θ's largest probability, at T = 1, cannot come (Li et al. 2022, arXiv 2210.15097,
        Eq. 2). Without it (0) a token that both models find absurd can win. ValueError outside [0, 1].
    """

    a: float
    b: float
    plausibility: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.plausibility <= 1:
            raise ValueError(f"plausibility must lie in [0, 1], got {self.plausibility}: 0 allows all tokens")

    def logits(self, policy: Tensor, reference: Tensor) -> Tensor:
        """Unnormalised: logits of both [..., V] -> [..., V] float32, minus infinity for implausible tokens."""
        log_policy = policy.float().log_softmax(-1)
        contrasted = torch.zeros_like(log_policy)
        if self.a:  # a weight of 0 leaves a model out, also where its log-probabilities are infinite
            contrasted = self.a * log_policy
        if self.b:
            contrasted = contrasted - self.b * reference.float().log_softmax(-1)
        if self.plausibility:
            # Relative to the largest in probabilities, not in logarithms, so that 1 keeps what ties with it.
            share = (log_policy - log_policy.amax(-1, keepdim=True)).exp()
            contrasted = contrasted.masked_fill(share < self.plausibility, -torch.inf)
        return contrasted


class Pair(nn.Module):
    """Two causal language models of one vocabulary that engine.sample draws from as from one.

    A sample's logp is that of the contrasted law. UserError where the vocabularies differ in size.
    """

    def __init__(self, policy: Any, reference: Any, contrast: Contrast) -> None:
        super().__init__()
        _check_vocabulary(reference, policy.config.vocab_size)
        self.policy, self.reference, self.contrast = policy, reference, contrast

    @property
    def config(self) -> Any:
        """That of the model with the shorter context; some models have no limit."""
        configs = (self.policy.config, self.reference.config)
        return min(configs, key=lambda config: getattr(config, "max_position_embeddings", math.inf))

    def forward(self, *, past_key_values: "_Caches | None" = None, **inputs: Any) -> CausalLMOutputWithPast:
        """Contrasted logits [B, T, V] of a call with the arguments of transformers' models."""
        caches = (None, None) if past_key_values is None else past_key_values.caches
        outputs = [
            model(**inputs, past_key_values=cache) for model, cache in zip((self.policy, self.reference), caches, strict=True)
        ]
        logits = self.contrast.logits(*(output.logits for output in outputs))
        kept: Any = _Caches(tuple(output.past_key_values for output in outputs))
        return CausalLMOutputWithPast(logits=logits, past_key_values=kept)


@dataclass(frozen=True)
class _Caches:
    """The caches of both models, whose rows are repeated and dropped together."""

    caches: tuple[Any, ...]

    def batch_repeat_interleave(self, repeats: int) -> None:
        for cache in self.caches:
            cache.batch_repeat_interleave(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        for cache in self.caches:
            cache.batch_select_indices(indices)


class ContrastiveLogits(LogitsProcessor):
    """For `generate(logits_processor=[...])`: θ's logits become the contrasted ones, before temperature and filters.

    attention_mask: of the prompts [B, T], as given to `generate`, padded on the left; it cannot be told from the ids. With
        several sequences a prompt its rows are repeated. Rows that beams reorder are computed anew, which is right but slow.
    """

    def __init__(self, reference: Any, a: float, b: float, plausibility: float = 0.0, *, attention_mask: Tensor) -> None:
        self.reference, self.contrast = reference, Contrast(a, b, plausibility)
        self.attention_mask = attention_mask
        self._seen: Tensor | None = None
        self._cache: Any = None

    @torch.no_grad()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Ids so far [B, T] and θ's logits [B, V] -> [B, V].

        ValueError: the ids do not go on from the mask's prompts. UserError: the reference has another vocabulary.
        """
        _check_vocabulary(self.reference, scores.shape[-1])
        attention = self._attention(input_ids)
        grown = self._seen is not None and torch.equal(self._seen, input_ids[:, :-1])
        start = input_ids.shape[1] - 1 if grown else 0
        output = self.reference(
            input_ids=input_ids[:, start:],
            attention_mask=attention,
            position_ids=positions_of(attention)[:, start:],
            past_key_values=self._cache if grown else None,
            use_cache=True,
            logits_to_keep=1,
        )
        self._cache, self._seen = output.past_key_values, input_ids.clone()
        return self.contrast.logits(scores, output.logits[:, -1])

    def _attention(self, input_ids: Tensor) -> Tensor:
        """The prompts' mask, and 1 for every token generated since."""
        (rows, width), (given, of_prompts) = input_ids.shape, self.attention_mask.shape
        if rows % given or width < of_prompts:
            raise ValueError(f"ids [{rows}, {width}] do not go on from prompts [{given}, {of_prompts}] of attention_mask")
        mask = self.attention_mask.to(input_ids.device).long().repeat_interleave(rows // given, dim=0)
        return torch.cat([mask, mask.new_ones(rows, width - of_prompts)], dim=-1)


def _check_vocabulary(reference: Any, size: int) -> None:
    config = reference.config
    if config.vocab_size != size:
        raise UserError(
            f"contrastive decoding needs one vocabulary, but the model has {size} tokens and the reference "
            f"{config.name_or_path or config.model_type} has {config.vocab_size}; take two models of one tokenizer"
        )
