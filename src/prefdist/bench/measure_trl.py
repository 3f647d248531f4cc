"""TRL's DPOTrainer on the workload: at its defaults, and at the best that its options give on a CPU.

Its samplers cannot keep our order of examples, so the rows are laid out in that order and read one after the other; and
because they cannot group preference pairs by length either, each global batch is laid out longest first. That is a
favour: micro-batches hold pairs of similar length, as ours do.
"""

import tempfile
from collections.abc import Sequence
from typing import Any

from prefdist.bench.clock import Clock
from prefdist.bench.measure_own import BETA, LEARNING_RATE
from prefdist.bench.workload import Workload
from prefdist.data.order import batch_indices

BEST = {"bf16": False, "gradient_checkpointing": False, "precompute_ref_log_probs": True}
"""Float32, activations kept, the reference's log-probabilities computed once before training."""


def measure(
    work: Workload,
    model: str,
    *,
    options: dict[str, Any],
    steps: int,
    warm: int,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    use_cpu: bool = True,
) -> dict[str, Any]:
    """Train for `steps` optimiser steps; the first `warm` are not timed. Loss of each step and first gradient norm."""
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import DPOConfig, DPOTrainer

    # TRL appends EOS as text, so here special tokens must be read as such.
    tokenizer = AutoTokenizer.from_pretrained(work.folder / "tokenizer", split_special_tokens=False)
    order = [i for step in range(steps) for i in _longest_first(work, batch_indices(len(work.texts), batch_size, step, seed))]
    rows = [_row(work.texts[i], tokenizer.bos_token) for i in order]
    with tempfile.TemporaryDirectory() as scratch:
        settings = DPOConfig(
            output_dir=scratch,
            use_cpu=use_cpu,
            beta=BETA,
            learning_rate=LEARNING_RATE,
            max_steps=steps,
            per_device_train_batch_size=micro_batch_size,
            gradient_accumulation_steps=batch_size // micro_batch_size,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **options,
        )
        clock = Clock()
        clock.mark()
        trainer: Any = DPOTrainer(
            model=AutoModelForCausalLM.from_pretrained(work.model(model), dtype="float32"),
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
            callbacks=[_clocked(clock)],
        )
        clock.mark()
        _demand_same_ids(trainer.train_dataset, work, order)
        trainer.train()
    log = [row for row in trainer.state.log_history if "loss" in row]
    return {
        **clock.between(1 + warm, 1 + steps),
        "prepare_seconds": clock.between(0, 1)["wall_seconds"],
        "losses": [row["loss"] for row in log],
        "grad_norm": log[0]["grad_norm"],
    }


def _longest_first(work: Workload, indices: list[int]) -> list[int]:
    longest = {i: len(example["prompt"]) + max(map(len, example["responses"][:2])) for i, example in enumerate(work.texts)}
    return sorted(indices, key=lambda i: -longest[i])


def _row(text: dict[str, Any], bos: str) -> dict[str, str]:
    chosen, rejected = text["responses"][:2]
    return {"prompt": f"{bos}{text['prompt']}\n", "chosen": chosen, "rejected": rejected}


def _clocked(clock: Clock) -> Any:
    from transformers import TrainerCallback

    class Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            clock.mark()

    return Marks()


def _demand_same_ids(rows: Any, work: Workload, order: Sequence[int]) -> None:
    own = work.batch(2)
    for row, i in zip(rows, order, strict=True):
        if [row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]] != [own.prompts[i], *own.responses[i]]:
            raise AssertionError(f"example {i}: TRL's token ids are not ours, so this is not the same work")
