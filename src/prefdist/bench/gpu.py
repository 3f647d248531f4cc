"""`prefdist bench --only training_gpu`: DPO on one GPU at the shape of Pythia-1.4B, beside TRL's.

It writes results/bench/training_gpu.csv.
Random weights, which change nothing of what a step costs, and the texts of workload.py. On both sides weights are float32
and products bfloat16, activations are computed again, and the reference's log-probabilities are computed once before.
"""

import csv
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from prefdist.bench import stage, workload
from prefdist.bench.measure_trl import BEST
from prefdist.bench.plan import BATCH_SIZE
from prefdist.bench.workload import Workload
from prefdist.errors import UserError
from prefdist.models import parameter_count
from prefdist.paths import RESULTS, project_root

MODEL = "pythia-1.4b"
SHAPE: dict[str, Any] = {
    "vocab_size": 50_304,
    "hidden_size": 2048,
    "intermediate_size": 8192,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 2048,
    "tie_word_embeddings": False,
}
PEAK_FLOPS = {"A100": 312e12, "H100": 989e12, "H200": 989e12}
"""Of dense bfloat16 products a second, by NVIDIA's data sheets (SXM boards); of other GPUs no utilisation is given."""
STEPS, WARM = 12, 4
_COMMON = {"steps": STEPS, "warm": WARM, "batch_size": BATCH_SIZE, "micro_batch_size": 8, "seed": 0}
SYSTEMS: dict[str, dict[str, Any]] = {
    "own": {**_COMMON, "responses": 2, "shared": True, "precision": "bfloat16", "gradient_checkpointing": True},
    "trl": {**_COMMON, "use_cpu": False, "options": {**BEST, "bf16": True, "gradient_checkpointing": True}},
}
"""Kind of measurement (worker.py) -> its options."""


def bench(rounds: int) -> None:
    """Measure `rounds` times in turn, write the rows and print them. UserError without a GPU, or without TRL."""
    if not torch.cuda.is_available():
        raise UserError("no GPU is visible, and --only training_gpu measures one: run it where there is one")
    if find_spec("trl") is None:
        raise UserError("TRL is not installed, and the bench runs beside it: use make bench, or pip install 'prefdist[oracle]'")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = workload.create(folder, [])
        _make_model(folder / MODEL, SHAPE)
        size = parameter_count(folder / MODEL)
        for number in range(rounds):
            for kind, options in SYSTEMS.items():
                print(f"round {number + 1}/{rounds}: {kind}", file=sys.stderr, flush=True)
                spec = {"kind": kind, "folder": name, "model": MODEL, "options": options}
                found = stage.run(spec, folder, gpu=True)
                rows.append(
                    {"system": kind, "round": number, **measures(work, size, kind, found, torch.cuda.get_device_name())}
                )
    out = project_root() / RESULTS / "bench" / "training_gpu.csv"
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(out.read_text())


def measures(work: Workload, size: int, kind: str, found: dict[str, Any], device: str) -> dict[str, Any]:
    """Speed in tokens of a prompt with each response, the same for both; memory; and model FLOPs utilisation.

    That is 6 operations a weight and token over what the GPU can do: tokens that a side really sends through the model (a
    prompt once for all its responses, or once for each), and no second forward pass of what is computed again.
    """
    tokens = stage.timed_tokens(work, 2, STEPS, WARM)
    sent = stage.timed_tokens(work, 2, STEPS, WARM, shared=kind == "own")
    peak = next((flops for name, flops in PEAK_FLOPS.items() if name in device), None)
    return {
        "device": device,
        "tokens_per_second": round(tokens / found["wall_seconds"]),
        "peak_gpu_mib": found["peak_gpu_mib"],
        "flops_utilisation": round(6 * size * sent / found["wall_seconds"] / peak, 4) if peak else "",
        "first_loss": found["losses"][0],
        "last_loss": found["losses"][-1],
        "first_grad_norm": found["grad_norm"],
    }


def _make_model(folder: Path, shape: dict[str, Any]) -> None:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    torch.manual_seed(0)
    model: Any = GPTNeoXForCausalLM(GPTNeoXConfig(**shape, hidden_dropout=0.0, attention_dropout=0.0))
    model.save_pretrained(folder)
