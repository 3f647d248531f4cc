"""The stage `evaluate`: a policy on held-out prompts against the known target. All log-probabilities at T = 1, in nats.

forward_kl = KL(π*‖π̂) on samples of π*; reverse_kl = KL(π̂‖π*) and kl_to_prior = KL(π̂‖π₀) on samples of π̂; entropy =
H(π̂); win_rate_prior and win_rate_reference = the known probability σ(γ·Δ log π*) that a sample of π̂ beats a sample of
π₀, or the reference; reward = r̂ above that of π₀'s samples of the prompt (r̂ has no zero of its own); length in tokens;
unfinished = share that filled its budget; distinct_2.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.evaluation.baselines import grouped
from prefdist.evaluation.diversity import distinct_ngrams
from prefdist.models import load_policy, load_scorer
from prefdist.sampling.rows import draw
from prefdist.scoring.sequences import response_logps, response_rewards
from prefdist.tokens import TextCodec


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes responses-seed<s>.parquet (samples of π̂) and metrics.parquet (a row a seed, prompt and metric).

    Every policy is sampled with the same random numbers, so that differences between policies carry less noise.
    """
    codec = TextCodec(inputs["text"] / "tokenizer")
    rows = held_out(inputs["text"], "test", spec["prompts"])
    models = {"target": load_policy(inputs["target"]), "prior": load_policy(inputs["prior"])}
    metrics = []
    for seed in spec["seeds"]:
        policy, scorer = load_policy(inputs[f"policy/{seed}"]), load_scorer(inputs[f"reward_model/{seed}"])
        size = {"num_samples": spec["samples"], "max_new_tokens": spec["max_new_tokens"]}
        responses = draw(policy, codec, rows, f"evaluation/{seed}", **size)
        tables.write_table(out / f"responses-seed{seed}.parquet", responses, tables.RESPONSES)
        measured = _measurements(spec, inputs, codec, rows, responses, {**models, "policy": policy, "reward": scorer})
        metrics += [
            {"run": spec["run"], "seed": seed, "prompt_id": row["prompt_id"], "metric": name, "value": value}
            for row, found in zip(rows, measured, strict=True)
            for name, value in found.items()
        ]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


def _measurements(
    spec: dict[str, Any],
    inputs: dict[str, Path],
    codec: TextCodec,
    rows: list[dict[str, Any]],
    responses: list[dict[str, Any]],
    models: dict[str, Any],
) -> list[dict[str, float | None]]:
    """The metrics of each prompt, means over its samples."""
    prompts = [codec.prompt(row["prompt"]) for row in rows]
    own = list(grouped(responses, "token_ids").values())
    of_target = tables.read_table(inputs["baselines"] / "target.parquet", tables.RESPONSES)
    of_prior = tables.read_table(inputs["baselines"] / "prior.parquet", tables.RESPONSES)
    prior_ids = list(grouped(of_prior, "token_ids").values())
    target_ids = list(grouped(of_target, "token_ids").values())
    scored = {
        "own": [torch.tensor(values) for values in grouped(responses, "logp").values()],
        "own_target": response_logps(models["target"], prompts, own, pad_id=codec.pad_id),
        "own_prior": response_logps(models["prior"], prompts, own, pad_id=codec.pad_id),
        "own_reward": response_rewards(models["reward"], prompts, own, pad_id=codec.pad_id),
        "prior_reward": response_rewards(models["reward"], prompts, prior_ids, pad_id=codec.pad_id),
        "target": [torch.tensor(values) for values in grouped(of_target, "logp").values()],
        "target_policy": response_logps(models["policy"], prompts, target_ids, pad_id=codec.pad_id),
        "prior_target": _cached(inputs["baselines"] / "prior_scores.parquet"),
        "reference_target": _cached(inputs["baselines"] / "reference_scores.parquet"),
    }
    finished = list(grouped(responses, "finish_reason").values())
    found = []
    for i, ids in enumerate(own):
        measured = _log_probability_metrics({name: values[i] for name, values in scored.items()}, spec["gamma"])
        measured["length"] = sum(map(len, ids)) / len(ids)
        measured["unfinished"] = sum(reason == "length" for reason in finished[i]) / len(ids)
        measured["distinct_2"] = distinct_ngrams(ids, 2)
        found.append(measured)
    return found


def _cached(path: Path) -> list[Tensor]:
    return [torch.tensor(values) for values in grouped(tables.read_table(path, tables.SCORES), "logp").values()]


def _log_probability_metrics(of: dict[str, Tensor], gamma: float) -> dict[str, float | None]:
    """One prompt's metrics from its samples' log-probabilities."""

    def win_rate(other: Tensor) -> Tensor:
        return (gamma * (of["own_target"].unsqueeze(1) - other.unsqueeze(0))).sigmoid()

    values = {
        "forward_kl": of["target"] - of["target_policy"],
        "reverse_kl": of["own"] - of["own_target"],
        "kl_to_prior": of["own"] - of["own_prior"],
        "entropy": -of["own"],
        "win_rate_prior": win_rate(of["prior_target"]),
        "win_rate_reference": win_rate(of["reference_target"]),
        "reward": of["own_reward"] - of["prior_reward"].mean(),
    }
    return {name: float(value.double().mean()) for name, value in values.items()}
