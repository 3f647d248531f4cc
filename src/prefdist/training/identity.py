"""What must hold before the first step, whatever the objective: violations are bugs in masks, templates or references."""

from typing import Any

import torch

from prefdist.errors import UserError
from prefdist.logprobs import packed_logprobs
from prefdist.training.batch import Batch

TOLERANCE = 1e-3
"""Nats on a summed float32 log-probability: kernels of other shapes differ by about 1e-6 a token."""


@torch.no_grad()
def check(policy: Any, batch: Batch, pad_id: int, *, temperature: float, starts_at_reference: bool) -> None:
    """Padded equals unpadded; and where the policy starts at the reference, the two agree. `temperature`: the batch's."""
    device = next(policy.parameters()).device
    few = batch.select(range(min(4, len(batch))))

    def logps(examples: Batch) -> torch.Tensor:
        packed = examples.packed(pad_id).to(device)
        return packed_logprobs(policy, packed, temperature=temperature).sum(-1).cpu()

    together = logps(few)
    for i, name in enumerate(few.ids):
        alone = logps(few.select([i]))
        _demand(alone[0], together[i], f"example {name}: its log-probability changes with padding")
    if starts_at_reference and "reference" in few.columns:
        reference = few.columns["reference"]
        reference = reference.sum(-1) if reference.dim() == 3 else reference
        for i, name in enumerate(few.ids):
            _demand(together[i], reference[i], f"example {name}: the policy starts elsewhere than its reference")


def _demand(found: torch.Tensor, expected: torch.Tensor, sentence: str) -> None:
    gap = float((found - expected).abs().max())
    if not gap <= TOLERANCE:  # NaN is a violation too
        raise UserError(f"step 0: {sentence} (by {gap:.2e} nats, allowed {TOLERANCE}); no step was taken")
