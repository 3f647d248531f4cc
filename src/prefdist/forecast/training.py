"""The work of a training: its batches, its fresh samples and what these are scored by, its learning curve."""

from dataclasses import dataclass
from typing import Any

from prefdist.forecast.parameters import Size
from prefdist.forecast.work import Facts, Work, forward, sampled, scored, stored
from prefdist.plan.graph import Artefact

LOG_BYTES = 300
"""A step of the log."""


@dataclass(frozen=True)
class Rows:
    """The packed rows that a step learns from: mean tokens of the prompt and of each of its n responses."""

    prompt: float
    response: float
    n: int


def trained(artefact: Artefact, facts: Facts) -> Work:
    """steps·batch_size rows at 6·N·tokens (4·N with adapters; 2·N more where activations are computed again), and for fresh
    samples what `_fresh` says.

    A token distillation adds the teacher's forward pass, a learning curve probes/probe_every scorings of its samples.
    """
    spec, size = artefact.spec, facts.size(artefact)
    optimisation, objective = spec["optimisation"], spec["objective"]
    steps, batch = optimisation["steps"], optimisation["batch_size"]
    total = stored(steps, LOG_BYTES) + Work(disk=4.0 * size.total)
    if objective["responses"] != "policy":
        rows = learnt_from(artefact, facts)
        total += _steps(artefact, size, rows)
        if objective["family"] == "token_distillation":
            total += scored(facts.size(artefact.inputs["teacher"]), steps * batch, rows.prompt, rows.response, rows.n)
    if _is_fresh(objective):
        total += _fresh(artefact, facts, size)
    if "probe" in artefact.inputs and optimisation["probe_every"]:
        probe, lengths = artefact.inputs["probe"].spec, facts.lengths(artefact)
        response = lengths.response(probe["max_new_tokens"])
        once = scored(size, probe["probe_prompts"], lengths.prompt, response, probe["samples"])
        total += once * (steps // optimisation["probe_every"])
    return total


def _is_fresh(objective: dict[str, Any]) -> bool:
    """Whether the policy is sampled: a regulariser of weight 0 costs nothing."""
    return bool(objective["responses"] == "policy" or (objective.get("regulariser") and objective["regulariser"]["kl"]))


def variety(artefact: Artefact) -> str:
    """Which trainings are alike in how fast they go: those on fresh samples, on a teacher's law, and all others."""
    objective = artefact.spec["objective"]
    if _is_fresh(objective):
        return "fresh samples"
    return "token law" if objective["family"] == "token_distillation" else "given data"


def learnt_from(artefact: Artefact, facts: Facts) -> Rows:
    """Of a data set: references and single responses (n = 1), pairs (2), lists (n), a teacher's questions."""
    data, lengths = artefact.spec["data"], facts.lengths(artefact)
    if "repeats" in data:
        return _questions(data, lengths.prompt, lengths.reference or 0.0)
    kind = data["kind"]
    if kind == "references":
        return Rows(lengths.prompt, facts.reference(artefact), 1)
    source = artefact.inputs["preferences" if "preferences" in artefact.inputs else "responses"]
    response = lengths.response(source.spec["max_response_tokens" if source.stage == "pairs" else "max_new_tokens"])
    n = {"chosen": 1, "rejected": 1, "both": 1, "teacher_responses": 1, "lists": data.get("n")}.get(kind, 2)
    return Rows(lengths.prompt, response, n)


def _questions(data: dict[str, Any], prompt: float, reference: float) -> Rows:
    """One reference to `repeats` questions, which show (2 + max_options)/2 options on average; the answer is one token."""
    asked = data["repeats"] / (1 + data["repeats"])
    options = (2 + data["max_options"]) / 2
    return Rows(prompt + asked * options * (reference + 2), (1 - asked) * reference + asked * 2, 1)


def _steps(artefact: Artefact, size: Size, rows: Rows, models: int = 1) -> Work:
    """Optimiser steps on a batch of rows each; `models` of one size learn side by side (a policy and its critic)."""
    spec, optimisation = artefact.spec, artefact.spec["optimisation"]
    steps, batch, micro_batch = (optimisation[key] for key in ("steps", "batch_size", "micro_batch_size"))
    passes = (2 if spec.get("lora") else 3) + bool(artefact.how.get("gradient_checkpointing"))
    phase = "train_half" if optimisation.get("precision") == "bfloat16" else "train"
    each = passes * models * forward(size, rows.prompt, rows.response, rows.n)
    return Work({phase: steps * batch * each}, {phase: steps * models * -(-batch // micro_batch)})


def _fresh(artefact: Artefact, facts: Facts, size: Size) -> Work:
    """Rollouts, each of which feeds minibatches·epochs steps: its samples, their scores, and the steps on them.

    Every rollout is scored by π₀; by the reward model where the objective is on-policy; and by the policy itself once more
    where several steps share it or PPO prepares its advantages, there with the critic. PPO's critic is as large as the policy.
    """
    spec, lengths, settings = artefact.spec, facts.lengths(artefact), artefact.spec["rollouts"]
    optimisation, objective = spec["optimisation"], spec["objective"]
    critic = objective.get("algorithm") == "ppo"
    batch = settings["batch_size"] or optimisation["batch_size"]
    updates = settings["minibatches"] * settings["epochs"]
    rollouts, prompts = optimisation["steps"] / updates, batch * settings["minibatches"]
    rows = Rows(lengths.prompt, lengths.response(settings["max_new_tokens"]), settings["samples"])
    row = (prompts, rows.prompt, rows.response, rows.n)
    scorings = 1 + (objective["responses"] == "policy") + (updates > 1 or critic) * (1 + critic)
    half = optimisation.get("precision") == "bfloat16"
    once = sampled(size, *row) + scored(size, *row, half=half) * scorings
    return once * rollouts + _steps(artefact, size, rows, models=1 + critic)
