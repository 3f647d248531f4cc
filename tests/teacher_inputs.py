"""Inputs of the stages that ask a teacher: prompts, responses by hand, and a tiny random teacher whose tokenizer has the
letters and None."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from prefdist.data import tables
from prefdist.data.tokenizer import train_tokenizer
from prefdist.models import new_policy, save
from prefdist.tokens import TextCodec

PROMPTS = {"p0": "Name a fruit.", "p1": "Say é in French, please", "p2": "One", "p3": "What is by the An river?"}
TEXTS = ["An apple.", "By the river", "ünïcode — wörds", "None of them, A or B"]
ARCHITECTURE = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,  # the usual 0.02 gives a nearly uniform distribution
}


def sample_rows(prompts: dict[str, str] = PROMPTS, n: int = 4) -> list[dict[str, Any]]:
    """Rows of the samples table: other texts for each prompt, every third one cut off."""
    return [
        {
            "prompt_id": prompt_id,
            "sample": k,
            "token_ids": [7],
            "text": f"{TEXTS[(i + k) % 4]} {'again ' * (i * k % 3)}".strip() + str(k),
            "finish_reason": "length" if (i + k) % 3 == 0 else "stop",
            "n_tokens": 1,
            "logp": -1.0,
            "prompt": prompt,
        }
        for i, (prompt_id, prompt) in enumerate(prompts.items())
        for k in range(n)
    ]


def write_text(folder: Path, prompts: dict[str, str] = PROMPTS, split: str = "train") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"prompt_id": name, "module": "m", "split": split, "prompt": prompt, "reference": "r"}
        for name, prompt in prompts.items()
    ]
    tables.write_table(folder / "prompts.parquet", rows, tables.PROMPTS)
    return folder


def write_responses(folder: Path, rows: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tables.write_table(folder / "responses.parquet", rows, tables.SAMPLES)
    return folder


def write_teacher(folder: Path, *, corpus: tuple[str, ...] = ("A None", "None A"), **architecture: Any) -> Path:
    """A model folder. The words of the corpus, with and without a space before them, are tokens of its tokenizer."""
    train_tokenizer([f"{text} An By" for text in (*corpus, *TEXTS, *PROMPTS.values()) for _ in range(5)], 400, folder / "t")
    codec = TextCodec(folder / "t")
    model = new_policy(ARCHITECTURE | architecture, codec, 0)
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(2.0)
    save(model, folder, codec)
    return folder


def write_inputs(root: Path) -> dict[str, Path]:
    return {
        "text": write_text(root / "text"),
        "responses": write_responses(root / "responses", sample_rows()),
        "teacher": write_teacher(root / "teacher"),
    }


def without_weights(teacher: Path, folder: Path) -> Path:
    """A copy that loads as a tokenizer and a config, but not as a model."""
    folder.mkdir()
    for file in teacher.glob("*.json"):
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def write_broken_teacher(folder: Path) -> Path:
    """A teacher with one weight that is not a number."""
    file = write_teacher(folder) / "model.safetensors"
    weights = load_file(file)
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, file, metadata={"format": "pt"})
    return folder


def without(rows: list[dict[str, Any]], prompt_id: str, sample: int) -> list[dict[str, Any]]:
    return [row for row in rows if (row["prompt_id"], row["sample"]) != (prompt_id, sample)]


def replaced(rows: list[dict[str, Any]], prompt_id: str, sample: int, /, **values: Any) -> list[dict[str, Any]]:
    return [row | values if (row["prompt_id"], row["sample"]) == (prompt_id, sample) else row for row in rows]
