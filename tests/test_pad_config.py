"""Suites of preference distillation: what is refused, with file, key and value; and what their runs have in common."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from changed_suites import committed

from prefdist import suites
from prefdist.config import models as config_models
from prefdist.config import pad as config_pad
from prefdist.config.pad import PadSuite
from prefdist.errors import UserError
from prefdist.objectives import plackett_luce
from prefdist.plan import Artefact, Plan, plan
from prefdist.scoring import questions

ROOT = Path(__file__).resolve().parents[1]
PATH = Path("workflow/suites/pad_smoke.yaml")
BIG = {"n": 16, "draws": 20, "max_new_tokens": 8}
LLAMA = {"vocabulary": 400, "architecture": {"model_type": "llama"}, "optimisation": {"steps": 1, "learning_rate": 1e-3}}


def changed(**changes: Any) -> dict[str, Any]:
    """The suite pad_smoke with other values at dotted keys, as in `{"runs.paper.n": 2}`."""
    mapping = yaml.safe_load((ROOT / PATH).read_text())
    for keys, value in changes.items():
        node = mapping
        *parents, last = keys.split(".")
        for key in parents:
            node = node[int(key)] if isinstance(node, list) else node.setdefault(key, {})
        node[last] = value
    return mapping


def refused(changes: dict[str, Any]) -> str:
    with pytest.raises(UserError) as caught:
        suites.parse_suite(changed(**changes), PATH)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith(f"{PATH}: ")
    return sentence


# Each is one change, or a few, and what the sentence must have: the key, the value, what to do.
WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"sample": {}}, ["sample: no such key"]),
    ({"runs.paper.bets": 3.0}, ["runs.paper.bets: no such key (value 3.0)"]),
    ({"runs.paper.reward.alfa": 0.8}, ["runs.paper.reward.alfa: no such key (value 0.8)"]),
    ({"evaluation.beta": 0}, ["evaluation.beta", "0"]),
    ({"seeds": [1, 1]}, ["seeds: each seed once, found [1, 1]"]),
    ({"world": None}, ["give world (a testbed suite) or prompts (a dataset), one of them"]),
    ({"prompts": {"dataset": str(ROOT), "splits": {"train": "a", "test": "b"}}}, ["give world", "one of them"]),
    ({"prompts": {"dataset": "a/b", "splits": {"train": "a", "test": "b"}}}, ["dataset: a/b is no folder", "revision"]),
    ({"prompts": {"dataset": str(ROOT), "splits": {"train": "a"}}}, ["splits: name both", "['train']"]),
    ({"models.student": {"hub": "a/b"}}, ["models.student: hub: a/b needs revision"]),
    (
        {"models.student": {"hub": "a/b", "revision": "c", "folder": "d"}},
        ["models.student: give hub (with revision) or folder, one of them"],
    ),
    ({"models.student": {"folder": "no/such"}}, ["models.student: folder: no/such", "config.json"]),
    ({"models.student.vocabulary": 12}, ["models.student.vocabulary", "12"]),
    ({"models.student.objective": "sftt"}, ["models.student.objective", "sftt.yaml: no such objective"]),
    ({"models.teacher.objective": "dpo"}, ["models.teacher.objective: dpo does not learn from references"]),
    ({"models.teacher.questions.0.objective": "dpo"}, ["models.teacher.questions.0.objective: dpo does not learn"]),
    ({"models.teacher.questions.0.max_options": 27}, ["models.teacher.questions.0.max_options", "27"]),
    ({"runs.resampled.decomposition.shuffle": True}, ["runs.resampled.decomposition: shuffle and resample exclude each other"]),
    ({"samples.eight.draws": 7}, ["samples.eight: draws: 7 is less than n, 8"]),
    ({"samples.eight.top_p": 1.5}, ["samples.eight.top_p", "1.5"]),
    ({"questions.n_way.template": "shrot"}, ["questions.n_way.template", "'shrot'"]),
    ({"samples.released.n": 6, "questions.n_way.orders": "all"}, ["questions.n_way: 6 options in orders all", "at most 4"]),
    ({"runs.resampled.decomposition.resample": False, "questions.n_way.orders": "all"}, ["reward.questions: 8 options"]),
    ({"samples.eight": {**BIG, "n": 30, "draws": 30}, "runs.paper.n": 27}, ["runs.paper.reward.questions: 27", "at most 26"]),
    ({"runs.paper.reward.scorer": "judge"}, ["scorer: 'judge' is neither teacher nor oracle"]),
    ({"runs.paper.reward.alpha": 1.2}, ["runs.paper.reward.alpha", "1.2"]),
    ({"runs.paper.reward.questions": None}, ["runs.paper.reward: alpha: 0.8 weights questions; name them, or set alpha to 0"]),
    ({"runs.paper.reward.scorer": "oracle"}, ["scorer: oracle asks no questions; set alpha to 0"]),
    ({"runs.paper.reward.questions": "threeway"}, ["runs.paper.reward.questions: 'threeway' is not one of n_way, pairwise"]),
    ({"evaluation.reward.questions": "threeway"}, ["evaluation.reward.questions: 'threeway' is not one of"]),
    ({"evaluation.candidates": "nine"}, ["evaluation.candidates: 'nine' is not one of eight, released"]),
    ({"samples.released": BIG}, ["evaluation.candidates: lists of 16", "2 to 14"]),
    ({"samples.released": {**BIG, "n": 1}}, ["evaluation.candidates: lists of 1", "2 to 14"]),
    ({"evaluation.clearly": 0.4}, ["evaluation.clearly", "0.4"]),
    ({"runs.paper.student": "pupil"}, ["runs.paper.student: 'pupil' is not one of student, student_shared, teacher"]),
    ({"runs.paper.teacher": "professor"}, ["runs.paper.teacher: 'professor' is not one of"]),
    ({"runs.paper.samples": "nine"}, ["runs.paper.samples: 'nine' is not one of eight, released"]),
    ({"runs.paper.n": 9}, ["runs.paper.n: 9, but samples eight has n = 8"]),
    ({"runs.paper.objective": "padd"}, ["runs.paper: ", "padd.yaml: no such objective; known are"]),
    ({"runs.paper.parameters": {"gamma": 1.0}}, ["runs.paper: ", "['gamma']", "beta_teacher"]),
    ({"runs.paper.objective": "rlhf_rloo"}, ["runs.paper: objective rlhf_rloo needs fresh samples"]),
    ({"runs.paper.objective": "pmle"}, ["runs.paper: objective pmle needs fresh samples"]),
    ({"runs.dpo.objective": "reward_model"}, ["runs.dpo: objective reward_model trains a reward model"]),
    ({"runs.paper.train_on": "best_worst"}, ["runs.paper.train_on: objective pad_ppd_jsd learns from scored lists"]),
    ({"runs.seqkd.train_on": "lists"}, ["runs.seqkd.train_on: lists does not fit objective sft"]),
    ({"runs.dpo.train_on": "references"}, ["runs.dpo.train_on: references does not fit objective dpo"]),
    ({"runs.dpo.train_on": "lists"}, ["runs.dpo: objective dpo compares two"]),
    ({"samples.eight": BIG, "runs.paper.n": 15}, ["runs.paper.n: exact divergences take lists of 14, not 15"]),
    ({"runs.resampled.decomposition": {"size": 3}}, ["runs.resampled.decomposition.size: 3 does not divide n, 8"]),
    ({"runs.resampled.decomposition": {"size": 1}}, ["runs.resampled.decomposition.size", "1"]),
    ({"runs.dpo.decomposition": {"size": 2}}, ["runs.dpo.decomposition: only lists are decomposed", "best_worst"]),
    ({"runs.resampled.optimisation": {"steps": 5}}, ["runs.resampled.optimisation.steps: 5 is no multiple of 2"]),
    ({"runs.kd.student": "student"}, ["runs.kd: objective token_kd_reverse", "vocabulary of 400 and teacher teacher of 512"]),
    ({"ablations.variants.runs": {"a": "paper"}}, ["ablations.variants.runs", "at least 2"]),
    ({"ablations.variants.runs.b": "papre"}, ["ablations.variants: 'papre' is not one of"]),
]


@pytest.mark.parametrize(("changes", "expected"), WRONG, ids=[" ".join(changes) for changes, _ in WRONG])
def test_a_wrong_suite_is_refused_with_file_key_and_value(changes: dict[str, Any], expected: list[str]) -> None:
    sentence = refused(changes)
    for part in expected:
        assert part in sentence


def test_a_suite_without_a_world(tmp_path: Path) -> None:
    """It trains no models from scratch and knows no preferences; stored models and local prompts will do."""
    stored = {"folder": str(tmp_path)}
    (tmp_path / "config.json").write_text("{}")
    prompts = {"dataset": str(tmp_path), "splits": {"train": "train", "test": "test"}}
    without = {"world": None, "prompts": prompts, "models": {"student": stored, "teacher": stored}}
    assert "folder: " in refused(without) and "safetensors" in refused(without)
    (tmp_path / "model.safetensors").touch()
    runs = {"runs": {"paper": {}}, "ablations": {}}
    scratch = {**without, **runs, "models": {"student": LLAMA, "teacher": stored}}
    assert "models.student: only a suite with a world trains models" in refused(scratch)
    oracle = {"reward": {"scorer": "oracle", "alpha": 0.0, "questions": None}}
    assert "runs.paper.reward.scorer: oracle needs a world" in refused({**without, "runs": {"paper": oracle}, "ablations": {}})
    ranked = {**without, **runs, "evaluation.reward": {"scorer": "oracle", "alpha": 0.0}}
    assert "evaluation.reward.scorer: oracle needs a world" in refused(ranked)
    found = plan(suites.parse_suite(changed(**without, **runs), PATH), ROOT)
    assert not found.of_stage("train")[0].inputs.keys() & {"target", "oracle"}
    assert {a.name for a in found.of_stage("model")} == {"student", "teacher"}


JUDGE = {"kind": "endpoint", "model": "judge", "base_url": "http://localhost:8000/v1", "key_variable": None}
JUDGED_SET = {"dataset": "a/b", "revision": "c", "format": "alpaca_eval", "prompts": 2}


@pytest.mark.parametrize(
    ("judging", "expected"),
    [
        (None, "judged.sets.short: nobody judges it; give judging, or leave the set out"),
        ({"judge": {"kind": "reward_model"}}, "judged.sets.short.judging.judge.kind: a suite of kind pad has no reward model"),
        ({"judge": JUDGE, "protocol": "alpaca_eval", "runs": ["papr"]}, "judged.sets.short.judging.runs: 'papr' is not one of"),
    ],
)
def test_judges_of_students_that_cannot_be(judging: Any, expected: str) -> None:
    judged = {"sets": {"short": JUDGED_SET | {"judging": judging}}, "samples": 1, "max_new_tokens": 4}
    mapping = committed("pad") | {"judged": judged}
    with pytest.raises(UserError) as caught:
        suites.parse_suite(mapping, Path("workflow/suites/pad.yaml"))
    assert expected in str(caught.value)


def test_a_world_judges_its_students_itself() -> None:
    judged = {
        "sets": {"short": JUDGED_SET | {"judging": {"judge": JUDGE, "protocol": "tldr"}}},
        "samples": 1,
        "max_new_tokens": 4,
    }
    assert "judged: a world has known preferences, by which students are judged; leave it out" in refused({"judged": judged})


def test_a_run_is_not_called_like_a_model() -> None:
    mapping = committed("pad")
    mapping["runs"]["gemma_9b"] = {}
    with pytest.raises(UserError, match="runs: gemma_9b is a model, too, and judges' tables name both; call the run otherwise"):
        suites.parse_suite(mapping, Path("workflow/suites/pad.yaml"))


def test_a_world_of_another_kind_is_refused() -> None:
    suite = suites.parse_suite(changed(world="exact"), PATH)
    with pytest.raises(UserError, match="suite pad_smoke: world: exact is of kind exact; name a testbed suite"):
        plan(suite, ROOT)


def test_limits_are_those_of_the_modules() -> None:
    """They are repeated in the configuration, whose import must not cost that of torch."""
    assert config_pad.MAX_ITEMS == plackett_luce.MAX_ITEMS
    assert len(questions.LETTERS) == config_models.MAX_OPTIONS
    assert questions.MOST_PERMUTED == config_pad.MAX_PERMUTED
    for template in questions.TEMPLATES:
        suites.parse_suite(changed(**{"questions.n_way.template": template}), PATH)


# ---- the plan --------------------------------------------------------------------------------------------------------


def planned(**changes: Any) -> Plan:
    suite = suites.parse_suite(changed(**changes), PATH)
    assert isinstance(suite, PadSuite)
    return plan(suite, ROOT)


def trained(made: Plan, name: str) -> Artefact:
    (artefact,) = (a for a in made.of_stage("train") if a.name == name)
    return artefact


def test_runs_that_differ_in_alpha_share_samples_scores_and_questions() -> None:
    made = planned(**{"runs.calibrated": {"reward": {"alpha": 0.3}}})
    one, other = (trained(made, f"{run}-seed0") for run in ("paper", "calibrated"))
    assert one.digest != other.digest
    for role in ("init", "responses", "scores", "questions"):
        assert one.inputs[role].path == other.inputs[role].path
    before, after = planned(), made
    for stage in ("responses", "scores", "questions", "held_out", "teacher", "text"):
        assert {a.path for a in before.of_stage(stage)} == {a.path for a in after.of_stage(stage)}
    assert trained(made, "paper-seed1").inputs["responses"].path != one.inputs["responses"].path


@pytest.mark.parametrize("run", ["paper", "released", "seqkd"])
def test_a_changed_parameter_concerns_its_run_alone(run: str) -> None:
    """Its trainings and evaluation, the suite's results, and the ablations that name it."""
    change = {"optimisation": {"learning_rate": 2e-3}} if run == "seqkd" else {"parameters": {"beta": 7.0}}
    spec = changed()["runs"][run]
    before, after = planned(), planned(**{f"runs.{run}": {**spec, **change}})
    new = {f"{a.stage}/{a.name}" for path, a in after.artefacts.items() if path not in before.artefacts}
    ablations = {"paper": {"variants", "reward"}, "released": {"variants"}, "seqkd": set()}[run]
    own = {f"train/{run}-seed0", f"train/{run}-seed1", f"student/{run}", "pad_results/pad_smoke"}
    assert new == own | {f"ablation/pad_smoke-{name}" for name in ablations}


@pytest.mark.parametrize(("alpha", "present", "absent"), [(0.0, "scores", "questions"), (1.0, "questions", "scores")])
def test_a_weight_of_nothing_needs_nothing(alpha: float, present: str, absent: str) -> None:
    """In a suite whose evaluation and other runs are alike, so that the stage is not there for them either."""
    reward = {"alpha": alpha, "questions": "n_way"}
    alike = {"defaults.reward": reward, "runs": {"paper": {}}, "ablations": {}, "evaluation.reward": reward}
    made = planned(**alike)
    inputs = trained(made, "paper-seed0").inputs
    assert present in inputs
    assert absent not in inputs
    assert not [a for a in made.of_stage(absent) if "eight" in a.name]
    (student,) = made.of_stage("student")
    assert (present in student.inputs, absent in student.inputs) == (True, False)


def test_the_oracle_scores_by_the_worlds_target() -> None:
    made = planned()
    scores = trained(made, "oracle-seed0").inputs["scores"]
    assert scores.inputs["teacher"].name == "target"
    assert scores.inputs["responses"].path == trained(made, "paper-seed0").inputs["responses"].path


def test_the_resampled_chain() -> None:
    """12 samples in lists of 4: three trainings of a third of the steps, each on samples of the one before."""
    changes = {"samples.eight.n": 12, "samples.eight.draws": 18, "runs.resampled.n": 12, "runs.paper.n": 4}
    made = planned(**changes, **{"runs.resampled.optimisation": {"steps": 9, "warmup_steps": 3}})
    parts = [trained(made, f"resampled-part{i}-seed1") for i in range(3)]
    assert not [a for a in made.of_stage("train") if "part3" in a.name]
    assert parts[0].inputs["responses"].path == trained(made, "paper-seed1").inputs["responses"].path
    assert parts[0].inputs["init"].name == "student"
    for before, after in itertools.pairwise(parts):
        assert after.inputs["init"].path == before.path
        assert after.inputs["responses"].inputs["policy"].path == before.path
        for role in ("scores", "questions"):
            assert after.inputs[role].inputs["responses"].path == after.inputs["responses"].path
        assert (after.inputs["responses"].spec["n"], after.inputs["responses"].spec["draws"]) == (4, 6)
    assert len({part.inputs["responses"].spec["key"] for part in parts}) == 3
    for part in parts:
        assert part.spec["data"]["n"] == 4
        assert "decomposition" not in part.spec["data"]
        assert (part.spec["optimisation"]["steps"], part.spec["optimisation"]["warmup_steps"]) == (3, 1)
    (student,) = (a for a in made.of_stage("student") if a.name == "resampled")
    assert student.inputs["policy/1"].path == parts[-1].path


def test_fixed_and_shuffled_sublists_are_one_training() -> None:
    made = planned(**{"runs.resampled.decomposition": {"size": 4, "shuffle": True}})
    assert trained(made, "resampled-seed0").spec["data"]["decomposition"] == {"size": 4, "shuffle": True}
    assert trained(made, "resampled-seed0").spec["data"]["n"] == 8
