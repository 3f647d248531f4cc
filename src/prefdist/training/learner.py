"""What is optimised, as one module with one forward: a policy, alone or with a critic or a teacher, or a reward model."""

from typing import Any

from torch import Tensor, nn

from prefdist.logprobs import packed_logprobs, packed_token_kl
from prefdist.models import Scorer
from prefdist.tokens import Packed


class Learner(nn.Module):
    """forward(packed, temperature) gives "policy" [R, n, T], "values" [R, n, T] (critic), "reward" [R, n] (scorer).

    With a teacher (frozen) it gives "token_kl" [R, n, T] alone: KL(teacher‖policy) of every next token, or the reverse.
    """

    def __init__(
        self,
        policy: Any = None,
        critic: Scorer | None = None,
        scorer: Scorer | None = None,
        teacher: Any = None,
        teacher_first: bool = True,
    ) -> None:
        super().__init__()
        self.policy, self.critic, self.scorer = policy, critic, scorer
        self.teacher, self.teacher_first = teacher, teacher_first

    def forward(self, packed: Packed, temperature: float) -> dict[str, Tensor]:
        if self.teacher is not None:
            return {"token_kl": packed_token_kl(self.teacher, self.policy, packed, forward=self.teacher_first)}
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
