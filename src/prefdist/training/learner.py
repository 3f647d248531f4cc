"""What is optimised, as one module with one forward: a policy, alone or with a critic or a teacher, or a reward model.

Left out: how it is spread over processes (parallel.py).
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from prefdist.logprobs import packed_logprobs, packed_token_kl
from prefdist.models import Scorer
from prefdist.tokens import Packed

Answer = TypeVar("Answer")


class Learner(nn.Module):
    """forward(packed, temperature) gives "policy" [R, n, T], "values" [R, n, T] (critic), "reward" [R, n] (scorer).

    With a teacher (frozen) it gives "token_kl" [R, n, T] alone: KL(teacher‖policy) of every next token, or the reverse.
    All outputs are float32. `precision` is that of the matrix products: with bfloat16, weights and the states between
    layers stay in float32 (autocast).
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
        self.precision = "float32"

    def forward(self, packed: Packed, temperature: float) -> dict[str, Tensor]:
        with self.autocast():
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

    @torch.no_grad()
    def ask(self, question: Callable[[Any], Answer]) -> Answer:
        """question(policy) in evaluation mode, with all its weights in place while it lasts if they are sharded.

        For whatever calls the policy many times or in parts, as sampling does. All processes ask, each its own question.
        """
        training = self.policy.training
        shards = [module for module in self.modules() if isinstance(module, FSDPModule)]
        for shard in shards[1:]:
            shard.set_reshard_after_forward(False, recurse=False)
        try:
            with self.autocast():
                return self.whole(question)
        finally:
            self.policy.train(training)
            for shard in shards[1:]:
                shard.set_reshard_after_forward(True, recurse=False)
            for shard in shards:
                shard.reshard()

    def whole(self, question: Callable[[Any], Answer]) -> Answer:
        """What counts as a forward pass of a sharded learner (parallel.py), whatever the question calls of the policy."""
        return question(self.policy.eval())

    def autocast(self) -> torch.autocast:
        """The context of `precision`, for what is compared with this learner's outputs."""
        device = next(self.parameters()).device.type
        # Copies that a cache keeps for a whole pass would undo sharding.
        sharded = isinstance(self, FSDPModule)
        return torch.autocast(device, torch.bfloat16, enabled=self.precision == "bfloat16", cache_enabled=not sharded)

    def trainable(self) -> dict[str, nn.Parameter]:
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}
