"""Sequence scores s(y) = a·ℓ(y) − b·ℓ_against(y), the left-hand side of every preference objective."""

from torch import Tensor


def sequence_score(logp: Tensor, against: Tensor | None, *, a: float, b: float, n_tokens: Tensor | None = None) -> Tensor:
    """Scores [B, n] from summed log-probabilities [B, n] (nats, EOS included).

    `n_tokens` [B, n] (> 0), when given, turns both sums into means over tokens; summed and mean scores never mix.
    """
    if n_tokens is not None:
        logp = logp / n_tokens
        against = None if against is None else against / n_tokens
    return a * logp if against is None else a * logp - b * against
