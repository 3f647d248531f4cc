"""Our training loop on the workload, as `prefdist make` runs it: packed rows, a cached reference, float32."""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.bench.clock import Clock
from prefdist.bench.workload import Workload
from prefdist.config.common import Optimisation
from prefdist.models import load_policy
from prefdist.objectives.registry import Objective, load
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import Packed, pack
from prefdist.training.batch import Dataset, Share
from prefdist.training.learner import Learner
from prefdist.training.loop import Stream, train
from prefdist.training.parallel import Parallel, checkpoint_activations
from prefdist.training.terms import objective_term

BETA = 0.2
LEARNING_RATE = 3e-4
LISTWISE = {
    "title": "DPO for a ranking",
    "source": "DPO, arXiv 2305.18290, Eq. 20",
    "family": "preference",
    "score": {"a": BETA, "b": BETA, "against": "reference"},
    "model": "plackett_luce",
    "target": {"of": "label"},
    "divergence": "nll",
    "responses": "dataset",
}


def measure(
    work: Workload,
    model: str,
    *,
    responses: int,
    shared: bool,
    steps: int,
    warm: int,
    batch_size: int,
    micro_batch_size: int,
    seed: int,
    precision: str = "float32",
    gradient_checkpointing: bool = False,
) -> dict[str, Any]:
    """Train for `steps` optimiser steps; the first `warm` are not timed. Loss of each step and first gradient norm.

    `shared`: rows of a prompt with all its responses, as the project trains; otherwise a row a response.
    """
    policy = load_policy(work.model(model), "cuda" if torch.cuda.is_available() else "cpu")
    clock = Clock()
    clock.mark()
    examples = work.batch(responses)
    logps = response_logps(policy, examples.prompts, examples.responses, pad_id=work.codec.pad_id)
    examples = replace(examples, columns={"reference": torch.stack(logps)})
    clock.mark()
    learner = Learner(policy) if shared else _RowAResponse(policy)
    learner.precision = precision
    if gradient_checkpointing:
        checkpoint_activations(learner)
    with tempfile.TemporaryDirectory() as scratch:
        log = train(
            Parallel(learner),
            [Stream(Dataset(examples, batch_size, seed, Share()), [objective_term(objective(responses))])],
            Optimisation(
                steps=steps,
                batch_size=batch_size,
                micro_batch_size=micro_batch_size,
                learning_rate=LEARNING_RATE,
                checkpoint_every=steps,
                probe_every=1,
            ),
            pad_id=work.codec.pad_id,
            scratch=Path(scratch),
            probe=clock.mark,
        )
    return {
        **clock.between(1 + warm, 1 + steps),
        "prepare_seconds": clock.between(0, 1)["wall_seconds"],
        "losses": [row["loss"] for row in log],
        "grad_norm": log[0]["grad_norm"],
    }


def objective(responses: int) -> Objective:
    return load("dpo", {"beta": BETA}) if responses == 2 else load(LISTWISE)


class _RowAResponse(Learner):
    """The same log-probabilities without sharing: each response in a row of its own, behind its own copy of the prompt."""

    def forward(self, packed: Packed, temperature: float) -> dict[str, Tensor]:
        rows = range(len(packed.segments))
        prompts = [packed.input_ids[r, packed.segments[r] == 0].tolist() for r in rows]
        responses = [
            [target[mask].tolist() for target, mask in zip(packed.targets[r], packed.mask[r], strict=True)] for r in rows
        ]
        pairs = [(prompt, [y]) for prompt, ys in zip(prompts, responses, strict=True) for y in ys]
        alone = pack([prompt for prompt, _ in pairs], [ys for _, ys in pairs], pad_id=0)
        return {"policy": super().forward(alone, temperature)["policy"].view(packed.mask.shape)}
