"""The stage `preferences`: pairs of responses sampled from μ = π₀, labelled with the known target π*.

P(a ≻ b) = σ(γ·(log π*(a) − log π*(b))) (ADL Eq. 2); the label is one draw of it, and p_chosen is kept.
"""

from pathlib import Path
from typing import Any

import torch

from prefdist.data import tables
from prefdist.data.selection import first_prompts
from prefdist.models import load_policy
from prefdist.sampling.engine import Sample, sample, uniforms
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes preferences.parquet. Pairs of identical responses carry no label and are left out."""
    codec = TextCodec(inputs["text"] / "tokenizer")
    wanted = {"train": spec["train_prompts"], "test": spec["test_prompts"]}
    chosen = [row for split, size in wanted.items() for row in first_prompts(inputs["text"], split, size)]
    prompts = [codec.prompt(row["prompt"]) for row in chosen]
    drawn = sample(
        load_policy(inputs["prior"]),
        prompts,
        [f"pair/{spec['seed']}/{row['prompt_id']}" for row in chosen],
        num_samples=2 * spec["pairs_per_prompt"],
        max_new_tokens=spec["max_new_tokens"],
        stop_ids=codec.stop_ids,
    )
    responses = [[s.token_ids for s in samples] for samples in drawn]
    target = response_logps(load_policy(inputs["target"]), prompts, responses, pad_id=codec.pad_id)
    rows = []
    for prompt, samples, logps in zip(chosen, drawn, target, strict=True):
        for pair in range(spec["pairs_per_prompt"]):
            first, second = 2 * pair, 2 * pair + 1
            margin = spec["gamma"] * float(logps[first] - logps[second])
            pair_id = f"{prompt['prompt_id']}/{spec['seed']}/{pair}"
            row = _labelled(prompt, pair_id, samples[first], samples[second], margin, codec)
            if row["chosen_ids"] != row["rejected_ids"]:
                rows.append(row)
    tables.write_table(out / "preferences.parquet", rows, tables.PREFERENCES)


def _labelled(
    prompt: dict[str, Any], pair_id: str, first: Sample, second: Sample, margin: float, codec: TextCodec
) -> dict[str, Any]:
    p_first = float(torch.tensor(margin, dtype=torch.float64).sigmoid())
    first_wins = float(uniforms(f"label/{pair_id}", 1, 1)[0, 0]) < p_first
    chosen, rejected = (first, second) if first_wins else (second, first)
    return {
        "pair_id": pair_id,
        "prompt_id": prompt["prompt_id"],
        "split": prompt["split"],
        "prompt": prompt["prompt"],
        "chosen": codec.decode(chosen.token_ids),
        "rejected": codec.decode(rejected.token_ids),
        "chosen_ids": chosen.token_ids,
        "rejected_ids": rejected.token_ids,
        "p_chosen": p_first if first_wins else 1 - p_first,
    }
