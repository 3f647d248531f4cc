"""Responses of a model as rows of a table."""

from collections.abc import Callable
from typing import Any

from prefdist.errors import UserError
from prefdist.sampling.engine import Sample, sample
from prefdist.sampling.law import ANCESTRAL, Sampler
from prefdist.tokens import TextCodec

Row = dict[str, Any]


def draw(model: Any, codec: TextCodec, prompts: list[Row], key: str, **options: Any) -> list[Row]:
    """Rows of the responses table; arguments and errors as of `draw_with_law`."""
    rows = draw_with_law(model, codec, prompts, key, **options)
    return [{name: value for name, value in row.items() if name != "logq"} for row in rows]


def draw_with_law(
    model: Any,
    codec: TextCodec,
    prompts: list[Row],
    key: str,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampler: Sampler = ANCESTRAL,
    sample: Callable[..., list[list[Sample]]] = sample,
) -> list[Row]:
    """Rows of the table of draws, `num_samples` for each row of the prompts table, in their order.

    sample: of the model's engine (engines.py). UserError, before any is drawn, for a prompt that leaves no room for its
    response.
    """
    check_context(model, codec, prompts, max_new_tokens)
    drawn = sample(
        model,
        [codec.prompt(row["prompt"]) for row in prompts],
        [f"{key}/{row['prompt_id']}" for row in prompts],
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        stop_ids=codec.stop_ids,
        sampler=sampler,
    )
    return [
        {
            "prompt_id": row["prompt_id"],
            "sample": i,
            "token_ids": s.token_ids,
            "text": codec.decode(s.token_ids),
            "finish_reason": s.finish_reason,
            "n_tokens": len(s.token_ids),
            "logp": s.logp,
            "logq": s.logq,
        }
        for row, samples in zip(prompts, drawn, strict=True)
        for i, s in enumerate(samples)
    ]


def check_context(model: Any, codec: TextCodec, prompts: list[Row], max_new_tokens: int) -> None:
    """UserError, naming the prompt, if one and a response of max_new_tokens are longer than the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    for row in prompts:
        length = len(codec.prompt(row["prompt"]))
        if context is not None and length + max_new_tokens > context:
            raise UserError(
                f"{codec.folder}: prompt {row['prompt_id']!r} has {length} tokens, which with max_new_tokens {max_new_tokens} "
                f"is more than the model's context (max_position_embeddings), {context}; lower max_new_tokens or leave the "
                "prompt out"
            )
