"""The bench's tables: raw measurements as CSV, their medians and ranges as Markdown, and where they come from."""

import csv
import json
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

from prefdist.artefacts import environment
from prefdist.bench.measure_own import LEARNING_RATE
from prefdist.bench.plan import BATCH_SIZE, LOGPROBS, PAIRS, RANKINGS, STEPS, WARM
from prefdist.bench.worker import THREADS
from prefdist.bench.workload import Workload
from prefdist.code import code_digest

Row = dict[str, Any]
UNITS = {"prefdist": ("trl_best", "trl_sorted", "trl_default"), "prefdist_n4": ("prefdist_n4_unshared",)}
"""System -> what its speed and memory are divided by, pair by pair."""


def write(out: Path, work: Workload, speed: list[Row], memory: list[Row], profiles: dict[str, Row], rounds: int) -> None:
    """speed.csv, speed.md, memory.csv, memory.md, provenance.json."""
    out.mkdir(parents=True, exist_ok=True)
    _csv(out / "speed.csv", [{key: value for key, value in row.items() if key != "losses"} for row in speed])
    _csv(out / "memory.csv", memory)
    (out / "speed.md").write_text(_introduction(work, rounds) + _speed_table(speed) + _ratios(speed) + _parts(profiles))
    (out / "memory.md").write_text(_memory_table(memory))
    record = {
        "environment": environment() | {"trl": version("trl"), "processor": _processor()},
        "threads": THREADS,
        "rounds": rounds,
        "code": code_digest("prefdist.bench.stage"),
    }
    (out / "provenance.json").write_text(json.dumps(record, indent=1) + "\n")


def gaps(rows: Sequence[Row], name: str, unit: str) -> tuple[float, float]:
    """How far two systems are apart: largest difference of a step's loss (nats), relative one of the first gradient norm."""
    loss = norm = 0.0
    for one, other in _pairs(rows, name, unit):
        loss = max(loss, *(abs(a - b) for a, b in zip(one["losses"], other["losses"], strict=True)))
        norm = max(norm, abs(one["grad_norm"] / other["grad_norm"] - 1))
    return loss, norm


def _pairs(rows: Sequence[Row], name: str, unit: str) -> list[tuple[Row, Row]]:
    """Measurements of two systems in the same round with the same model."""
    others = {(row["model"], row["round"]): row for row in rows if row["system"] == unit}
    return [(row, others[row["model"], row["round"]]) for row in rows if row["system"] == name]


def _introduction(work: Workload, rounds: int) -> str:
    batch = work.batch(2)
    prompts = sorted(map(len, batch.prompts))
    responses = sorted(len(y) for ys in batch.responses for y in ys)
    return f"""# Training speed and memory

Again: `make bench` (`prefdist bench --rounds {rounds}`). Every line is the median [smallest, largest] of {rounds} rounds.
Each measurement is a fresh process with {THREADS} threads on the CPU, and the programs take turns. Memory is the peak
resident memory of the whole process (VmHWM). CPU time counts all threads, and, on a busy machine, their waiting for one
another too.

All do the same work: {STEPS} steps of DPO (the first {WARM} not timed) on {len(batch)} pairs, {BATCH_SIZE} a step, with
the same Llama weights, order of examples, optimiser (AdamW, {LEARNING_RATE}, linear) and token ids. Prompts are functions
of the standard library, {_spread(prompts)} tokens (smallest, median, largest); responses are summary lines,
{_spread(responses)}. Padding is not counted, and a token counts once for every row that TRL puts it into: each prompt
with its chosen and with its rejected response. The time to compute the reference beforehand is apart ("prepare", which
also loads TRL's trainer); trl_default has it in every step instead.

"""


def _spread(values: Sequence[int]) -> str:
    return f"{values[0]}, {values[len(values) // 2]}, {values[-1]}"


def _speed_table(rows: Sequence[Row]) -> str:
    lines = [
        "| system | weights | tokens/s | examples/s | CPU ms an example | peak MiB | prepare s |",
        "|---|---|---|---|---|---|---|",
    ]
    columns = ("tokens_per_second", "examples_per_second", "cpu_ms_per_example", "peak_mib", "prepare_seconds")
    for model, system in dict.fromkeys((row["model"], row["system"]) for row in rows):
        found = [row for row in rows if (row["model"], row["system"]) == (model, system)]
        cells = [_range([row[column] for row in found]) for column in columns]
        lines.append(f"| {system} | {model} | {' | '.join(cells)} |")
    described = "".join(f"- `{system.name}`: {system.description}\n" for system in [*PAIRS, *RANKINGS])
    return "\n".join(lines) + f"\n\n{described}\n"


def _ratios(rows: Sequence[Row]) -> str:
    """Pair by pair within a round, then the median."""
    lines = [
        "## Ratios, pair by pair\n",
        "| of | to | weights | speed, wall | speed, CPU time | memory | loss gap | gradient norm gap |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, units in UNITS.items():
        for unit in units:
            for model in sorted({row["model"] for row in rows if row["system"] == name}):
                chosen = [row for row in rows if row["model"] == model]
                pairs = _pairs(chosen, name, unit)
                ratios = [
                    _ratio(pairs, lambda one, other: other["wall_seconds"] / one["wall_seconds"]),
                    _ratio(pairs, lambda one, other: other["cpu_seconds"] / one["cpu_seconds"]),
                    _ratio(pairs, lambda one, other: one["peak_mib"] / other["peak_mib"]),
                ]
                loss, norm = gaps(chosen, name, unit)
                lines.append(f"| {name} | {unit} | {model} | {' | '.join(ratios)} | {loss:.1e} | {norm:.1e} |")
    note = "Gaps: largest difference of a step's loss in nats, relative difference of the first gradient's norm."
    return "\n".join(lines) + f"\n\n{note}\n\n"


def _ratio(pairs: Sequence[tuple[Row, Row]], of: Callable[[Row, Row], float]) -> str:
    return _range([of(one, other) for one, other in pairs])


def _parts(profiles: dict[str, Row]) -> str:
    """Where our time goes."""
    lines = ["## Where the time of our loop goes\n", "| CPU ms a step | " + " | ".join(profiles) + " |"]
    lines.append("|---" * (len(profiles) + 1) + "|")
    for part in next(iter(profiles.values()))["milliseconds"]:
        lines.append(f"| {part} | " + " | ".join(f"{found['milliseconds'][part]:.1f}" for found in profiles.values()) + " |")
    for kind in next(iter(profiles.values()))["kernel_share"]:
        shares = [f"{100 * found['kernel_share'][kind]:.0f} %" for found in profiles.values()]
        lines.append(f"| share of kernels: {kind} | {' | '.join(shares)} |")
    return "\n".join(lines) + "\n"


def _memory_table(rows: Sequence[Row]) -> str:
    methods = list(dict.fromkeys(row["method"] for row in rows))
    exact = next(row["sum"] for row in rows if row["method"] == "log_softmax")
    size = ", ".join(f"{name} {value}" for name, value in LOGPROBS.items())
    lines = [
        "# Log-probabilities of tokens: memory and time\n",
        f"Float32, forward and backward, {THREADS} threads; {size}. Median [smallest, largest]; growth is over inputs and",
        "their gradients. The deviation is that of the summed log-probability, relative.\n",
        "| method | growth of peak MiB | s | CPU s | deviation |",
        "|---|---|---|---|---|",
    ]
    for method in methods:
        found = [row for row in rows if row["method"] == method]
        cells = [_range([row[name] for row in found]) for name in ("peak_growth_mib", "wall_seconds", "cpu_seconds")]
        deviation = max(abs(row["sum"] / exact - 1) for row in found)
        lines.append(f"| {method} | {' | '.join(cells)} | {deviation:.1e} |")
    return "\n".join(lines) + "\n"


def _range(values: Sequence[float]) -> str:
    return f"{_number(median(values))} [{_number(min(values))}, {_number(max(values))}]"


def _number(value: float) -> str:
    """Three digits that count."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def _csv(path: Path, rows: Sequence[Row]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def _processor() -> str:
    """Its model name where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
