"""The cluster profile has a class for every rule that runs as a job, and Snakemake reads it as it is meant."""

import re

import yaml
from checkouts import ROOT
from snakemake.profiles import ProfileConfigFileParser

from prefdist.plan import plan
from prefdist.suites import load_suite

FILE = ROOT / "slurm/config.yaml"
# Stages that load models onto a GPU where there is one; the others are tables, or the testbed's small models on the CPU.
ON_GPU = {
    *("train", "reference", "responses", "scores", "questions", "held_out", "teacher", "student"),
    *("draws", "alignment", "diversity", "shift", "repeats", "calibration", "best_of_n", "tax", "benchmarks", "judge_local"),
}


def rules_that_run_as_jobs() -> set[str]:
    found = set()
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for name, body in re.findall(r"^rule (\w+):\n((?:    .*\n|\n)*)", file.read_text(), flags=re.MULTILINE):
            if "localrule: True" not in body:
                found.add(name)
    planned = plan(load_suite("exact", ROOT), ROOT)
    return found | {artefact.stage for artefact in planned.final.inputs.values()}  # a rule each, written as a loop


def test_every_rule_that_runs_as_a_job_has_a_class() -> None:
    profile = yaml.safe_load(FILE.read_text())
    asked = profile["set-resources"]
    assert asked.keys() == rules_that_run_as_jobs()
    assert all(any(resources == known for known in profile["classes"].values()) for resources in asked.values())
    assert {rule for rule, resources in asked.items() if resources.get("gpu")} == ON_GPU
    for name, resources in profile["classes"].items():
        assert {"slurm_partition", "runtime", "mem_mb"} <= resources.keys(), name


def test_members_of_a_group_have_their_turns() -> None:
    """They run one after the other; without turns the group's time limit would be that of one of them."""
    profile = yaml.safe_load(FILE.read_text())
    assert all(profile["set-resources"][rule]["turn"] == 1 for rule in profile["groups"])
    assert profile["resources"] == {"turn": 1}
    assert profile["set-resource-scopes"] == {"turn": "local"}
    assert set(profile["groups"].values()) == profile["group-components"].keys()


def test_snakemake_reads_the_classes_through_their_anchors() -> None:
    with FILE.open() as stream:
        read = ProfileConfigFileParser().parse(stream)
    assert "train:gpu=1" in read["set-resources"]
    assert "classes" not in read, "where the anchors are is no option of Snakemake"
