"""The work of every stage that runs a model, as a formula of its specification. Stages that run none are left out.

Those that measure behaviour are in behaviour.py.
"""

from math import comb, factorial

from prefdist.forecast import behaviour
from prefdist.forecast.behaviour import labelled
from prefdist.forecast.training import trained
from prefdist.forecast.work import (
    SCORE_BYTES,
    Facts,
    Formula,
    Work,
    response_bytes,
    sampled,
    scored,
    spec_of,
    stored,
)
from prefdist.plan.graph import Artefact

ANSWERED = 2 * 300
"""Prompts of two splits that a trained teacher is asked about, once with two and once with four options."""
METRICS = 12
"""Rows of metrics a prompt."""


def fetched(a: Artefact, facts: Facts) -> Work:
    """A stored model: its weights, in the precision that its configuration names."""
    size = facts.size(a)
    return Work(disk=float(size.total * size.bytes_a_weight))


def preferences(a: Artefact, facts: Facts) -> Work:
    """2·pairs_per_prompt samples of π₀ to each training and test prompt, scored by π*."""
    lengths, pairs = facts.lengths(a), a.spec["pairs_per_prompt"]
    prompts = lengths.available("train", a.spec["train_prompts"]) + lengths.available("test", a.spec["test_prompts"])
    row = (prompts, lengths.prompt, lengths.response(a.spec["max_new_tokens"]), 2 * pairs)
    tables = stored(prompts * pairs, 2 * response_bytes(row[2]) + 3 * lengths.prompt)
    return sampled(facts.size(a.inputs["prior"]), *row) + scored(facts.size(a.inputs["target"]), *row) + tables


def reference(a: Artefact, facts: Facts) -> Work:
    """Both responses of every pair, under π₀."""
    lengths, (pairs, budget) = facts.lengths(a), labelled(a.inputs["preferences"], facts)
    response = lengths.response(budget)
    return scored(facts.size(a.inputs["prior"]), pairs, lengths.prompt, response, 2) + stored(pairs, SCORE_BYTES)


def responses(a: Artefact, facts: Facts) -> Work:
    """`draws` samples a prompt, of which n are kept."""
    lengths, (split, wanted, draws, n) = facts.lengths(a), spec_of(a, "split", "prompts", "draws", "n")
    prompts, response = lengths.available(split, wanted), lengths.response(a.spec["max_new_tokens"])
    tables = stored(prompts * n, response_bytes(response)) + stored(prompts, 3 * lengths.prompt)
    return sampled(facts.size(a.inputs["policy"]), prompts, lengths.prompt, response, draws) + tables


def scores(a: Artefact, facts: Facts) -> Work:
    """The n responses to every prompt under a teacher."""
    prompts, prompt, response, n = _responses(a, facts)
    row = scored(facts.size(a.inputs["teacher"]), prompts, prompt, response, n, half=a.spec["dtype"] != "float32")
    return row + stored(prompts * n, SCORE_BYTES)


def questions(a: Artefact, facts: Facts) -> Work:
    """Every question is a prompt and the options it shows, and its answer one token of a few."""
    prompts, prompt, response, _ = _responses(a, facts)
    options = 2 if a.spec["kind"] == "pairwise" else a.spec["n"]
    asked = prompts * number_of_questions(*spec_of(a, "kind", "orders", "n"))
    shown = response if a.spec["longest"] is None else min(response, a.spec["longest"] / 4)
    size, half = facts.size(a.inputs["teacher"]), a.spec["dtype"] != "float32"
    row = scored(size, asked, prompt + options * (shown + 2), 1, options + 1, half=half)
    return row + stored(asked, SCORE_BYTES + 12 * options)


def number_of_questions(kind: str, orders: str, n: int) -> int:
    """Questions about a prompt's n responses: n rotations, n! orders or one; every pair, in both orders or in one."""
    if kind == "pairwise":
        return comb(n, 2) * (1 if orders == "fixed" else 2)
    return {"fixed": 1, "cyclic": n, "all": factorial(n)}[orders]


def baselines(a: Artefact, facts: Facts) -> Work:
    """Samples of π*, π₀ and (validation prompts) π* again; π₀'s samples and the references scored by π*."""
    lengths, n = facts.lengths(a), a.spec["samples"]
    prompts = lengths.available("test", a.spec["prompts"])
    probe = lengths.available("validation", a.spec["probe_prompts"])
    response = lengths.response(a.spec["max_new_tokens"])
    target, prior = facts.size(a.inputs["target"]), facts.size(a.inputs["prior"])
    drawn = sampled(target, prompts + probe, lengths.prompt, response, n) + sampled(prior, prompts, lengths.prompt, response, n)
    read = scored(target, prompts, lengths.prompt, response, n + 1)
    return drawn + read + stored((2 * prompts + probe) * n, response_bytes(response))


def calibrate(a: Artefact, facts: Facts) -> Work:
    """The held-out pairs under each seed's reward model."""
    total = Work()
    for seed in a.spec["seeds"]:
        lengths, made = facts.lengths(a), a.inputs[f"preferences/{seed}"].spec
        pairs = lengths.available("test", made["test_prompts"]) * made["pairs_per_prompt"]
        response = lengths.response(made["max_new_tokens"])
        total += scored(facts.size(a.inputs[f"reward_model/{seed}"]), pairs, lengths.prompt, response, 2)
        total += stored(5 * pairs, SCORE_BYTES)
    return total


def evaluate(a: Artefact, facts: Facts) -> Work:
    """Of each seed's policy: its samples, scored by π*, π₀ and r̂; π₀'s samples by r̂; π*'s samples by the policy."""
    lengths, seeds = facts.lengths(a), a.spec["seeds"]
    row = (
        lengths.available("test", a.spec["prompts"]),
        lengths.prompt,
        lengths.response(a.spec["max_new_tokens"]),
        a.spec["samples"],
    )
    policy, target = facts.size(a.inputs[f"policy/{seeds[0]}"]), facts.size(a.inputs["target"])
    once = sampled(policy, *row) + scored(policy, *row) * 4 + scored(target, *row)
    tables = stored(row[0] * row[3], response_bytes(row[2])) + stored(row[0] * METRICS, SCORE_BYTES / 4)
    return (once + tables) * len(seeds)


def held_out(a: Artefact, facts: Facts) -> Work:
    """Samples of an untrained model and, where it is known, their log π*."""
    lengths = facts.lengths(a)
    row = (
        lengths.available("test", a.spec["prompts"]),
        lengths.prompt,
        lengths.response(a.spec["max_new_tokens"]),
        a.spec["samples"],
    )
    judged = scored(facts.size(a.inputs["target"]), *row) if "target" in a.inputs else Work()
    return sampled(facts.size(a.inputs["policy"]), *row) + judged + stored(row[0] * row[3], response_bytes(row[2]))


def teacher(a: Artefact, facts: Facts) -> Work:
    """The questions that a trained teacher is asked about references; all else is read from tables."""
    prompts, prompt, response, n = _responses(a, facts)
    tables = stored(prompts * n * n, SCORE_BYTES)
    if "trained" not in a.inputs:
        return tables
    size = facts.size(a.inputs["trained"])
    asked = [scored(size, ANSWERED, prompt + options * (response + 2), 1, options) for options in (2, 4)]
    return tables + asked[0] + asked[1]


def student(a: Artefact, facts: Facts) -> Work:
    """Of each seed's student: a `held_out`, and the candidates under the student."""
    prompts, prompt, response, _ = _responses(a, facts)
    seeds = a.spec["seeds"]
    policy = facts.size(a.inputs[f"policy/{seeds[0]}"])
    own = held_out(Artefact("held_out", a.name, a.spec, {**a.inputs, "policy": a.inputs[f"policy/{seeds[0]}"]}), facts)
    once = own + scored(policy, prompts, prompt, response, a.spec["n"]) + stored(prompts * METRICS, SCORE_BYTES / 4)
    return once * len(seeds)


def _responses(a: Artefact, facts: Facts) -> tuple[int, float, float, int]:
    """Prompts, tokens of a prompt and of a response, and responses a prompt, of the artefact's input `responses`."""
    lengths, made = facts.lengths(a), a.inputs["responses"].spec
    prompts = lengths.available(made["split"], made["prompts"])
    return prompts, lengths.prompt, lengths.response(made["max_new_tokens"]), made["n"]


FORMULAS: dict[str, Formula] = {
    "model": fetched,
    "train": trained,
    "preferences": preferences,
    "reference": reference,
    "responses": responses,
    "scores": scores,
    "questions": questions,
    "baselines": baselines,
    "calibrate": calibrate,
    "evaluate": evaluate,
    "held_out": held_out,
    "teacher": teacher,
    "student": student,
    **behaviour.FORMULAS,
}


def work_of(artefact: Artefact, facts: Facts) -> Work:
    """What making an artefact costs; nothing is counted of stages without a model. UnknownWork where it cannot be known yet."""
    formula = FORMULAS.get(artefact.stage)
    return formula(artefact, facts) if formula else Work()
