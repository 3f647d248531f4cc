"""Suites of behaviour: what is refused, with file, key and value."""

from typing import Any

import pytest
from changed_suites import check_refused
from checkouts import ROOT

from prefdist.config.spl import SplSuite

SMOKE = "spl_smoke"
MODEL = {"hub": "a/b", "revision": "c"}
HERE = {"dataset": str(ROOT)}
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    (SMOKE, {"decoder": {}}, ["decoder: no such key"]),
    (SMOKE, {"seeds": [1, 1]}, ["seeds: each seed once, found [1, 1]"]),
    (SMOKE, {"world": None}, ["give world (a testbed suite) or pairs (a dataset), one of them"]),
    (SMOKE, {"base": MODEL}, ["pairs, base and reward_model go together; a world has its own"]),
    ("spl", {"reward_model": None}, ["pairs, base and reward_model go together"]),
    ("spl", {"world": "testbed"}, ["give world", "one of them"]),
    ("spl", {"pairs/revision": None}, ["pairs: dataset: Anthropic/hh-rlhf is no folder", "revision"]),
    ("spl", {"pairs/format": "transcripts"}, ["pairs.format", "'transcripts'"]),
    ("spl", {"pairs/judge_share": 1}, ["pairs.judge_share", "found 1"]),
    ("spl", {"pairs/splits": {"training": "train"}}, ["pairs.splits.training", "'training'"]),
    ("spl", {"base/revision": None}, ["base: hub: mistralai/Mistral-7B-Instruct-v0.2 needs revision"]),
    ("spl", {"questions": [{"optimisation": {"steps": 1, "learning_rate": 1e-3}}]}, ["questions: only the π₀ of a world"]),
    (
        "spl",
        {"reward_model/lora": {"r": 4, "lora_alpha": 4, "target_modules": ["q_proj"]}},
        ["reward_model.lora: a reward model"],
    ),
    ("spl", {"diversity/embedder/revision": None}, ["diversity.embedder: hub and revision go together"]),
    ("spl", {"draws": None}, ["draws: diversity and shift are measured on samples"]),
    (SMOKE, {"draws/samples": 1}, ["draws.samples", "1"]),
    (
        SMOKE,
        {name: None for name in ("diversity", "shift", "repeats", "calibration", "tax")},
        ["nothing is measured; give one of"],
    ),
    (SMOKE, {"decoders/base": {"run": "dpo"}}, ["runs and decoders have different names, and none is called base"]),
    (SMOKE, {"decoders/dpo": {"run": "dpo"}}, ["runs and decoders have different names"]),
    (SMOKE, {"decoders/dpo_warm/run": "dpoo"}, ["decoders.dpo_warm.run: 'dpoo' is not one of base, dpo, noisy"]),
    (SMOKE, {"decoders/dpo_warm/temperature": 0}, ["decoders.dpo_warm.temperature", "0"]),
    (SMOKE, {"decoders/dpo_filtered/min_p": 1.5}, ["decoders.dpo_filtered.min_p", "1.5"]),
    (SMOKE, {"runs/dpo/objective": "dpoo"}, ["runs.dpo: ", "dpoo.yaml: no such objective"]),
    (SMOKE, {"runs/spl/parameters": {"gamma": 1.0}}, ["runs.spl: ", "gamma", "alpha"]),
    (SMOKE, {"runs/noisy/label_noise": 0.6}, ["runs.noisy.label_noise", "0.6"]),
    (
        SMOKE,
        {"runs/policy_gradient/rollouts": None},
        ["runs.policy_gradient: objective reverse_kl_rloo samples from the policy"],
    ),
    (SMOKE, {"runs/policy_gradient/label_noise": 0.1}, ["runs.policy_gradient.label_noise", "sees no labels"]),
    (SMOKE, {"runs/dpo/reward_model": "apart"}, ["runs.dpo.reward_model: objective dpo uses none"]),
    (SMOKE, {"runs/dpo/optimisation": {"probe_every": 2}}, ["runs.dpo.optimisation.probe_every: learning curves belong"]),
    (SMOKE, {"shift/mixture/objective": "dpo"}, ["shift.mixture.train_on: objective dpo compares pairs, found both"]),
    (SMOKE, {"repeats/counts": [1, 4]}, ["repeats: counts: different numbers with 0 among them, found [1, 4]"]),
    (SMOKE, {"repeats/policies": ["dpo_warm"]}, ["repeats.policies: 'dpo_warm' is not one of base, dpo, dpo_strong"]),
    (SMOKE, {"calibration/choices/summaries/source": "mmlu"}, ["calibration.choices.summaries.dataset: this source needs one"]),
    (SMOKE, {"calibration/choices/summaries/dataset": HERE}, ["summaries.dataset: a world brings its own"]),
    (
        "spl_best_of_n",
        {"calibration/choices/mmlu": {"source": "references", "questions": 5}},
        ["mmlu.source: this source is a world's"],
    ),
    ("spl_best_of_n", {"best_of_n/problems/dataset": None}, ["best_of_n.problems.dataset: this source needs one"]),
    ("spl_best_of_n", {"best_of_n/problems/source": "aime"}, ["best_of_n.problems.source", "'aime'"]),
    ("spl_best_of_n", {"best_of_n/policies": ["dpo", "spl_9"]}, ["best_of_n.policies: 'spl_9' is not one of base, dpo"]),
    ("spl_arithmetic", {"best_of_n/problems/instruction": "Box it."}, ["best_of_n.problems.instruction: a world's models"]),
    (SMOKE, {"ablations/noise/measure": "best_of_n"}, ["ablations.noise.measure: the suite has no section best_of_n"]),
    (SMOKE, {"ablations/temperature/measure": "tax"}, ["ablations.temperature: 'dpo_warm' is not one of base, dpo, noisy"]),
    (SMOKE, {"ablations/noise/policies": {"0": "dpo"}}, ["ablations.noise.policies", "at least 2"]),
]


@pytest.mark.parametrize(
    ("name", "changes", "expected"), WRONG, ids=[f"{name} {' '.join(changes)}" for name, changes, _ in WRONG]
)
def test_a_wrong_suite_is_refused_with_file_key_and_value(name: str, changes: dict[str, Any], expected: list[str]) -> None:
    check_refused(name, SplSuite, changes, expected)
