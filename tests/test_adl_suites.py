"""The suites of ADL at the paper's scale: the paper's numbers, what a run plans, and what runs share."""

import math
from pathlib import Path
from typing import Any

import pytest
from changed_suites import changed, committed
from checkouts import ROOT, copy
from test_pad_plan import jobs

from prefdist.config.adl import AdlSuite
from prefdist.exports.sources import closure
from prefdist.plan import Artefact, Plan, plan

PAPER = ("tldr", "chat")


def parsed(name: str, **changes: Any) -> AdlSuite:
    return changed(name, AdlSuite, **changes)


def planned(name: str, **changes: Any) -> Plan:
    return plan(parsed(name, **changes), ROOT)


def named(made: Plan, stage: str, name: str) -> Artefact:
    (artefact,) = (a for a in made.of_stage(stage) if a.name == name)
    return artefact


# ---- the paper's numbers ---------------------------------------------------------------------------------------------

# Tables 5 and 6 of the paper: batch, learning rate, schedule, and the coefficients of each method.
TLDR = {
    "dpo": (64, 3e-6, "linear", {"beta": 0.05}, 0.1),
    "pmle": (512, 1e-6, "linear", {"beta": 1e-5, "gamma": 1e-2}, 0.1),
    "rebel": (512, 3e-6, "linear", {"eta": 1.0, "beta": 0.05}, 0.7),
    "distill": (512, 3e-6, "linear", {"gamma": 0.1, "beta": 0.05}, 0.7),
    "rlhf": (512, 3e-6, "linear", {"beta": 0.05}, 0.7),
    "reverse_kl": (512, 3e-6, "linear", {"beta": 0.05, "gamma": 0.01}, 0.7),
}
CHAT = {
    "dpo": (128, 5e-7, "cosine", {"beta": 0.05}, 0.8),
    "pmle": (128, 3e-7, "cosine", {"gamma": 5e-3, "beta": 0.0}, 0.8),
    "rebel": (128, 3e-7, "cosine", {"eta": 1e6, "beta": 0.0}, 0.8),
    "distill": (128, 3e-7, "cosine", {"gamma": 0.1, "beta": 0.05}, 0.8),
}


@pytest.mark.parametrize(("name", "table"), [("tldr", TLDR), ("chat", CHAT)])
def test_hyper_parameters_are_the_papers(name: str, table: dict[str, Any]) -> None:
    suite = parsed(name)
    for run, (batch, rate, schedule, parameters, temperature) in table.items():
        found = suite.runs[run]
        assert (found.optimisation.batch_size, found.optimisation.learning_rate, found.optimisation.schedule) == (
            batch,
            rate,
            schedule,
        )
        assert found.parameters == parameters and found.decoding.temperature == temperature and found.bases is None
        if name == "tldr":
            assert found.lora is not None
            assert (found.lora.r, found.lora.lora_alpha, found.lora.lora_dropout) == (1024, 2048, 0.0)


def test_steps_are_the_papers_epochs_and_episodes() -> None:
    tldr, chat = parsed("tldr"), parsed("chat")
    assert tldr.demonstrations is not None and tldr.reward_model is not None
    assert tldr.demonstrations.optimisation.steps == math.ceil(116_722 / 64)
    assert tldr.reward_model.optimisation.steps == tldr.runs["dpo"].optimisation.steps == math.ceil(92_832 / 64)
    assert tldr.runs["pmle"].optimisation.steps == 92_832 // 512
    for run in ("rebel", "distill", "rlhf", "reverse_kl"):
        rollouts = tldr.runs[run].rollouts
        assert rollouts is not None and rollouts.epochs == 4
        assert tldr.runs[run].optimisation.steps == 1_000_000 // 512 * 4
    assert {run.optimisation.steps for run in chat.runs.values()} == {60_000 // 128}


# ---- what a run plans ------------------------------------------------------------------------------------------------


def expected_jobs(mapping: dict[str, Any]) -> dict[str, int]:
    """From the suite's text alone."""
    seeds, bases, sets = len(mapping["seeds"]), len(mapping["bases"]), mapping["evaluation"]["sets"]
    runs = [run for run in mapping["runs"].values() for _ in run.get("bases", mapping["bases"])]
    fine_tuned = "demonstrations" in mapping
    sources = [mapping["pairs"], *sets.values(), *([mapping["demonstrations"]] if fine_tuned else [])]
    trained = seeds * len(runs) + (bases * seeds if "reward_model" in mapping else 0) + (bases if fine_tuned else 0)
    laws = 2 * len(runs) + bases  # a common one and its own; those of π₀ are the same
    judges = [of_set["judging"] for of_set in sets.values() if "judging" in of_set]
    two_turns = [run for judging in judges if judging["protocol"] == "mt_bench" for run in judging["runs"]]
    return {
        "dataset": len({source["dataset"] for source in sources}),
        "model": bases + ("external_reward_model" in mapping),
        "prompts": bases * (len(sets) + fine_tuned),
        "pairs": bases,
        "reference": bases,
        "train": trained,
        "draws": seeds * (len(sets) * laws + bases * len(two_turns)),
        "alignment": len(runs) + bases,
        "judge": seeds * bases * sum(len(judging["runs"]) for judging in judges),
        "ablation": len(mapping["ablations"]),
        "publish_ablation": len(mapping["ablations"]),
        "adl_results": 1,
        "publish": 1,
    }


@pytest.mark.parametrize("name", PAPER)
def test_a_dry_run_of_the_paper_suites(name: str, tmp_path: Path) -> None:
    """A commit of zeros, as tldr has one, does not stop it."""
    found = jobs(copy(tmp_path / "checkout"), name)
    for target in (name, "total"):
        found.pop(target)
    assert found == expected_jobs(committed(name))


def test_who_learns_from_what() -> None:
    """Pairs: DPO and PMLE, the latter with fresh samples against π₀; all others: prompts of the demonstrations, and r̂."""
    made = planned("tldr")
    for base in ("1.4b", "2.8b", "6.9b"):
        start = named(made, "train", f"{base}-base")
        assert start.inputs["init"].path == named(made, "model", base).path
        assert start.inputs["text"].name == f"{base}-demonstrations"
        for run in TLDR:
            inputs = named(made, "train", f"{base}-{run}-seed1").inputs
            names = {role: source.name for role, source in inputs.items()}
            expected = {"text": f"{base}-pairs", "init": f"{base}-base"}
            if run == "dpo":
                expected |= {"preferences": f"{base}-pairs", "reference": f"{base}-pairs"}
            elif run == "pmle":
                expected |= {"preferences": f"{base}-pairs", "prior": f"{base}-base"}
            else:
                reward_model = f"{base}-reward_model-seed1"
                expected |= {"prompts": f"{base}-demonstrations", "prior": f"{base}-base", "reward_model": reward_model}
            assert names == expected
            if "reward_model" in inputs:
                scorer = inputs["reward_model"].inputs
                assert (scorer["init"].name, scorer["preferences"].name) == (f"{base}-base", f"{base}-pairs")
    external = named(planned("chat"), "train", "llama3-distill-seed0").inputs
    assert {role: (source.stage, source.name) for role, source in external.items()} == {
        "text": ("pairs", "llama3-pairs"),
        "init": ("model", "llama3"),
        "prior": ("model", "llama3"),
        "preferences": ("pairs", "llama3-pairs"),
        "reward_model": ("model", "reward_model"),
    }


def test_answers_have_a_common_law_and_their_own() -> None:
    made = planned("tldr")
    measured = named(made, "alignment", "2.8b-pmle")
    assert measured.spec["laws"]["common"]["temperature"] == 1.0 and measured.spec["laws"]["own"]["temperature"] == 0.1
    assert measured.inputs["draws/tldr/common/0"].spec["law"] == {}
    assert measured.inputs["draws/tldr/own/0"].spec["law"] == {"temperature": 0.1}
    keys = {a.spec["key"] for a in made.of_stage("draws")}
    assert keys == {f"tldr/{seed}" for seed in (0, 1, 2)}, "equal random numbers for all policies"
    chat = named(planned("chat"), "alignment", "llama3-dpo").inputs["draws/mt_bench/own/1"]
    assert chat.spec["law"] == {"temperature": 0.8, "top_p": 0.9} and chat.name == "llama3-dpo-mt_bench-t0.8_p0.9-1"


def test_judges_are_asked_about_what_runs_say_by_their_own_law() -> None:
    made = planned("tldr")
    asked = named(made, "judge", "2.8b-pmle-tldr-1")
    assert asked.inputs["answers"].path == named(made, "alignment", "2.8b-pmle").inputs["draws/tldr/own/1"].path
    assert asked.inputs["prompts"].path == named(made, "prompts", "2.8b-tldr").path and set(asked.inputs) == {
        "answers",
        "prompts",
    }
    assert made.final.inputs["judged/2.8b-pmle/tldr/1"].path == asked.path
    judging = {"judge": {"kind": "reward_model"}, "against": "base", "samples": 2}
    local = planned("tldr", **{"evaluation/sets/tldr/judging": judging})
    assert not local.of_stage("judge")
    assert len(local.of_stage("judge_local")) == len(local.of_stage("alignment")) * 3, "everybody, π₀ too, and every seed"
    found = named(local, "judge_local", "2.8b-pmle-tldr-1")
    assert found.inputs["baseline"].path == named(local, "alignment", "2.8b-base").inputs["draws/tldr/own/1"].path
    assert found.inputs["reward_model"].path == named(local, "train", "2.8b-reward_model-seed1").path


def test_the_benchmarks_of_chat_have_what_their_judges_need() -> None:
    """MT-Bench a second turn behind each judged answer; AlpacaEval its difficulties; Arena-Hard the answers of gpt-4-0314."""
    made = planned("chat")
    asked = {name: named(made, "judge", f"llama3-dpo-{name}-1") for name in ("mt_bench", "alpaca_eval", "arena_hard")}
    second = asked["mt_bench"].inputs["second_answers"]
    assert second.inputs["first"].path == asked["mt_bench"].inputs["answers"].path
    assert second.spec["law"] == second.inputs["first"].spec["law"] and second.spec["key"] == "mt_bench/1/second"
    assert second.spec["samples"] == 1 < second.inputs["first"].spec["samples"]
    assert asked["alpaca_eval"].inputs["alpaca_eval"].path == asked["alpaca_eval"].inputs["prompts"].inputs["dataset"].path
    assert {*asked["arena_hard"].inputs} == {"answers", "prompts"}
    prompts = asked["arena_hard"].inputs["prompts"]
    assert prompts.spec["answers"] == "data/arena-hard-v0.1/model_answer/gpt-4-0314.jsonl"
    assert prompts.spec["answers"] in prompts.inputs["dataset"].spec["files"]


# ---- what artefacts have in common -----------------------------------------------------------------------------------


def new(before: Plan, after: Plan) -> set[str]:
    return {f"{a.stage}/{a.name}" for path, a in after.artefacts.items() if path not in before.artefacts}


def test_another_gamma_costs_its_run_alone() -> None:
    after = planned("tldr", **{"runs/pmle_gamma_0.1/parameters": {"gamma": 0.2, "beta": 1e-5}})
    own = {f"train/2.8b-pmle_gamma_0.1-seed{seed}" for seed in (0, 1, 2)}
    own |= {f"draws/2.8b-pmle_gamma_0.1-tldr-{law}-{seed}" for seed in (0, 1, 2) for law in ("t1", "t0.1")}
    own |= {"alignment/2.8b-pmle_gamma_0.1", "ablation/tldr-gamma_pmle", "ablation/tldr-one_gamma", "adl_results/tldr"}
    assert new(planned("tldr"), after) == own


def test_an_ablation_needs_its_base_alone() -> None:
    made = planned("tldr")
    needed = closure([made.ablations["gamma_distill"].final]).values()
    assert not [a.name for a in needed if a.name.startswith(("1.4b", "6.9b"))]
    assert {a.name for a in needed if a.stage == "train"} == {"2.8b-base"} | {
        f"2.8b-{run}-seed{seed}"
        for run in ("reward_model", "distill", "distill_gamma_0.01", "distill_gamma_1")
        for seed in (0, 1, 2)
    }


def test_another_size_costs_itself_alone() -> None:
    """What licences say is in no digest."""
    licensed = planned("tldr", **{"bases/1.4b/licence": "another", "pairs/licence": "another"})
    assert new(planned("tldr"), licensed) == set()
    after = new(planned("tldr"), planned("tldr", **{"bases/1.4b/revision": "1" * 40}))
    assert {name.partition("/")[2][:4] for name in after} == {"1.4b", "tldr"}
    assert "adl_results/tldr" in after and not [name for name in after if name.startswith("dataset/")]


def test_a_reward_as_it_is_changes_no_digest() -> None:
    """A factor of 1 is no factor: published trainings keep their folders."""
    plain = named(planned("chat"), "train", "llama3-distill-seed0")
    assert "reward" not in plain.spec
    scaled = named(planned("chat"), "train", "llama3-distill_reward_10-seed0")
    assert scaled.spec == plain.spec | {"reward": {"scale": 10.0, "unfinished": None}}
