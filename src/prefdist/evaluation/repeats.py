"""Prompts behind many repeats of one token, their controls, and how far a tuned model is from its base there.

Huang's note asks whether repeats, which web corpora hold and chats do not, make a tuned model behave like its base. Inside the
repeats both models predict the next one almost surely, so their divergence falls to zero whatever is true. Therefore every
context ends with a separator and the prompt, and what is measured begins at the first token after them. Controls of the same
length tell repeats from mere distance: random tokens, and natural text.
Left out: drawing continuations (sampling/), the fit of λ (interpolation.py), classifiers (two_samples.py).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from prefdist.sampling.engine import left_padded

REPEATS = (0, 1, 2, 4, 8, 16, 32, 64)
KINDS = ("repeats", "random", "text")
Ids = Sequence[int]


@dataclass(frozen=True)
class Context:
    """Token ids to be continued, what fills them up (one of KINDS), and by how many tokens k."""

    kind: str
    k: int
    ids: list[int]


def contexts(
    prompt: Ids,
    token: int,
    *,
    start: Ids,
    separator: Ids,
    random_from: Ids,
    text: Ids,
    rng: np.random.Generator,
    repeats: Sequence[int] = REPEATS,
) -> list[Context]:
    """start · k filling tokens · separator · prompt, for each k and kind; for k = 0 the kinds are one and the same context.

    Args:
        prompt: without BOS. Its last token should not be `token`.
        token: what is repeated.
        start, separator: before and after the filling tokens: BOS or nothing; a newline, or end and start of a document.
        random_from: ids that the control `random` draws uniformly and independently, such as all but the special ones.
        text: ids of natural text; the control `text` is a window of it at a random place.
        rng: of both controls. The k tokens of a control begin with those of the smaller k, as repeats do.
        repeats: the values of k.

    Raises:
        ValueError: an empty prompt or separator (the first token measured would stand inside the repeats), a separator that
            begins with `token` (it would be one more repeat), a negative k, nothing to draw from, or a text shorter than k.
    """
    longest = max(repeats, default=0)
    if not (len(prompt) and len(separator)):
        raise ValueError("prompt and separator must not be empty: what is measured must begin after the repeats")
    if separator[0] == token:
        raise ValueError(f"separator begins with the repeated token {token}: take another one")
    if min(repeats, default=0) < 0:
        raise ValueError(f"repeats must be ≥ 0, got {min(repeats)}")
    if not len(random_from) or len(text) < longest:
        raise ValueError(f"controls need ids to draw from, got {len(random_from)}, and {longest} of a text, got {len(text)}")
    window = int(rng.integers(len(text) - longest + 1))
    fillings = {
        "repeats": [token] * longest,
        "random": [random_from[i] for i in rng.integers(len(random_from), size=longest)],
        "text": list(text[window : window + longest]),
    }
    return [Context(kind, k, [*start, *fillings[kind][:k], *separator, *prompt]) for k in repeats for kind in KINDS]


@torch.no_grad()
def next_token_logps(model: Any, prompts: Sequence[Ids]) -> Tensor:
    """log π(· | context) of a causal language model for each context, in one batch padded on the left: [N, V] float32."""
    ids, attention, positions = left_padded(prompts, next(model.parameters()).device)
    output = model(input_ids=ids, attention_mask=attention, position_ids=positions, use_cache=False, logits_to_keep=1)
    logps: Tensor = output.logits[:, -1].float().log_softmax(-1)
    return logps


@dataclass(frozen=True)
class TokenShift:
    """Of the next token, exact sums over the vocabulary, [N] each.

    kl: KL(tuned‖base) in nats. variance: Var[log π − log π₀] under the tuned model, nats². eos_tuned, eos_base: probability of
    a stop id.
    """

    kl: Tensor
    variance: Tensor
    eos_tuned: Tensor
    eos_base: Tensor


def token_shift(log_tuned: Tensor, log_base: Tensor, stop_ids: Ids) -> TokenShift:
    """Log-softmax of both models [N, V] after each context. By Huang's Lemma 1 log π − log π₀ = r/β − log Z: if repeats switch
    the tuned model off, its variance falls with k, also where the two models agree on the likeliest token."""
    tuned, base = log_tuned.double(), log_base.double()
    law, ratio = tuned.exp(), tuned - base
    kl = (law * ratio).sum(-1)
    variance = (law * (ratio - kl.unsqueeze(-1)).square()).sum(-1)
    stops = torch.tensor(sorted(set(stop_ids)), dtype=torch.long, device=law.device)
    return TokenShift(kl, variance, law[:, stops].sum(-1), base.exp()[:, stops].sum(-1))


@dataclass(frozen=True)
class ContinuationShift:
    """Of the continuations of one context that the tuned model wrote.

    kl: mean of log π − log π₀, an unbiased estimate of KL(tuned‖base) of whole continuations, in nats. variance: of the same,
    nats², with ddof = 1 (NaN for one sample). standard_error: of kl. eos: share that ended with a stop id.
    """

    kl: float
    variance: float
    standard_error: float
    eos: float
    n: int


def continuation_shift(
    log_tuned: npt.ArrayLike, log_base: npt.ArrayLike, continuations: Sequence[Ids], stop_ids: Ids
) -> ContinuationShift:
    """Log-probabilities [n] of n samples of the tuned model under both models, summed over tokens, and their token ids.

    They must be of the same tokens, and of samples at T = 1; a budget of tokens makes them those of truncated continuations.
    ValueError: lengths that differ, or none.
    """
    tuned, base = (np.asarray(logps, dtype=np.float64) for logps in (log_tuned, log_base))
    n = len(continuations)
    if not (tuned.shape == base.shape == (n,) and n):
        raise ValueError(f"log-probabilities must be of the {n} continuations, got shapes {tuned.shape} and {base.shape}")
    ratio = tuned - base
    variance = float(ratio.var(ddof=1)) if n > 1 else float("nan")
    eos = sum(bool(len(ids)) and ids[-1] in set(stop_ids) for ids in continuations) / n
    return ContinuationShift(float(ratio.mean()), variance, (variance / n) ** 0.5, eos, n)
