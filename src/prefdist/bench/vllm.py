"""`prefdist bench --only vllm`: log-probabilities of vLLM beside ours, family by family, and the speed of both engines.

Every measurement is a fresh process (measure_vllm.py). Written to results/bench as vllm.{csv,md,json}.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from prefdist.artefacts import environment
from prefdist.bench import workload
from prefdist.bench.measure_vllm import BUDGET, LETTERS, PROMPTS, RESPONSES, SAMPLES, THREADS
from prefdist.bench.tables import processor, spread, write_csv
from prefdist.code import code_digest
from prefdist.errors import UserError
from prefdist.models import new_policy, parameter_count
from prefdist.paths import RESULTS, project_root
from prefdist.sampling.vllm.process import interpreter

Row = dict[str, Any]

TOLERANCE = 1e-4
"""Nats a token between vLLM and ours; an engine that differs by more computes something else, and no table is written."""
MODELS = ("1M", "5M")
ENGINES = ("transformers", "vllm")
_SIZES = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 4, "num_attention_heads": 4}
_GROUPED = {**_SIZES, "num_key_value_heads": 2, "max_position_embeddings": 512}
FAMILIES: dict[str, dict[str, Any]] = {
    "Llama": {"model_type": "llama", **_GROUPED},
    "Llama, tied": {"model_type": "llama", "tie_word_embeddings": True, **_GROUPED},
    "GPT-NeoX": {"model_type": "gpt_neox", "rotary_pct": 0.25, "max_position_embeddings": 512, **_SIZES},
    "Gemma-2": {"model_type": "gemma2", "head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": 32, **_GROUPED},
    "Mistral": {"model_type": "mistral", "sliding_window": 32, **_GROUPED},
    "Qwen2": {"model_type": "qwen2", **_GROUPED},
}
"""Windows are shorter than the prompts, and Gemma-2 caps attention and logits."""


def bench(rounds: int) -> None:
    """Compare, measure speed `rounds` times, write the tables. UserError without vLLM, or if it computes another model."""
    if rounds < 1:
        raise UserError(f"--rounds is {rounds}; at least 1 is needed")
    interpreter()
    out = project_root() / RESULTS / "bench"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        work = workload.create(folder, MODELS)
        compared = []
        for family, architecture in FAMILIES.items():
            print(f"comparing: {family}", file=sys.stderr, flush=True)
            model = _named(family)
            sharpened(new_policy(architecture, work.codec, seed=0)).save_pretrained(folder / model)
            row = run({"measure": "compare", "folder": name, "model": model}, folder)
            compared.append({"family": family, "weights": parameter_count(folder / model), **row})
        check(compared)
        speeds = []
        for number in range(rounds):
            for model in MODELS:
                for engine in ENGINES:
                    print(f"round {number + 1}/{rounds}: {engine}, {model}", file=sys.stderr, flush=True)
                    load = os.getloadavg()[0]
                    row = run({"measure": "speed", "folder": name, "model": model, "engine": engine}, folder)
                    speeds.append({"engine": engine, "model": model, "round": number, "load_before": load, **row})
    write(out, compared, speeds, rounds)
    print((out / "vllm.md").read_text())


def sharpened(model: Any) -> Any:
    """The model with noise on its weights: as initialised, its laws are nearly uniform and hide what differs."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def check(compared: list[Row]) -> None:
    """UserError, naming the family, if vLLM's log-probabilities are further from ours than rounding explains."""
    for row in compared:
        worst = max(row["vllm_own_largest"], row["letters_largest"])
        if not worst <= TOLERANCE:
            raise UserError(f"{row['family']}: vLLM and our scorer differ by {worst:.1e} nats a token (allowed {TOLERANCE})")


def run(spec: Row, folder: Path) -> Row:
    """One measurement in a fresh process on the CPU."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS), "CUDA_VISIBLE_DEVICES": "", "TOKENIZERS_PARALLELISM": "false"}
    result = folder / "result.json"
    command = [sys.executable, "-m", "prefdist.bench.measure_vllm", json.dumps(spec), str(result)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise UserError(f"a measurement failed ({spec}):\n{done.stderr[-3000:]}")
    found: Row = json.loads(result.read_text())
    return found


def write(out: Path, compared: list[Row], speeds: list[Row], rounds: int) -> None:
    """vllm.csv (the comparison), vllm_speed.csv, vllm.md, vllm.json."""
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "vllm.csv", compared)
    write_csv(out / "vllm_speed.csv", speeds)
    (out / "vllm.md").write_text(_introduction(compared, rounds) + _comparison(compared) + _speed_table(speeds))
    record = {
        "environment": environment() | {"vllm": compared[0]["version"], "processor": processor()},
        "threads": THREADS,
        "rounds": rounds,
        "code": code_digest("prefdist.bench.measure_vllm"),
    }
    (out / "vllm.json").write_text(json.dumps(record, indent=1) + "\n")


def _named(family: str) -> str:
    return family.lower().replace(", ", "_")


def _introduction(compared: list[Row], rounds: int) -> str:
    return f"""# vLLM beside our own engine

Again: `prefdist bench --only vllm --rounds {rounds}`, with PREFDIST_VLLM_PYTHON set (docs/engines.md). vLLM
{compared[0]["version"]} for CPUs in its own process; {THREADS} threads; float32.

## Log-probabilities

Random weights, {PROMPTS} prompts (functions of the standard library) with {RESPONSES} given responses each (summary lines).
Absolute differences in nats: of single tokens between vLLM, our scorer in float32, and our scorer in float64; of whole
responses; and of {len(LETTERS)} given next tokens behind each prompt, as for multiple choice. Allowed a token: {TOLERANCE:g}.

"""


def _comparison(rows: list[Row]) -> str:
    lines = [
        "| family | weights | tokens | mean log π | vLLM − ours, largest | mean | ours − float64, largest "
        "| vLLM − float64, largest | responses, largest | next tokens, largest |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    columns = (
        "vllm_own_largest",
        "vllm_own_mean",
        "own_exact_largest",
        "vllm_exact_largest",
        "sums_largest",
        "letters_largest",
    )
    for row in rows:
        cells = [f"{row[column]:.1e}" for column in columns]
        head = f"| {row['family']} | {row['weights'] / 1e6:.2f} M | {row['tokens']} | {row['mean_logp']:.2f} |"
        lines.append(f"{head} {' | '.join(cells)} |")
    return "\n".join(lines) + "\n\n"


def _speed_table(rows: list[Row]) -> str:
    lines = [
        "## Speed\n",
        f"{PROMPTS} prompts × {SAMPLES} samples of up to {BUDGET} tokens, and log-probabilities of {PROMPTS * RESPONSES} given",
        "responses: median [smallest, largest] over rounds, in response tokens a second. The engines take turns. Loading and a",
        "first small call are apart. Memory is the peak of the process that computes.\n",
        "| engine | weights | sampled tokens/s | scored tokens/s | start s | peak MiB |",
        "|---|---|---|---|---|---|",
    ]
    for model, engine in dict.fromkeys((row["model"], row["engine"]) for row in rows):
        found = [row for row in rows if (row["model"], row["engine"]) == (model, engine)]
        cells = [
            spread([row["sampled"] / row["sample_seconds"] for row in found]),
            spread([row["scored"] / row["score_seconds"] for row in found]),
            spread([row["start_seconds"] for row in found]),
            spread([float(row["peak_mib"]) for row in found]),
        ]
        lines.append(f"| {engine} | {model} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"
