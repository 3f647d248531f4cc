"""One measurement in a process of its own: `python -m prefdist.bench.worker '{"kind": …}' result.json`."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prefdist.bench import measure_logprobs, measure_own, measure_trl, profile, workload
from prefdist.bench.clock import peak_gpu_memory, peak_memory

THREADS = 2
"""Of both sides; the environment of the process sets the same number for libraries that read it at their start."""

TRAININGS: dict[str, Callable[..., dict[str, Any]]] = {
    "own": measure_own.measure,
    "trl": measure_trl.measure,
    "profile": profile.measure,
}


def run(spec: dict[str, Any]) -> dict[str, Any]:
    """The measurement that `spec` asks for, and the peak memory of the process that made it."""
    torch.set_num_threads(THREADS)
    kind, options = spec["kind"], spec["options"]
    if kind == "logprobs":
        return measure_logprobs.measure(**options)
    work = workload.load(Path(spec["folder"]))
    return {**TRAININGS[kind](work, spec["model"], **options), "peak_mib": peak_memory(), "peak_gpu_mib": peak_gpu_memory()}


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(json.dumps(run(json.loads(sys.argv[1]))))
