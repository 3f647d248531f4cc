"""Suites of ADL at the paper's scale: what is refused, with file, key and value."""

from typing import Any

import pytest
from changed_suites import check_refused

from prefdist.config.adl import AdlSuite

RUN = {"objective": "dpo", "optimisation": {"steps": 1, "learning_rate": 1e-6}}
WRONG: list[tuple[str, dict[str, Any], list[str]]] = [
    ("tldr", {"base": {}}, ["base: no such key"]),
    ("tldr", {"seeds": [1, 1]}, ["seeds: each seed once, found [1, 1]"]),
    ("tldr", {"bases/2.8b/revision": None}, ["bases.2.8b: hub: EleutherAI/pythia-2.8b-deduped needs revision"]),
    ("tldr", {"bases/2-8b": {"hub": "a/b", "revision": "c"}}, ["bases.2-8b", "'2-8b'"]),
    ("tldr", {"bases/other": {"folder": "nowhere"}}, ["bases.other: folder: nowhere: no config.json there"]),
    ("tldr", {"prompts/too_long": "cut"}, ["prompts.too_long", "'cut'"]),
    ("tldr", {"prompts/max_tokens": 0}, ["prompts.max_tokens", "found 0"]),
    ("tldr", {"pairs/format": "dialogues"}, ["pairs.format", "'dialogues'"]),
    ("tldr", {"pairs/revision": None}, ["pairs: dataset: vwxyzjn/summarize", "give revision, a commit"]),
    ("tldr", {"pairs/splits": {"train": "train"}}, ["pairs.splits: name both train and test, found ['train']"]),
    ("tldr", {"demonstrations": None}, ["prompts_from: there are no demonstrations; set it to pairs"]),
    ("tldr", {"demonstrations/splits": {"train": "train"}}, ["demonstrations.splits: name both train and test"]),
    ("tldr", {"demonstrations/objective": "dpo"}, ["demonstrations.objective: dpo learns from more than answers"]),
    ("tldr", {"demonstrations/objective": "sfft"}, ["demonstrations.objective: ", "sfft.yaml: no such objective"]),
    ("tldr", {"demonstrations/format": "mt_bench"}, ["demonstrations.format: mt_bench has no answers to learn from"]),
    ("tldr", {"reward_model": None}, ["give reward_model (how it is trained) or external_reward_model"]),
    ("chat", {"reward_model": RUN}, ["give reward_model (how it is trained) or external_reward_model"]),
    ("tldr", {"reward_model/objective": "dpo"}, ["reward_model.objective: dpo trains no reward model; take reward_model"]),
    (
        "tldr",
        {"reward_model/lora": {"r": 4, "lora_alpha": 4, "target_modules": ["query_key_value"]}},
        ["reward_model.lora: a reward model trains all its weights"],
    ),
    (
        "chat",
        {"external_reward_model/revision": None},
        ["external_reward_model: hub: sfairXC/FsfairX-LLaMA3-RM-v0.1 needs rev"],
    ),
    ("tldr", {"runs/base": RUN}, ["runs: base is the name of π₀"]),
    ("tldr", {"runs/dpo/objective": "dpoo"}, ["runs.dpo: ", "dpoo.yaml: no such objective"]),
    ("tldr", {"runs/pmle/parameters": {"gama": 1}}, ["runs.pmle: ", "gama"]),
    ("tldr", {"runs/pmle/rollouts": None}, ["runs.pmle: objective pmle samples from the policy; give rollouts"]),
    (
        "tldr",
        {"runs/pmle/rollouts/epochs": 4},
        ["runs.pmle: the KL regulariser is on-policy; minibatches and epochs must be 1"],
    ),
    (
        "tldr",
        {"runs/rebel/lora": {"lora_dropout": 0.1}},
        ["runs.rebel: lora.lora_dropout would change the policy that samples"],
    ),
    ("tldr", {"runs/dpo/reward": {"scale": 2}}, ["runs.dpo.reward: objective dpo sees no rewards; leave it out"]),
    ("tldr", {"runs/rebel/reward": {"scale": 0}}, ["runs.rebel.reward.scale", "0"]),
    ("tldr", {"runs/rebel/reward_model": "apart"}, ["runs.rebel.reward_model: an adl suite has one reward model"]),
    ("tldr", {"runs/dpo/bases": ["12b"]}, ["runs.dpo.bases: '12b' is not one of 1.4b, 2.8b, 6.9b"]),
    ("tldr", {"runs/dpo/decoding/temperature": 0}, ["runs.dpo.decoding.temperature", "0"]),
    ("tldr", {"runs/dpo/optimisation/probe_every": 5}, ["runs.dpo.optimisation.probe_every: learning curves belong"]),
    ("tldr", {"baselines/pmle": "dpoo"}, ["baselines: 'dpoo' is not one of"]),
    ("tldr", {"evaluation/sets": {}}, ["evaluation.sets", "at least 1"]),
    ("tldr", {"evaluation/sets/tldr/revision": None}, ["evaluation.sets.tldr: dataset: cleanrl/", "give revision"]),
    ("chat", {"evaluation/sets/mt_bench/format": "mtbench"}, ["evaluation.sets.mt_bench.format", "'mtbench'"]),
    ("tldr", {"evaluation/sets/tldr/judging/runs": ["dpoo"]}, ["evaluation.sets.tldr.judging.runs: 'dpoo' is not one of base"]),
    (
        "tldr",
        {"evaluation/sets/tldr/judging/protocol": "mt_bench"},
        ["evaluation.sets.tldr: judging.protocol: mt_bench rates two turns, and tldr_oai has one"],
    ),
    ("tldr", {"evaluation/sets/tldr/judging/protocol": None}, ["judging: protocol: an endpoint needs one of tldr"]),
    ("tldr", {"evaluation/sets/tldr/judging/judge/prices": None}, ["prices: an endpoint with a key costs money"]),
    (
        "tldr",
        {"evaluation/sets/tldr/judging": {"judge": {"kind": "known", "gamma": 1.0}}},
        ["evaluation.sets.tldr.judging: judge.kind: known is the judge of a testbed"],
    ),
    (
        "chat",
        {"evaluation/sets/arena_hard/answers": None},
        ["evaluation.sets.arena_hard: judging.against: arena_hard has no answers to compare with; set it to base"],
    ),
    (
        "chat",
        {"evaluation/sets/mt_bench/judging/protocol": "arena_hard"},
        ["evaluation.sets.mt_bench: judging.against: mt_bench has no answers to compare with; set it to base"],
    ),
    (
        "chat",
        {"evaluation/sets/alpaca_eval/answers": "other.json"},
        ["evaluation.sets.alpaca_eval: answers: rows of alpaca_eval have their own, or none; leave it out"],
    ),
    (
        "chat",
        {"evaluation/sets/alpaca_eval/files": ["alpaca_eval.json"]},
        ["evaluation.sets.alpaca_eval: judging.difficulties: name alpaca_eval.json and df_gamed.csv of the dataset in files"],
    ),
    (
        "chat",
        {"evaluation/sets/mt_bench/judging/difficulties": True},
        ["evaluation.sets.mt_bench.judging: difficulties: AlpacaEval's are of protocol alpaca_eval; leave it out"],
    ),
    ("chat", {"evaluation/sets/arena_hard/files": ["load.py"]}, ["evaluation.sets.arena_hard.files", "'load.py'"]),
    ("chat", {"evaluation/sets/arena_hard/files": ["../a.json"]}, ["evaluation.sets.arena_hard.files", "'../a.json'"]),
    ("tldr", {"ablations/entropy/base": "12b"}, ["ablations.entropy.base: '12b' is not one of"]),
    (
        "tldr",
        {"ablations/beta_pmle/base": "6.9b"},
        ["ablations.beta_pmle.runs: 'pmle_beta_0' is not one of distill, dpo, pmle"],
    ),
    ("tldr", {"ablations/entropy/runs": {"0": "rlhf"}}, ["ablations.entropy.runs", "at least 2"]),
]


@pytest.mark.parametrize(
    ("name", "changes", "expected"), WRONG, ids=[f"{name} {' '.join(changes)}" for name, changes, _ in WRONG]
)
def test_a_wrong_suite_is_refused_with_file_key_and_value(name: str, changes: dict[str, Any], expected: list[str]) -> None:
    check_refused(name, AdlSuite, changes, expected)
