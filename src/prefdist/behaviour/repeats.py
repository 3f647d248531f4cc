"""The stage `repeats`: a tuned model behind k repeats of one token, with controls of the same length (Huang's note).

Each prompt stands behind a filling of k tokens and a line break: repeats of one token, random tokens, or natural text. What is
measured begins at the first token of the response. A row a prompt and metric, named <metric>/<filling>/<k>:
kl = KL(π‖π₀) and variance = Var[log π − log π₀] of the first token, exact over the vocabulary; sequence_kl and
sequence_variance of whole continuations, from samples of π; end = probability that the first token ends the response, end_0 of
π₀; finished = share of continuations that end within their budget.

fits.json: per seed, filling and k the λ of p ∝ π^{1−λ}·π₀^λ, token by token, that explains the continuations best, π without
filling and π₀ behind it; and the accuracy of a classifier that tells continuations of π and π₀ apart. With a contrast, π is the
model, and the samples are those of the contrasted law: its λ is known, so it is the positive control.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prefdist.behaviour.draws import sampled_from
from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.evaluation.interpolation import fit_token_level
from prefdist.evaluation.repeats import Context, contexts, continuation_shift, next_token_logps, token_shift
from prefdist.evaluation.two_samples import classifier_test
from prefdist.models import load_frozen
from prefdist.sampling.engine import sample
from prefdist.scoring.sequences import response_laws, response_logps
from prefdist.tokens import TextCodec

BATCH = 64
"""Contexts whose next token is looked at together."""
Drawn = list[list[list[int]]]
"""Continuations of each prompt."""


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet and fits.json."""
    metrics, fits = [], []
    for seed in spec["seeds"]:
        study = _Study.load(spec, inputs, seed)
        plain = study.cells[0][1]
        for (kind, k), cell in study.cells:
            found, fit = study.measured(cell, plain)
            metrics += [
                {"run": spec["run"], "seed": seed, "prompt_id": prompt_id, "metric": f"{name}/{kind}/{k}", "value": value}
                for name, values in found.items()
                for prompt_id, value in zip(study.names, values, strict=True)
            ]
            fits.append({"seed": seed, "filling": kind, "k": k, **fit})
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    (out / "fits.json").write_text(json.dumps(fits, indent=1) + "\n")


@dataclass(frozen=True)
class _Study:
    """Models of a seed, and the prompts' contexts by filling and k; the first cell has no filling."""

    spec: dict[str, Any]
    seed: int
    codec: TextCodec
    policy: Any
    base: Any
    drawn_from: tuple[Any, Any]
    names: list[str]
    cells: list[tuple[tuple[str, int], list[Context]]]

    @classmethod
    def load(cls, spec: dict[str, Any], inputs: dict[str, Path], seed: int) -> "_Study":
        codec, base = TextCodec(inputs["base"]), load_frozen(inputs["base"])
        roles = {"policy": inputs[f"policy/{seed}"], "reference": inputs["base"]}
        rows = held_out(inputs["text"], "test", spec["prompts"])
        by_cell: dict[tuple[str, int], list[Context]] = {}
        for of_prompt in _contexts(spec, codec, inputs["text"], rows):
            for context in of_prompt:
                by_cell.setdefault((context.kind, context.k), []).append(context)
        cells = sorted(by_cell.items(), key=lambda cell: cell[0][1])  # stable: fillings keep their order
        drawn_from, policy = sampled_from(spec["law"], roles), load_frozen(roles["policy"])
        return cls(spec, seed, codec, policy, base, drawn_from, [row["prompt_id"] for row in rows], cells)

    def measured(self, cell: list[Context], plain: list[Context]) -> tuple[dict[str, list[float]], dict[str, Any]]:
        """Metrics of each prompt behind one filling, and what is fitted to all of them."""
        ids = [context.ids for context in cell]
        first = token_shift(self._next(self.policy, ids), self._next(self.base, ids), self.codec.stop_ids)
        own, of_base = self._continuations(*self.drawn_from, ids), self._continuations(self.base, self.drawn_from[1], ids)
        pad = {"pad_id": self.codec.pad_id}
        logps = zip(response_logps(self.policy, ids, own, **pad), response_logps(self.base, ids, own, **pad), own, strict=True)
        whole = [continuation_shift(tuned.numpy(), base.numpy(), ys, self.codec.stop_ids) for tuned, base, ys in logps]
        found = {
            "kl": first.kl.tolist(),
            "variance": first.variance.tolist(),
            "end": first.eos_tuned.tolist(),
            "end_0": first.eos_base.tolist(),
            "sequence_kl": [shift.kl for shift in whole],
            "sequence_variance": [shift.variance for shift in whole],
            "finished": [shift.eos for shift in whole],
        }
        told = classifier_test(own, of_base)
        fit = {"accuracy": told.value, "accuracy_low": told.low, "accuracy_high": told.high}
        return found, fit | self._interpolated(own, ids, [context.ids for context in plain])

    def _interpolated(self, own: Drawn, ids: list[list[int]], plain: list[list[int]]) -> dict[str, Any]:
        """λ with a normal 95 % interval; none where the two models do not differ, as π₀ from itself."""
        flat = [(i, y) for i, ys in enumerate(own) for y in ys]
        continuations = [y for _, y in flat]
        tuned = response_laws(self.policy, [plain[i] for i, _ in flat], continuations, pad_id=self.codec.pad_id)
        base = response_laws(self.base, [ids[i] for i, _ in flat], continuations, pad_id=self.codec.pad_id)
        if torch.allclose(tuned, base, atol=1e-4):
            return {"lambda": None, "lambda_low": None, "lambda_high": None}
        tokens = torch.tensor([token for y in continuations for token in y])
        found = fit_token_level(tuned, base, tokens, bounds=(-3.0, 4.0))
        half = 1.96 * found.standard_error
        return {"lambda": found.value, "lambda_low": found.value - half, "lambda_high": found.value + half}

    def _next(self, model: Any, ids: list[list[int]]) -> Tensor:
        parts = [next_token_logps(model, ids[start : start + BATCH]) for start in range(0, len(ids), BATCH)]
        return torch.cat(parts).cpu()

    def _continuations(self, model: Any, sampler: Any, ids: list[list[int]]) -> Drawn:
        """Equal random numbers for every filling, k and policy."""
        drawn = sample(
            model,
            ids,
            [f"repeats/{self.seed}/{name}" for name in self.names],
            num_samples=self.spec["samples"],
            max_new_tokens=self.spec["max_new_tokens"],
            stop_ids=self.codec.stop_ids,
            sampler=sampler,
        )
        return [[s.token_ids for s in samples] for samples in drawn]


def _contexts(spec: dict[str, Any], codec: TextCodec, text: Path, rows: list[dict[str, Any]]) -> list[list[Context]]:
    """Of each prompt, a pure function of the suite: all policies and seeds see the same."""
    references = [row["reference"] for row in tables.read_table(text / "prompts.parquet", tables.PROMPTS) if row["reference"]]
    natural = [i for reference in references[:200] for i in codec.response(reference)[:-1]]
    special = {codec.bos_id, codec.pad_id, *codec.stop_ids}
    ordinary = [i for i in range(codec.vocabulary) if i not in special]
    newline = codec.prompt("")[1:]  # what ends a prompt without a chat template
    repeated = [i for i in dict.fromkeys(natural) if i not in newline][: spec["tokens"]]
    found = []
    for i, row in enumerate(rows):
        seed = int.from_bytes(hashlib.sha256(row["prompt_id"].encode()).digest()[:6], "big")
        ids = codec.prompt(row["prompt"])
        found.append(
            contexts(
                ids[1:],
                repeated[i % len(repeated)],
                start=ids[:1],
                separator=newline,
                random_from=ordinary,
                text=natural,
                rng=np.random.default_rng(seed),
                repeats=spec["counts"],
            )
        )
    return found
