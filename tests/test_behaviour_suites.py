"""Suites of behaviour: their worlds, what a run plans, and what its artefacts have in common."""

from pathlib import Path
from typing import Any

import pytest
import torch
from changed_suites import changed, committed
from checkouts import copy
from hypothesis import given
from hypothesis import strategies as st
from test_pad_plan import jobs

from prefdist.config.spl import SplSuite
from prefdist.errors import UserError
from prefdist.exact.closed_forms import optimum
from prefdist.exports.sources import closure
from prefdist.objectives.registry import load, read_row
from prefdist.plan import Artefact, Plan, plan
from prefdist.plan.trainings import APART

ROOT = Path(__file__).resolve().parents[1]
SMOKE = "spl_smoke"
PAPER = ("spl", "spl_best_of_n", "spl_best_of_n_math")


def parsed(name: str, **changes: Any) -> SplSuite:
    return changed(name, SplSuite, **changes)


def planned(name: str = SMOKE, **changes: Any) -> Plan:
    return plan(parsed(name, **changes), ROOT)


def test_a_world_of_another_kind_is_refused() -> None:
    with pytest.raises(UserError, match="suite spl_smoke: world: exact is of kind exact; name a testbed suite"):
        planned(world="exact")


def test_an_unknown_world_is_named_with_the_suite_that_asks() -> None:
    with pytest.raises(UserError, match=r"suite spl_smoke: world: workflow/suites/testbet\.yaml: no such suite; known are"):
        planned(world="testbet")


# ---- what a run plans ------------------------------------------------------------------------------------------------


def test_a_dry_run_of_the_paper_suites(tmp_path: Path) -> None:
    """Counts from the suites' text alone, in one plan: what the two suites on problems have in common is made once."""
    first, second, third = map(committed, PAPER)
    assert all(mapping["seeds"] == [0, 1] for mapping in (first, second, third))
    models, decoders = 1 + len(first["runs"]), len(first["decoders"])
    solvers = len(second["best_of_n"]["policies"])
    assert solvers == 1 + len(third["runs"]) + len(third["decoders"])
    assert third["runs"].items() <= second["runs"].items() and third["decoders"] == second["decoders"]
    # A seed's: runs, SFT on three sides of the pairs, reward models of policies and judge; runs and a judge.
    trained = len(first["runs"]) + 3 + 2, len(second["runs"]) + 1
    ablations = sum(len(mapping["ablations"]) for mapping in (first, second, third))
    expected = {
        "dataset": 1 + 4 + 1,  # pairs; pairs, GSM8K, MMLU, TruthfulQA; MATH
        "model": 1 + 1 + 1,  # two bases and an embedder
        "pairs": 2 * 2,
        "reference": 2,
        "choices": 2,
        "problems": 2,
        "train": 2 * sum(trained),
        "draws": 2 * (models + decoders) + 2 * 2 * solvers + 2,
        "diversity": models + decoders,
        "shift": models,
        "tax": models,
        "benchmarks": models,
        "calibration": 1 + len(second["runs"]),
        "best_of_n": 2 * solvers,
        "spl_results": 3,
        "ablation": ablations,
        "publish": 3,
        "publish_ablation": ablations,
    }
    found = jobs(copy(tmp_path / "checkout"), *PAPER)
    for target in (*PAPER, "total"):
        found.pop(target)
    assert found == expected


@pytest.mark.slow
def test_every_suite_is_a_target_and_so_is_every_ablation(tmp_path: Path) -> None:
    checkout = copy(tmp_path / "checkout")
    names = [file.stem for file in (ROOT / "workflow/suites").glob("spl*.yaml")]
    assert {"spl_testbed", "spl_arithmetic", SMOKE, *PAPER} <= set(names)
    ablations = [f"{name}_{ablation}" for name in names for ablation in committed(name)["ablations"]]
    found = jobs(checkout, *names, *ablations)
    assert {*names, *ablations} <= found.keys()


# ---- what artefacts have in common -----------------------------------------------------------------------------------


def new(before: Plan, after: Plan) -> list[str]:
    return sorted(f"{a.stage}/{a.name}" for path, a in after.artefacts.items() if path not in before.artefacts)


def named(made: Plan, stage: str, name: str) -> Artefact:
    (artefact,) = (a for a in made.of_stage(stage) if a.name == name)
    return artefact


def test_a_second_decoder_costs_its_draws_and_their_diversity() -> None:
    after = planned(**{"decoders/dpo_hot": {"run": "dpo", "temperature": 1.5}})
    draws = [f"draws/dpo_hot-held_out-{seed}" for seed in (0, 1)]
    assert new(planned(), after) == sorted(["diversity/dpo_hot", *draws, "spl_results/spl_smoke"])


def test_ablations_share_the_runs_that_they_name() -> None:
    made = planned()
    parts = {name: closure([ablation.final]) for name, ablation in made.ablations.items()}
    shared = {f"{a.stage}/{a.name}" for path, a in parts["temperature"].items() if path in parts["noise"]}
    assert {"train/dpo-seed0", "draws/dpo-held_out-1", "diversity/dpo", "draws/base-held_out-0"} <= shared
    assert not [name for name in shared if "noisy" in name or "warm" in name]
    stages = {a.stage for part in parts.values() for a in part.values()}
    assert not stages & {"shift", "tax", "calibration", "repeats", "spl_results"}, "an ablation needs its own measure alone"


def test_changed_noise_concerns_its_run_alone() -> None:
    after = planned(**{"runs/noisy/label_noise": 0.4})
    measures = [f"{measure}/noisy" for measure in ("diversity", "shift", "calibration", "tax")]
    made = [f"{stage}/noisy-{key}{seed}" for seed in (0, 1) for stage, key in (("train", "seed"), ("draws", "held_out-"))]
    assert new(planned(), after) == sorted([*measures, *made, "ablation/spl_smoke-noise", "spl_results/spl_smoke"])


def test_policies_have_equal_random_numbers_and_seeds_have_others() -> None:
    drawn = planned().of_stage("draws")
    assert len(drawn) == 2 * 8
    assert {a.spec["key"] for a in drawn} == {"held_out/0", "held_out/1"}
    contrasted = [a for a in drawn if "reference" in a.inputs]
    assert {a.name for a in contrasted} == {"dpo_strong-held_out-0", "dpo_strong-held_out-1"}
    assert {a.inputs["reference"].name for a in contrasted} == {"prior"}


def test_judges_learn_from_pairs_that_no_policy_sees() -> None:
    """In a world: of another seed; of a dataset: its other part. `apart` is the only way to learn from a judge."""
    world, dataset = planned(), planned("spl")
    for made, own, apart in ((world, "seed0", f"seed{APART}"), (dataset, "policies", "judge")):
        diversity = named(made, "diversity", "spl" if made is world else "spl_2")
        assert diversity.inputs["own/0"].inputs["preferences"].name == own
        assert diversity.inputs["judge/0"].inputs["preferences"].name == apart
        sources = closure([made.final]).values()
        trained = [
            a for a in sources if a.stage == "train" and "preferences" in a.inputs and not a.name.startswith("reward_model")
        ]
        assert {a.inputs["preferences"].name for a in trained} == {own, own.replace("0", "1")}
    learner = named(world, "train", "policy_gradient-seed0")
    assert learner.inputs["reward_model"].path == named(world, "shift", "dpo").inputs["judge/0"].path


def test_two_suites_on_problems_share_all_trainings() -> None:
    one, other = planned("spl_best_of_n"), planned("spl_best_of_n_math")
    assert {a.path for a in other.of_stage("train")} <= {a.path for a in one.of_stage("train")}
    assert not {a.path for a in other.of_stage("draws")} & {a.path for a in one.of_stage("draws")}


def test_the_split_is_by_other_answers() -> None:
    """Of π₀, under another key than the answers that are scored, and the same for all policies."""
    made = planned("spl_best_of_n")
    splits = {a.inputs["split"].path for a in made.of_stage("best_of_n")}
    assert len(splits) == 1
    split = named(made, "draws", "base-split")
    assert split.path in splits and split.inputs["policy"].name == "base"
    assert split.spec["key"] not in {a.spec["key"] for a in made.of_stage("draws") if a is not split and a.path != split.path}


# ---- SPL's form for policy gradients ---------------------------------------------------------------------------------


@given(alpha=st.floats(0.1, 3), beta=st.floats(0, 3))
def test_spl_is_the_reverse_kl_with_an_entropy_bonus(alpha: float, beta: float) -> None:
    """α = β + γ: the rows have one closed form, α < β (γ < 0) included."""
    policy_gradient = optimum(read_row("reverse_kl_rloo", {"beta": beta, "gamma": alpha - beta}))
    from_pairs = optimum(read_row("spl", {"alpha": alpha, "beta": beta}))
    assert policy_gradient is not None and from_pairs is not None
    # β + (α − β) is α up to the last bits of the larger.
    assert (policy_gradient.a, policy_gradient.b) == pytest.approx((from_pairs.a, from_pairs.b), abs=1e-12)
    assert (policy_gradient.signal, policy_gradient.scale, policy_gradient.mean) == ("reward", 1.0, False)
    assert (from_pairs.signal, from_pairs.scale, from_pairs.mean) == ("reward", 1.0, False)


@pytest.mark.parametrize(("alpha", "beta"), [(0.3, 0.1), (0.1, 0.1), (0.1, 0.25)])
def test_the_gradient_is_that_of_spls_objective(alpha: float, beta: float) -> None:
    """All pairs of samples of a law on five responses, weighted by their probability: the expectation of RLOO's gradient.

    Beside autograd of SPL's E[r] + α·H(π) − β·H(π, π₀), written out.
    """
    generator = torch.Generator().manual_seed(0)
    logits, reference, reward = torch.randn(3, 5, generator=generator, dtype=torch.float64)
    logits.requires_grad_()
    log_prior = reference.log_softmax(-1)
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    objective = (p * reward).sum() - alpha * (p * log_p).sum() + beta * (p * log_prior).sum()
    (expected,) = torch.autograd.grad(objective, logits)

    drawn = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    log_p = logits.log_softmax(-1)
    tokens = {"policy": log_p[drawn].unsqueeze(-1), "reference": log_prior[drawn].unsqueeze(-1)}
    tokens["old"] = tokens["policy"].detach()
    columns = {"mask": torch.ones(25, 2, 1, dtype=torch.bool), "scores": reward[drawn]}
    losses = load("reverse_kl_rloo", {"beta": beta, "gamma": alpha - beta})(tokens, columns)
    weights = log_p.detach().exp()[drawn].prod(-1)
    (found,) = torch.autograd.grad((weights * losses).sum(), logits)
    torch.testing.assert_close(-found, expected, atol=1e-12, rtol=0)
    other = load("reverse_kl_rloo", {"beta": beta, "gamma": alpha})(
        tokens | {"policy": logits.log_softmax(-1)[drawn].unsqueeze(-1)}, columns
    )
    (wrong,) = torch.autograd.grad((weights * other).sum(), logits)
    assert float((wrong + expected).abs().max()) > 1e-3, "γ taken for α is noticed"
