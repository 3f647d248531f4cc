"""Where the time of our loop goes: processor time of the parts of an optimiser step, and of the kernels below them."""

import time
from collections import Counter, defaultdict
from dataclasses import replace
from typing import Any

import torch
from torch.profiler import ProfilerActivity

from prefdist.bench.measure_own import objective
from prefdist.bench.workload import Workload
from prefdist.logprobs import packed_hidden, packed_logprobs
from prefdist.models import load_policy
from prefdist.training.batch import Dataset, Share

KERNELS = {"aten::mm": "matrix products", "aten::addmm": "matrix products", "scaled_dot_product": "attention"}


def measure(work: Workload, model: str, *, steps: int, warm: int, batch_size: int, seed: int) -> dict[str, Any]:
    """Milliseconds of processor time an optimiser step, by part; and the share of each kind of kernel."""
    policy = load_policy(work.model(model))
    examples = work.batch(2)
    examples = replace(examples, columns={"reference": torch.zeros(len(examples), 2)})
    data = Dataset(examples, batch_size, seed, Share())
    dpo = objective(2)
    optimiser = torch.optim.AdamW(policy.parameters(), lr=1e-5)
    spent: dict[str, float] = defaultdict(float)

    def step(number: int) -> None:
        watch = _Stopwatch(spent)
        for micro in data.batch(number).micro_batches(batch_size):
            packed = micro.packed(work.codec.pad_id)
            watch.lap("batching and packing")
            with torch.no_grad():
                packed_hidden(policy, packed)
            watch.lap("backbone forward")
            logps = packed_logprobs(policy, packed).sum(-1)
            watch.lap("forward")
            loss = dpo({"policy": logps, "reference": micro.columns["reference"]}, {}).sum() / batch_size
            watch.lap("objective")
            loss.backward()
            watch.lap("backward")
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        watch.lap("clipping and optimiser")

    for number in range(warm):
        step(number)
    spent.clear()
    for number in range(warm, steps):
        step(number)
    # The head is what the forward pass takes beyond the backbone, which was run once more to know it.
    spent["head and log-probabilities forward"] = spent.pop("forward") - spent["backbone forward"]
    parts = {name: 1000 * seconds / (steps - warm) for name, seconds in spent.items()}
    with torch.profiler.profile(activities=[ProfilerActivity.CPU]) as profiler:
        step(steps)
    return {"milliseconds": parts, "kernel_share": _shares(profiler)}


class _Stopwatch:
    """Adds the processor time since the last lap to a name."""

    def __init__(self, spent: dict[str, float]) -> None:
        self.spent, self.last = spent, time.process_time()

    def lap(self, name: str) -> None:
        now = time.process_time()
        self.spent[name] += now - self.last
        self.last = now


def _shares(profiler: Any) -> dict[str, float]:
    times: Counter[str] = Counter()
    for event in profiler.key_averages():
        kind = next((kind for part, kind in KERNELS.items() if part in event.key), "all else")
        times[kind] += event.self_cpu_time_total
    return {kind: value / sum(times.values()) for kind, value in times.items()}
