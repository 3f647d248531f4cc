"""What a user sees when a suite is wrong: one sentence with file, key and value, before anything starts."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from prefdist import suites
from prefdist.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
SMOKE = yaml.safe_load((ROOT / "workflow/suites/smoke.yaml").read_text())
PATH = Path("workflow/suites/smoke.yaml")


def _with(keys: str, value: object) -> dict:
    mapping = yaml.safe_load(yaml.safe_dump(SMOKE))
    node = mapping
    *parents, last = keys.split(".")
    for key in parents:
        node = node.setdefault(key, {})
    node[last] = value
    return mapping


@pytest.mark.parametrize(
    ("keys", "value", "expected"),
    [
        ("preferences.gama", 0.1, ["preferences.gama", "no such key", "0.1"]),
        ("preferences.gamma", "high", ["preferences.gamma", "'high'"]),
        ("preferences.gamma", -1, ["preferences.gamma", "-1"]),
        ("runs.dpo.objective", "dpoo", ["runs.dpo", "dpoo.yaml", "known are", "dpo"]),
        ("runs.dpo.parameters", {"betta": 1.0}, ["runs.dpo", "betta", "beta"]),
        ("runs.dpo.optimisation.steps", 0, ["runs.dpo.optimisation.steps", "0"]),
        ("runs.pmle.rollouts.epochs", 2, ["runs.pmle", "on-policy", "epochs"]),
        ("runs.pmle.rollouts", None, ["runs.pmle", "samples from the policy", "rollouts"]),
        ("seeds", [0, 0], ["seeds"]),
        ("target.init", "no/such/model", ["target.init", "no/such/model", "config.json"]),
    ],
)
def test_a_wrong_suite_is_refused_with_file_key_and_value(keys, value, expected):
    with pytest.raises(UserError) as caught:
        suites.parse_suite(_with(keys, value), PATH)
    sentence = str(caught.value)
    assert "\n" not in sentence
    for part in [str(PATH), *expected]:
        assert part in sentence


def test_a_model_folder_without_weights_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match="safetensors"):
        suites.parse_suite(_with("target.init", str(tmp_path)), PATH)


def test_every_committed_suite_is_valid():
    names = sorted(file.stem for file in (ROOT / "workflow/suites").glob("*.yaml"))
    assert {"exact", "smoke", "testbed"} <= set(names)
    for name in names:
        suites.load_suite(name, ROOT)


def test_the_committed_schemas_are_the_generated_ones():
    """On drift: `prefdist schemas` writes them anew."""
    folder = ROOT / "workflow/schemas"
    assert {file.name: file.read_text() for file in folder.glob("*.json")} == suites.json_schemas()


def test_merge_is_by_key_and_null_removes():
    base = {"a": {"b": 1, "c": 2}, "d": 3}
    assert suites.merge(base, {"a": {"b": 9}, "d": None, "e": 4}) == {"a": {"b": 9, "c": 2}, "e": 4}


def test_the_cli_prints_the_sentence_and_exits_with_2():
    done = subprocess.run(
        [sys.executable, "-m", "prefdist.cli", "check", "nosuch"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr.startswith("prefdist: workflow/suites/nosuch.yaml: no such suite; known are")
    assert done.stderr.count("\n") == 1
