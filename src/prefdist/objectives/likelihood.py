"""Maximum likelihood: the loss of supervised fine-tuning on the first response of each example."""

from collections.abc import Mapping

from torch import Tensor

from prefdist.objectives.rows import LikelihoodRow


class Likelihood:
    """−ℓ(y) with ℓ summed over the tokens (EOS included), or their mean. logps["policy"] is [B, n]; n = 1 for SFT."""

    def __init__(self, row: LikelihoodRow) -> None:
        self.row = row
        self.needs = frozenset({"n_tokens"} if row.length == "mean" else ())

    def __call__(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """Losses [B] in nats."""
        logp = logps["policy"][:, 0]
        return -logp / columns["n_tokens"][:, 0] if self.row.length == "mean" else -logp


def build(row: LikelihoodRow) -> Likelihood:
    return Likelihood(row)
