"""`prefdist bench`: speed and memory of training and of log-probabilities, beside TRL's and torch's, to results/bench.

Measurements alternate between the programs, round by round, so that a busy minute of the machine meets all of them.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prefdist.bench import measure_logprobs, report, workload
from prefdist.bench.plan import BATCH_SIZE, LOGPROBS, MODELS, PAIRS, RANKINGS, STEPS, WARM, System
from prefdist.bench.worker import THREADS
from prefdist.bench.workload import Workload
from prefdist.data.order import batch_indices
from prefdist.errors import UserError
from prefdist.paths import RESULTS, project_root

Row = dict[str, Any]

TOLERANCE = 1e-4, 1e-4
BF16_TOLERANCE = 1e-2, 2e-2
"""Nats between two losses of the same step, and relative difference of the first gradient's norm."""


def bench(rounds: int) -> int:
    """Measure everything `rounds` times and write the tables; UserError if the programs did not do the same work."""
    if find_spec("trl") is None:
        raise UserError("TRL is not installed, and the bench runs beside it: use make bench, or pip install 'prefdist[oracle]'")
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; at least 1 is needed")
    out = project_root() / RESULTS / "bench"
    with tempfile.TemporaryDirectory() as folder:
        work = workload.create(Path(folder), MODELS)
        plan = [(model, system) for model in MODELS for system in PAIRS] + [(MODELS[0], system) for system in RANKINGS]
        speed = list(_speed(work, plan, rounds, STEPS, WARM))
        check_same_work(speed)
        memory = list(_memory(Path(folder), rounds))
        options = {"steps": STEPS, "warm": WARM, "batch_size": BATCH_SIZE, "seed": 0}
        profiles = {
            model: run({"kind": "profile", "folder": folder, "model": model, "options": options}, Path(folder))
            for model in MODELS
        }
    report.write(out, work, speed, memory, profiles, rounds)
    print((out / "speed.md").read_text(), (out / "memory.md").read_text(), sep="\n")
    return 0


def check_same_work(rows: list[Row]) -> None:
    """UserError unless every step's loss and the first gradient's norm agree with TRL's, and sharing changes nothing."""
    for name, units in report.UNITS.items():
        for unit in units:
            loss, norm = report.gaps(rows, name, unit)
            allowed_loss, allowed_norm = BF16_TOLERANCE if unit == "trl_default" else TOLERANCE
            if loss > allowed_loss or norm > allowed_norm:
                raise UserError(
                    f"{name} and {unit} did not do the same work: losses differ by {loss:.1e} nats (allowed {allowed_loss}), "
                    f"first gradient norms by {norm:.1e} relative (allowed {allowed_norm}); no table was written"
                )


def run(spec: dict[str, Any], folder: Path, *, gpu: bool = False) -> dict[str, Any]:
    """One measurement in a fresh process, on the CPU or the first GPU, without network, its caches inside `folder`."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(THREADS),
        "TOKENIZERS_PARALLELISM": "false",
        "CUDA_VISIBLE_DEVICES": os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0] if gpu else "",
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(folder / "cache"),
    }
    result = folder / "result.json"
    command = [sys.executable, "-m", "prefdist.bench.worker", json.dumps(spec), str(result)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"a measurement failed ({spec['kind']}, {spec['options']}):\n{done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(result.read_text())
    return found


def _speed(work: Workload, plan: list[tuple[str, System]], rounds: int, steps: int, warm: int) -> Iterator[Row]:
    for number in range(rounds):
        for model, system in plan:
            print(f"round {number + 1}/{rounds}: {system.name}, {model}", file=sys.stderr, flush=True)
            load = os.getloadavg()[0]
            found = run(system.spec(str(work.folder), model, steps, warm), work.folder)
            tokens = timed_tokens(work, system.responses, steps, warm)
            examples = BATCH_SIZE * (steps - warm)
            yield {
                "system": system.name,
                "model": model,
                "round": number,
                "tokens": tokens,
                **{name: found[name] for name in ("wall_seconds", "cpu_seconds", "prepare_seconds", "peak_mib")},
                "tokens_per_second": tokens / found["wall_seconds"],
                "examples_per_second": examples / found["wall_seconds"],
                "cpu_ms_per_example": 1000 * found["cpu_seconds"] / examples,
                "load_before": load,
                "grad_norm": found["grad_norm"],
                "losses": found["losses"],
            }


def timed_tokens(work: Workload, responses: int, steps: int, warm: int, *, shared: bool = False) -> int:
    """Useful tokens of the timed steps: the same number for every system, however it lays its rows out.

    `shared`: those of rows that hold a prompt once.
    """
    batch = work.batch(responses)
    counts = batch.lengths() if shared else workload.useful_tokens(batch)
    return sum(counts[i] for s in range(warm, steps) for i in batch_indices(len(counts), BATCH_SIZE, s, 0))


def _memory(folder: Path, rounds: int) -> Iterator[Row]:
    for number in range(rounds):
        for method in measure_logprobs.available():
            print(f"round {number + 1}/{rounds}: {method}", file=sys.stderr, flush=True)
            yield {
                "method": method,
                "round": number,
                **run({"kind": "logprobs", "options": {"method": method, **LOGPROBS}}, folder),
            }
