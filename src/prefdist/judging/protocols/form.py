"""What a protocol of judging is: what is asked, and how a reply is read."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from prefdist.judging.comparisons import Comparison

Message = dict[str, str]
"""role and content, as of OpenAI's chat completions."""


@dataclass(frozen=True)
class Reply:
    """What an endpoint said. `top_logprobs`: the likeliest first tokens and their log-probabilities in nats, where asked for.

    Token counts are the endpoint's own, None where it does not tell.
    """

    text: str
    top_logprobs: dict[str, float] | None = None
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Reading:
    """A reply that could be read: of a comparison the share of a win, in [0, 1], of the answer shown first; else a rating.

    weight: how many battles it counts as.
    """

    value: float
    weight: float = 1.0


@dataclass(frozen=True)
class Protocol:
    """ask(comparison, turn, shown): messages; `shown` are the two answers in the order of showing, empty where none is
    compared. read(reply): None where the reply says nothing that the protocol knows; nothing is ever guessed."""

    ask: Callable[[Comparison, int, Sequence[str]], list[Message]]
    read: Callable[[Reply], Reading | None]
    compares: bool
    turns: tuple[int, ...]
    max_tokens: int
    temperature: float
    top_logprobs: int = 0
