"""Token-level distillation: a teacher's law of every next token, for students that share its tokenizer.

Left out: the divergences of two laws over the vocabulary, which need both models' hidden states (logprobs.packed_token_kl).
"""

from collections.abc import Mapping

from torch import Tensor

from prefdist.objectives.rows import TokenDistillationRow


class TokenDistillation:
    """Σ_t KL_t along the first response, or its mean over tokens. columns["token_kl"] is [B, n, T], 0 behind the end."""

    def __init__(self, row: TokenDistillationRow) -> None:
        self.row = row
        self.needs = frozenset({"token_kl"} | ({"n_tokens"} if row.length == "mean" else set()))

    def __call__(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """Losses [B] in nats."""
        summed = columns["token_kl"][:, 0].sum(-1)
        return summed / columns["n_tokens"][:, 0] if self.row.length == "mean" else summed


def build(row: TokenDistillationRow) -> TokenDistillation:
    return TokenDistillation(row)
