"""The setting `engine` of suites: where it may stand, what it refuses, and that it changes no digest while it is not used."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from prefdist.code import import_closure
from prefdist.config.common import Rollouts, vllm_lacks
from prefdist.config.pad import Questions, Samples
from prefdist.config.spl import BestOfN, Draws
from prefdist.errors import UserError
from prefdist.plan import Artefact, Plan, plan
from prefdist.suites import load_suite

ROOT = Path(__file__).resolve().parents[1]
SECTIONS: dict[type, dict[str, Any]] = {
    Rollouts: {"max_new_tokens": 8},
    Samples: {"n": 2, "draws": 4, "max_new_tokens": 8},
    Draws: {"prompts": 2, "max_new_tokens": 8},
    Questions: {"kind": "n_way"},
    BestOfN: {"problems": {"source": "world", "problems": 2}, "max_new_tokens": 8},
}


@pytest.mark.parametrize("section", SECTIONS)
def test_the_default_is_in_no_specification(section: Any) -> None:
    """Artefacts made before there was a choice keep their digests."""
    given = SECTIONS[section]
    for made in (section(**given), section(**given, engine="transformers")):
        assert made.engine == "transformers" and "engine" not in made.model_dump()
    chosen = section(**given, engine="vllm").model_dump()
    assert chosen["engine"] == "vllm"
    assert section.model_validate(chosen).engine == "vllm"
    with pytest.raises(ValidationError, match="engine"):
        section(**given, engine="sglang")


@pytest.mark.parametrize(
    ("law", "reason"),
    [
        ((1.0, 1.0, 0.0), None),
        ((0.01, 0.9, 0.0), None),
        ((2.0, 1.0, 0.1), None),
        ((1.0, 0.9, 0.1), "takes the nucleus of the rest"),
        ((0.009, 1.0, 0.0), "at 0.01 or above"),
    ],
)
def test_laws_that_vllm_lacks(law: tuple[float, float, float], reason: str | None) -> None:
    found = vllm_lacks(*law)
    assert found is None if reason is None else found is not None and reason in found


def test_laws_are_refused_while_the_suite_is_read() -> None:
    for section, given in SECTIONS.items():
        if "temperature" in section.model_fields:  # type: ignore[attr-defined]
            section(**given, temperature=0.001)
            with pytest.raises(ValidationError, match=r"at 0.01 or above"):
                section(**given, temperature=0.001, engine="vllm")


def changed(suite: str, tmp_path: Path, change: dict[str, Any]) -> Plan:
    """The plan of a committed suite with a section changed; worlds are those of the checkout."""
    mapping = yaml.safe_load((ROOT / "workflow/suites" / f"{suite}.yaml").read_text())
    for where, values in change.items():
        section = mapping
        for key in where.split("."):
            section = section.setdefault(key, {})
        section |= values
    folder = tmp_path / "workflow/suites"
    folder.mkdir(parents=True)
    for file in (ROOT / "workflow/suites").glob("*.yaml"):
        (folder / file.name).write_text(file.read_text())
    (folder / f"{suite}.yaml").write_text(yaml.safe_dump(mapping))
    return plan(load_suite(suite, tmp_path), tmp_path)


def by_name(made: Plan, stage: str) -> dict[str, Artefact]:
    return {artefact.name: artefact for artefact in made.of_stage(stage)}


def test_draws(tmp_path: Path) -> None:
    """All policies are drawn by vLLM but those whose law it lacks (contrast; top-p and min-p), which stay as they were."""
    before = by_name(changed("spl_smoke", tmp_path / "before", {}), "draws")
    after = by_name(changed("spl_smoke", tmp_path / "after", {"draws": {"engine": "vllm"}}), "draws")
    kept = {name for name in before if before[name].digest == after[name].digest}
    lacking = {name for name, artefact in before.items() if {"contrast", "min_p"} & artefact.spec["law"].keys()}
    assert {name.partition("-")[0] for name in lacking} == {"dpo_strong", "dpo_filtered"}
    # The problems of best-of-N have a setting of their own.
    assert kept == lacking | {name for name in before if "held_out" not in name}
    for name, artefact in after.items():
        closure = set().union(*(import_closure(module) for module in artefact.code))
        assert ("prefdist.sampling.vllm.worker" in closure) == (name not in kept), "its code is a reason to draw again"
    assert all(not artefact.code for artefact in before.values())


def test_responses_and_rollouts(tmp_path: Path) -> None:
    name = next(iter(yaml.safe_load((ROOT / "workflow/suites/pad_smoke.yaml").read_text())["samples"]))
    made = changed("pad_smoke", tmp_path / "pad", {f"samples.{name}": {"engine": "vllm"}}).of_stage("responses")
    drawn = [artefact for artefact in made if artefact.spec.get("engine") == "vllm"]
    assert drawn and all(artefact.code == ("prefdist.sampling.vllm.engine",) for artefact in drawn)
    runs = yaml.safe_load((ROOT / "workflow/suites/smoke.yaml").read_text())["runs"]
    run = next(name for name, run in runs.items() if "rollouts" in run)
    trained = changed("smoke", tmp_path / "testbed", {f"runs.{run}.rollouts": {"engine": "vllm"}}).of_stage("train")
    named = {artefact.name.rpartition("-seed")[0]: artefact for artefact in trained}
    assert named[run].spec["rollouts"]["engine"] == "vllm"
    assert "prefdist.sampling.vllm.policy" in named[run].code
    assert [name for name, artefact in named.items() if any("vllm" in module for module in artefact.code)] == [run]


def test_shards_are_not_handed_over(tmp_path: Path) -> None:
    change = {"runs.pmle.rollouts": {"engine": "vllm"}, "runs.pmle.optimisation": {"sharding": "fsdp"}}
    with pytest.raises(UserError, match=r"smoke.yaml: runs\.pmle\.rollouts\.engine: vllm is handed whole weights"):
        changed("smoke", tmp_path, change)
