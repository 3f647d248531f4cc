"""Log-probabilities of tokens under a large vocabulary: ours, the textbook way, and torch's own fused function.

Float32, forward and backward through hidden states and head; every position of every row is predicted.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prefdist.bench.clock import Clock, peak_memory
from prefdist.logprobs import token_logprobs

Method = Callable[[nn.Linear, Tensor, Tensor], Tensor]


def measure(method: str, vocabulary: int, tokens: int, hidden: int) -> dict[str, Any]:
    """Seconds, growth of the peak memory in MiB over the inputs and their gradients, and the sum found."""
    torch.manual_seed(0)
    head = nn.Linear(hidden, vocabulary, bias=False)
    states = torch.randn(tokens, hidden, requires_grad=True)
    targets = torch.randint(vocabulary, (tokens,))
    # The gradients' memory is everybody's; and a first small call loads the libraries.
    head.weight.grad, states.grad = torch.ones_like(head.weight), torch.ones_like(states)
    compute = METHODS[method]
    compute(head, states[:8], targets[:8]).sum().backward()
    before = peak_memory()
    clock = Clock()
    clock.mark()
    logps = compute(head, states, targets)
    total = logps.sum()
    total.backward()
    clock.mark()
    return {**clock.between(0, 1), "peak_growth_mib": peak_memory() - before, "sum": float(total.detach())}


def available() -> list[str]:
    """The methods that this version of torch has."""
    return [name for name in METHODS if name != "F.linear_cross_entropy" or hasattr(F, "linear_cross_entropy")]


def _log_softmax(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    return head(hidden).log_softmax(-1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def _linear_cross_entropy(head: nn.Linear, hidden: Tensor, targets: Tensor) -> Tensor:
    """In torch from 2.13 on."""
    fused: Any = F.linear_cross_entropy
    options: Any = nn.LinearCrossEntropyOptions()
    losses: Tensor = fused(hidden, head.weight, targets, reduction="none", options=options)
    return -losses


METHODS: dict[str, Method] = {
    "token_logprobs": token_logprobs,
    "log_softmax": _log_softmax,
    "F.linear_cross_entropy": _linear_cross_entropy,
}
