"""AlpacaEval 2: the probability that a judge's first token prefers one of two answers (Dubois et al. 2024, arXiv 2404.04475).

The answers are called m and M, and P(first wins) = P(m) / (P(m) + P(M)), from the log-probabilities of the first token. As of
alpaca_eval's `weighted_alpaca_eval_gpt4_turbo`: one token, five log-probabilities; a letter that is not among the five has
probability 0. Two things differ, for the sake of local servers. The temperature is 0, not 1: log-probabilities do not depend on
it, but vLLM lists the token drawn in place of the fifth likeliest, unless it is one of the five. And a letter with a space
before it counts as that letter, since in vocabularies of SentencePiece words begin so. The prompt is in our words, not the
published ones.
"""

import math
from collections.abc import Sequence

from prefdist.judging.comparisons import Comparison
from prefdist.judging.protocols.form import Message, Protocol, Reading, Reply

FIRST, SECOND = "m", "M"
SYSTEM = (
    "You rank answers of language models to instructions, as most people would rank them. You reply with the name of a model "
    "and nothing else."
)
USER = """\
Two language models, named "m" and "M", were given the same instruction. Decide which of their answers most people would prefer.

# Instruction

{instruction}

# Answer of model m

{first}

# Answer of model M

{second}

# Your task

Reply with the name of the model whose answer is better: m or M. Write this one letter only, no quotes, spaces or line breaks.
"""


def ask(comparison: Comparison, turn: int, shown: Sequence[str]) -> list[Message]:
    user = USER.format(instruction=comparison.prompt, first=shown[0], second=shown[1])
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": user}]


def read(reply: Reply) -> Reading | None:
    """From the log-probabilities alone, since the sampled letter says less. None where neither letter is among them."""
    told = (reply.top_logprobs or {}).items()
    first, second = (sum(math.exp(logprob) for token, logprob in told if token.strip() == name) for name in (FIRST, SECOND))
    return Reading(first / (first + second)) if first + second > 0 else None


PROTOCOL = Protocol(ask, read, compares=True, turns=(1,), max_tokens=1, temperature=0.0, top_logprobs=5)
