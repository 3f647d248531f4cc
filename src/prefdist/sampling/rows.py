"""Responses of a model as rows of a table."""

from typing import Any

from prefdist.sampling.engine import sample
from prefdist.tokens import TextCodec


def draw(
    model: Any,
    codec: TextCodec,
    prompts: list[dict[str, Any]],
    key: str,
    *,
    num_samples: int,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
) -> list[dict[str, Any]]:
    """Rows of the responses table, `num_samples` for each row of the prompts table, in their order."""
    drawn = sample(
        model,
        [codec.prompt(row["prompt"]) for row in prompts],
        [f"{key}/{row['prompt_id']}" for row in prompts],
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        eos_id=codec.eos_id,
        temperature=temperature,
        top_p=top_p,
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
        }
        for row, samples in zip(prompts, drawn, strict=True)
        for i, s in enumerate(samples)
    ]
