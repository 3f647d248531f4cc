"""`prefdist bench --only divergences`: what exact divergences between rankings cost, beside the sum over all rankings.

Every measurement is a fresh process (measure_divergences.py). Written to results/bench as divergences.{csv,md,svg,json}.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from prefdist.artefacts import environment
from prefdist.bench.measure_divergences import BRUTE_FORCE, METHODS, SCALES, THREADS
from prefdist.bench.tables import processor, spread, write_csv
from prefdist.code import code_digest
from prefdist.errors import UserError
from prefdist.paths import RESULTS, project_root
from prefdist.style import COLOURS, MARKERS, RC, new_figure

Row = dict[str, Any]

SIZES = tuple(range(2, 15))
BRUTE_FORCE_UP_TO = 8
LAWS = 20
"""Pairs of laws a scale whose values are compared with brute force."""
BATCH = {"n": 8, "prompts": 128}
"""Of the line beside a forward pass of a student."""
STUDENT_WEIGHTS, RESPONSE_TOKENS = 2.6e9, 300
MATMUL_SIZE = 2048
_LABELS = {"jsd": "JSD", "kl": "KL", "brute_force_jsd": "JSD, all n! rankings"}


def bench(rounds: int) -> None:
    """Measure everything `rounds` times and write table, figure and provenance."""
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; at least 1 is needed")
    out = project_root() / RESULTS / "bench"
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        costs = list(_costs(rounds, result))
        errors = {
            method: {n: run({"measure": "error", "method": method, "n": n, "laws": LAWS}, result) for n in _brute_force_sizes()}
            for method in BRUTE_FORCE
        }
        rate = max(run({"measure": "matmul_rate", "size": MATMUL_SIZE}, result)["flops_per_second"] for _ in range(rounds))
    write(out, costs, errors, rate, rounds)
    print((out / "divergences.md").read_text())


def run(spec: Row, result: Path) -> Row:
    """One measurement in a fresh process on the CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "prefdist.bench.measure_divergences", json.dumps(spec), str(result)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"a measurement failed ({spec}):\n{done.stderr[-2000:]}")
    found: Row = json.loads(result.read_text())
    return found


def write(out: Path, costs: list[Row], errors: dict[str, dict[int, Row]], rate: float, rounds: int) -> None:
    """divergences.csv, divergences.md, divergences.svg and divergences.json; errors[method][n][scale] in nats."""
    out.mkdir(parents=True, exist_ok=True)
    worst = {method: {n: max(by_scale.values()) for n, by_scale in of_n.items()} for method, of_n in errors.items()}
    write_csv(out / "divergences.csv", [{**row, "error": worst.get(row["method"], {}).get(row["n"], "")} for row in costs])
    text = _introduction(rounds) + _cost_table(costs, worst) + _error_table(errors) + _beside_a_student(costs, rate)
    (out / "divergences.md").write_text(text)
    _draw([row for row in costs if row["prompts"] == 1], worst, out / "divergences.svg")
    record = {
        "environment": environment() | {"processor": processor()},
        "threads": THREADS,
        "rounds": rounds,
        "code": code_digest("prefdist.bench.measure_divergences"),
    }
    (out / "divergences.json").write_text(json.dumps(record, indent=1) + "\n")


def _brute_force_sizes() -> list[int]:
    return [n for n in SIZES if n <= BRUTE_FORCE_UP_TO]


def _costs(rounds: int, result: Path) -> Iterator[Row]:
    """Round by round, so that a busy minute of the machine meets all methods."""
    plan = [(method, n, 1) for n in SIZES for method in METHODS if n <= BRUTE_FORCE_UP_TO or method in BRUTE_FORCE]
    plan += [(method, BATCH["n"], BATCH["prompts"]) for method in BRUTE_FORCE]
    for number in range(rounds):
        print(f"round {number + 1}/{rounds}", file=sys.stderr, flush=True)
        for method, n, prompts in plan:
            spec = {"method": method, "n": n, "prompts": prompts}
            yield {**spec, "round": number, **run({"measure": "cost", **spec}, result)}


def _introduction(rounds: int) -> str:
    return f"""# Exact divergences between Plackett-Luce laws: time, memory, error

Again: `prefdist bench --only divergences --rounds {rounds}`. Forward and backward in float64 on the CPU, {THREADS} thread,
one prompt with n responses; median [smallest, largest] of {rounds} rounds, each a fresh process. Time is that of a call
after the first. Growth is that of the peak resident memory in the first call, tables included, in whole MiB. Error is the
largest distance in nats from the sum over all n! rankings over {LAWS} pairs of laws at each scale of the scores,
{", ".join(map(str, SCALES))}. JSD is that sum itself up to n = 5, and a quadrature with a bound of 7.6e-11 above.

"""


def _cost_table(costs: Sequence[Row], worst: dict[str, dict[int, float]]) -> str:
    methods = list(METHODS)
    heads = [f"{_LABELS[method]}: {what}" for method in methods for what in ("ms", "MiB")]
    heads += [f"{_LABELS[method]}: error" for method in worst]
    lines = [f"| n | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for n in SIZES:
        cells = [cell for method in methods for cell in _cost_cells(costs, method, n, 1)]
        cells += [f"{of_n[n]:.1e}" if n in of_n else "" for of_n in worst.values()]
        lines.append(f"| {n} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n![Time, memory and error against n](divergences.svg)\n\n"


def _cost_cells(costs: Sequence[Row], method: str, n: int, prompts: int) -> tuple[str, str]:
    """Milliseconds and MiB; empty where nothing was measured."""
    found = [row for row in costs if (row["method"], row["n"], row["prompts"]) == (method, n, prompts)]
    if not found:
        return "", ""
    return spread([1000 * row["wall_seconds"] for row in found]), spread([row["peak_growth_mib"] for row in found])


def _error_table(errors: dict[str, dict[int, Row]]) -> str:
    sizes = f"n = {min(_brute_force_sizes())} to {max(_brute_force_sizes())}"
    lines = [
        f"## Largest error by scale of the scores, {sizes}\n",
        f"| scale | {' | '.join(_LABELS[method] for method in errors)} |",
    ]
    lines.append("|---" * (len(errors) + 1) + "|")
    for scale in map(str, SCALES):
        cells = [f"{max(by_scale[scale] for by_scale in of_n.values()):.1e}" for of_n in errors.values()]
        lines.append(f"| {scale} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def _beside_a_student(costs: Sequence[Row], rate: float) -> str:
    n, prompts = BATCH["n"], BATCH["prompts"]
    flops = 2 * STUDENT_WEIGHTS * prompts * n * RESPONSE_TOKENS
    lines = [
        "## Beside a forward pass of a student\n",
        f"A student of {STUDENT_WEIGHTS:.2g} weights reads {prompts} prompts x {n} responses x {RESPONSE_TOKENS} tokens in",
        f"2·weights·tokens = {flops:.2g} FLOPs. At the {rate / 1e9:.3g} GFLOP/s that a float32 product of matrices of",
        f"{MATMUL_SIZE} x {MATMUL_SIZE} reaches here with {THREADS} thread that is {flops / rate:.3g} s (calculated, not run).",
        "The divergence of that batch, forward and backward, beside that one forward pass:\n",
        "| divergence | ms | MiB | fraction of the forward pass |",
        "|---|---|---|---|",
    ]
    for method in BRUTE_FORCE:
        of_batch = [row for row in costs if row["method"] == method and row["prompts"] == prompts]
        seconds = median(row["wall_seconds"] for row in of_batch)
        cells = " | ".join(_cost_cells(costs, method, n, prompts))
        lines.append(f"| {_LABELS[method]} | {cells} | {seconds * rate / flops:.1e} |")
    return "\n".join(lines) + "\n"


def _draw(costs: Sequence[Row], worst: dict[str, dict[int, float]], out: Path) -> Figure:
    """Three panels against n: time, memory and error; medians over the rounds."""
    with matplotlib.rc_context(RC):
        figure = new_figure(9.6, 3.3)
        time, memory, error = figure.subplots(1, 3)
        figure.subplots_adjust(left=0.06, right=0.99, bottom=0.14, top=0.8, wspace=0.24)
        for number, method in enumerate(METHODS):
            style: Any = {"color": COLOURS[number], "marker": MARKERS[number], "ms": 5, "lw": 1.4, "label": _LABELS[method]}
            for axes, column, scale, least in ((time, "wall_seconds", 1000, 0), (memory, "peak_growth_mib", 1, 1)):
                sizes = sorted({row["n"] for row in costs if row["method"] == method})
                medians = [median(row[column] for row in costs if (row["method"], row["n"]) == (method, n)) for n in sizes]
                axes.plot(sizes, [max(scale * value, least) for value in medians], **style)
            if method in worst:
                error.plot(list(worst[method]), list(worst[method].values()), **style)
        error.axhline(1e-10, color=COLOURS[-1], lw=1, ls="--", zorder=0)
        for axes, title in (
            (time, "forward and backward (ms)"),
            (memory, "growth of peak memory (MiB; 1: at most 1)"),
            (error, "largest error (nats; dashed: 1e−10)"),
        ):
            axes.set(yscale="log", xlim=(SIZES[0] - 0.5, SIZES[-1] + 0.5), title=title, xlabel="n responses", xticks=SIZES[::2])
        handles, labels = time.get_legend_handles_labels()
        figure.legend(handles, labels, loc="upper left", ncols=3, fontsize=8)
        figure.savefig(out, metadata={"Date": None})
    return figure
