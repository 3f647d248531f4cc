"""Responses of a model as rows of a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from prefdist.errors import UserError
from prefdist.sampling.engine import Sample, sample
from prefdist.sampling.law import ANCESTRAL, Sampler
from prefdist.tokens import TextCodec

Row = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A prompt as ids. `sample`: of a second turn, the answer that it follows; what is drawn goes by that number."""

    prompt_id: str
    ids: list[int]
    sample: int | None = None

    @property
    def name(self) -> str:
        """What its random numbers depend on, beside the key."""
        return self.prompt_id if self.sample is None else f"{self.prompt_id}/{self.sample}"


def asked(codec: TextCodec, prompts: Sequence[Row]) -> list[Asked]:
    """Rows of the prompts table, each one user turn."""
    return [Asked(row["prompt_id"], codec.prompt(row["prompt"])) for row in prompts]


def draw(model: Any, codec: TextCodec, prompts: list[Row], key: str, **options: Any) -> list[Row]:
    """Rows of the responses table to rows of the prompts table; arguments and errors as of `draw_with_law`."""
    rows = draw_with_law(model, codec, asked(codec, prompts), key, **options)
    return [{name: value for name, value in row.items() if name != "logq"} for row in rows]


def draw_with_law(
    model: Any,
    codec: TextCodec,
    prompts: Sequence[Asked],
    key: str,
    *,
    num_samples: int,
    max_new_tokens: int,
    sampler: Sampler = ANCESTRAL,
    sample: Callable[..., list[list[Sample]]] = sample,
) -> list[Row]:
    """Rows of the table of draws, `num_samples` for each prompt, in their order.

    sample: of the model's engine (engines.py). UserError, before any is drawn, for a prompt that leaves no room for its
    response.
    """
    check_context(model, codec, prompts, max_new_tokens)
    drawn = sample(
        model,
        [prompt.ids for prompt in prompts],
        [f"{key}/{prompt.name}" for prompt in prompts],
        num_samples=num_samples,
        max_new_tokens=max_new_tokens,
        stop_ids=codec.stop_ids,
        sampler=sampler,
    )
    return [
        {
            "prompt_id": prompt.prompt_id,
            "sample": i if prompt.sample is None else prompt.sample,
            "token_ids": s.token_ids,
            "text": codec.decode(s.token_ids),
            "finish_reason": s.finish_reason,
            "n_tokens": len(s.token_ids),
            "logp": s.logp,
            "logq": s.logq,
        }
        for prompt, samples in zip(prompts, drawn, strict=True)
        for i, s in enumerate(samples)
    ]


def check_context(model: Any, codec: TextCodec, prompts: Sequence[Asked], max_new_tokens: int) -> None:
    """UserError, naming the prompt, if one and a response of max_new_tokens are longer than the model's context."""
    context = getattr(model.config, "max_position_embeddings", None)
    for prompt in prompts:
        if context is not None and len(prompt.ids) + max_new_tokens > context:
            raise UserError(
                f"{codec.folder}: prompt {prompt.name!r} has {len(prompt.ids)} tokens, which with max_new_tokens "
                f"{max_new_tokens} is more than the model's context (max_position_embeddings), {context}; lower "
                "max_new_tokens or leave the prompt out"
            )
