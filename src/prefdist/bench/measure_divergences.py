"""Divergences between rankings: ours beside the sum over all n! rankings, each measured in a process of its own.

`python -m prefdist.bench.measure_divergences '{"measure": …}' result.json`
"""

import itertools
import json
import math
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from prefdist.bench.clock import Clock, peak_memory
from prefdist.objectives import plackett_luce

THREADS = 1
"""The tensors are small; the rate of matrix products is measured with as many."""
SCALES = (0.05, 0.3, 1.0, 3.0, 10.0, 30.0)
"""Standard deviations of the scores."""
CALLS = 5


def brute_force_jsd(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    log_p, log_q = _log_prob_all(p_scores), _log_prob_all(q_scores)
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return ((log_p.exp() * (log_p - log_m)).sum(-1) + (log_q.exp() * (log_q - log_m)).sum(-1)) / 2


def brute_force_kl(p_scores: Tensor, q_scores: Tensor) -> Tensor:
    log_p, log_q = _log_prob_all(p_scores), _log_prob_all(q_scores)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "jsd": plackett_luce.jsd,
    "kl": plackett_luce.kl,
    "brute_force_jsd": brute_force_jsd,
}
BRUTE_FORCE = {"jsd": brute_force_jsd, "kl": brute_force_kl}


def cost(method: str, n: int, prompts: int) -> dict[str, Any]:
    """Seconds of forward and backward, the median of the calls after the first; growth of the peak memory in the first.

    The first call also makes the tables of sets or rankings.
    """
    compute = METHODS[method]
    # A first small call loads the libraries.
    compute(*_laws(2, 2)).sum().backward()
    p, q = _laws(prompts, n)
    before = peak_memory()
    compute(p, q).sum().backward()
    growth = peak_memory() - before
    clock = Clock()
    clock.mark()
    for _ in range(CALLS):
        compute(p, q).sum().backward()
        clock.mark()
    times = [clock.between(call, call + 1) for call in range(CALLS)]
    return {"peak_growth_mib": growth} | {name: median(time[name] for time in times) for name in times[0]}


def error(method: str, n: int, laws: int) -> dict[str, float]:
    """Largest distance in nats from brute force, by scale of the scores; a fifth of the pairs are equal laws."""
    found = {}
    for scale in SCALES:
        p, q = (scale * scores.detach() for scores in _laws(laws, n))
        q[: laws // 5] = p[: laws // 5]
        found[str(scale)] = float((METHODS[method](p, q) - BRUTE_FORCE[method](p, q)).abs().max())
    return found


def matmul_rate(size: int) -> dict[str, float]:
    """FLOP/s of a float32 matrix product, the best of the calls."""
    left, right = torch.randn(size, size), torch.randn(size, size)
    clock = Clock()
    clock.mark()
    for _ in range(CALLS):
        torch.mm(left, right)
        clock.mark()
    return {"flops_per_second": 2 * size**3 / min(clock.between(call, call + 1)["wall_seconds"] for call in range(CALLS))}


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {"cost": cost, "error": error, "matmul_rate": matmul_rate}


def _laws(prompts: int, n: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(n)
    p, q = torch.randn(2, prompts, n, generator=generator, dtype=torch.float64)
    return p.requires_grad_(), q.requires_grad_()


def _log_prob_all(scores: Tensor) -> Tensor:
    """[B, n] -> [B, n!], written down anew, so that ours is compared with something else."""
    n = scores.shape[1]
    ordered = scores[:, _rankings(n)]
    steps = [ordered[..., k] - ordered[..., k:].logsumexp(-1) for k in range(n)]
    return torch.stack(steps).sum(0)


@cache
def _rankings(n: int) -> Tensor:
    return torch.tensor(list(itertools.permutations(range(n))))


if __name__ == "__main__":
    torch.set_num_threads(THREADS)
    spec = json.loads(sys.argv[1])
    Path(sys.argv[2]).write_text(json.dumps(MEASURES[spec.pop("measure")](**spec)))
