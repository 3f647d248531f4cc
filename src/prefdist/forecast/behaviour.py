"""The work of the stages that sample aligned models and measure their behaviour.

Left out: embeddings of texts and what runs no model (metrics, tables of questions and problems).
"""

from math import ceil

from prefdist.forecast.work import (
    SCORE_BYTES,
    Facts,
    Formula,
    UnknownWork,
    Work,
    response_bytes,
    sampled,
    scored,
    stored,
)
from prefdist.plan.graph import Artefact

FILLINGS = 3
"""What stands in front of a prompt in turn: repeats, random tokens, text (evaluation/repeats.py)."""
QUESTION, OPTION = 60.0, 15.0
"""Tokens of a dataset's question and of one of its options: English, a sentence or two. Not measured."""
METRIC_BYTES = SCORE_BYTES / 4
"""Of a metric row: names repeat and are encoded away."""


def pairs(a: Artefact, facts: Facts) -> Work:
    """Labelled pairs of a dataset: no model runs."""
    response = facts.lengths_of(a).response(a.spec["max_response_tokens"])
    number = a.spec["train_pairs"] + a.spec["test_prompts"]
    return stored(number, 2 * response_bytes(response) + 3 * facts.lengths_of(a).prompt)


def draws(a: Artefact, facts: Facts) -> Work:
    """`samples` a prompt. With a contrast, π₀ runs beside the model."""
    row = _drawn(a, facts)
    reference = sampled(facts.size(a.inputs["reference"]), *row) if "reference" in a.inputs else Work()
    return sampled(facts.size(a.inputs["policy"]), *row) + reference + stored(row[0] * row[3], response_bytes(row[2]))


def alignment(a: Artefact, facts: Facts) -> Work:
    """Of each seed, set and law: the samples under π₀ and the reward model, and the dataset's own answers under the latter."""
    base, total = facts.size(a.inputs["base"]), Work()
    for name in a.spec["sets"]:
        for label in a.spec["laws"]:
            for seed in a.spec["seeds"]:
                prompts, prompt, response, n = _drawn(a.inputs[f"draws/{name}/{label}/{seed}"], facts)
                total += scored(base, prompts, prompt, response, n) * 2 + scored(base, prompts, prompt, response, 1)
                total += stored(prompts * 7, METRIC_BYTES)
    return total


def judge_local(a: Artefact, facts: Facts) -> Work:
    """Every answer and what it is compared with, under the reward model or π*: a prompt with two responses."""
    prompts, prompt, response, n = _drawn(a.inputs["answers"], facts)
    judged = prompts * min(n, a.spec["samples"] or n)
    judge = facts.size(a.inputs["reward_model" if "reward_model" in a.inputs else "target"])
    return scored(judge, judged, prompt, response, 2) + stored(judged, 2 * response_bytes(response))


def diversity(a: Artefact, facts: Facts) -> Work:
    """A policy's samples under π₀; these and π₀'s under two reward models and, where preferences are known, π*."""
    base, total = facts.size(a.inputs["base"]), Work()
    for seed in a.spec["seeds"]:
        row = _drawn(a.inputs[f"draws/{seed}"], facts)
        total += scored(base, *row) * 5 + _by_target(a, facts, row) * 2 + stored(row[0] * 14, METRIC_BYTES)
    return total


def shift(a: Artefact, facts: Facts) -> Work:
    """Samples of the policy and π₀ under π*, the judge and three SFT models; held-out pairs under policy, π₀ and rewards."""
    base, total = facts.size(a.inputs["base"]), Work()
    for seed in a.spec["seeds"]:
        row = _drawn(a.inputs[f"draws/{seed}"], facts)
        scorings = 2 + 2 * 3 + (a.spec["objective"] is not None)  # π₀'s samples under π₀, to tilt them
        _, budget = labelled(a.inputs[f"preferences/{seed}"], facts)
        pair_row = (a.spec["pairs"], row[1], facts.lengths(a).response(budget), 2)
        total += scored(base, *row) * scorings + _by_target(a, facts, row) * 2
        total += scored(base, *pair_row) * 4 + _by_target(a, facts, pair_row)
        total += stored(row[0] * 8 + a.spec["pairs"] * 3, METRIC_BYTES)
    return total


def repeats(a: Artefact, facts: Facts) -> Work:
    """Behind each filling of each length: samples of both models, each scored by both, and both laws at each token."""
    lengths, spec, base = facts.lengths(a), a.spec, facts.size(a.inputs["base"])
    prompts, response = lengths.available("test", spec["prompts"]), float(spec["max_new_tokens"])
    total = Work()
    for k in spec["counts"]:
        prompt = lengths.prompt + k
        drawn = sampled(base, prompts, prompt, response, spec["samples"]) * (3 if spec["law"].get("contrast") else 2)
        together = scored(base, prompts, prompt, response, spec["samples"]) * 2
        apart = scored(base, prompts * spec["samples"], prompt, response, 1) * 2
        first = Work({"score": 2 * 2 * base.body * prompts * prompt}, {"score": 2 * ceil(prompts / 64)})
        total += (drawn + together + apart + first) * FILLINGS
    return total * len(spec["seeds"]) + stored(prompts * 7 * FILLINGS * len(spec["counts"]), METRIC_BYTES)


def calibration(a: Artefact, facts: Facts) -> Work:
    """Each question once: its answer is one token of a few, all behind one prompt."""
    size, total = facts.size(a.inputs[f"policy/{a.spec['seeds'][0]}"]), Work()
    for name in a.spec["choices"]:
        asked = a.inputs[f"choices/{name}"]
        questions, options, shots = (asked.spec[key] for key in ("questions", "options", "shots"))
        if "text" in asked.inputs:
            lengths = facts.lengths(asked)
            shown = lengths.prompt + options * ((lengths.reference or 0.0) + 2)
        else:
            shown = QUESTION + options * OPTION
        total += scored(size, questions, (1 + shots) * shown, 1, options) + stored(questions, 2 * SCORE_BYTES)
    return total * len(a.spec["seeds"])


def best_of_n(a: Artefact, facts: Facts) -> Work:
    """The answers of each seed under its judge."""
    total = Work()
    for seed in a.spec["seeds"]:
        row = _drawn(a.inputs[f"draws/{seed}"], facts)
        total += scored(facts.size(a.inputs[f"judge/{seed}"]), *row) + stored(row[0] * row[3], SCORE_BYTES)
    other = a.inputs["split"].spec
    return total + stored(other["prompts"] * other["samples"], SCORE_BYTES)


def tax(a: Artefact, facts: Facts) -> Work:
    """Held-out references."""
    lengths, size = facts.lengths(a), facts.size(a.inputs[f"policy/{a.spec['seeds'][0]}"])
    texts = lengths.available("test", a.spec["texts"])
    once = scored(size, texts, lengths.prompt, facts.reference(a), 1) + stored(texts, METRIC_BYTES)
    return once * len(a.spec["seeds"])


def benchmarks(a: Artefact, facts: Facts) -> Work:
    """UnknownWork: the documents of lm-evaluation-harness are not known before they are fetched."""
    raise UnknownWork(f"the documents of the benchmarks {', '.join(a.spec['tasks'])} are not counted")


def labelled(made: Artefact, facts: Facts) -> tuple[float, int]:
    """Training and held-out pairs of an artefact that holds such, drawn from π₀ or of a dataset, and the longest response."""
    if made.stage == "pairs":
        return made.spec["train_pairs"] + made.spec["test_prompts"], made.spec["max_response_tokens"]
    lengths = facts.lengths(made)
    prompts = lengths.available("train", made.spec["train_prompts"]) + lengths.available("test", made.spec["test_prompts"])
    return prompts * made.spec["pairs_per_prompt"], made.spec["max_new_tokens"]


def _drawn(a: Artefact, facts: Facts) -> tuple[float, float, float, int]:
    """Prompts, tokens of a prompt and of a response, and responses a prompt of an artefact of draws."""
    lengths = facts.lengths(a)
    prompts = lengths.available(a.spec["split"], a.spec["prompts"])
    if "first" in a.inputs:  # a second question, taken to be as long as the first, behind each answer
        response = lengths.response(a.spec["max_new_tokens"])
        return prompts * a.spec["samples"], 2 * lengths.prompt + response, response, 1
    return prompts, lengths.prompt, lengths.response(a.spec["max_new_tokens"]), a.spec["samples"]


def _by_target(a: Artefact, facts: Facts, row: tuple[float, float, float, int]) -> Work:
    """The rows under π*, where it is known."""
    return scored(facts.size(a.inputs["target"]), *row) if "target" in a.inputs else Work()


FORMULAS: dict[str, Formula] = {
    "pairs": pairs,
    "draws": draws,
    "alignment": alignment,
    "judge_local": judge_local,
    "diversity": diversity,
    "shift": shift,
    "repeats": repeats,
    "calibration": calibration,
    "best_of_n": best_of_n,
    "tax": tax,
    "benchmarks": benchmarks,
}
