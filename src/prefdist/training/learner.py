"""What is optimised, as one module with one forward: a policy, a policy with its critic, or a reward model."""

from typing import Any

from torch import Tensor, nn

from prefdist.logprobs import packed_logprobs
from prefdist.models import Scorer
from prefdist.tokens import Packed


class Learner(nn.Module):
    """forward(packed, temperature) gives "policy" [R, n, T], "values" [R, n, T] (critic), "reward" [R, n] (scorer)."""

    def __init__(self, policy: Any = None, critic: Scorer | None = None, scorer: Scorer | None = None) -> None:
        super().__init__()
        self.policy, self.critic, self.scorer = policy, critic, scorer

    def forward(self, packed: Packed, temperature: float) -> dict[str, Tensor]:
        outputs = {}
        if self.policy is not None:
            outputs["policy"] = packed_logprobs(self.policy, packed, temperature=temperature)
        if self.critic is not None:
            outputs["values"] = self.critic.values(packed)
        if self.scorer is not None:
            outputs["reward"] = self.scorer.rewards(packed)
        return outputs

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
