"""The plan of the committed suite pad.yaml, by Snakemake's own dry run: what it counts, its targets, and what is refused."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from checkouts import copy, snakemake

from prefdist.errors import UserError
from prefdist.suites import parse_suite

ROOT = Path(__file__).resolve().parents[1]
PATH = Path("workflow/suites/pad.yaml")
PAD_SUITES = ("pad", "pad_testbed", "pad_smoke")


def committed(name: str = "pad") -> dict[str, Any]:
    mapping = yaml.safe_load((ROOT / "workflow/suites" / f"{name}.yaml").read_text())
    assert isinstance(mapping, dict)
    return mapping


def jobs(checkout: Path, *targets: str) -> dict[str, int]:
    """Jobs a rule in a dry run of an empty checkout."""
    shown = snakemake(checkout, "-n", *targets)
    assert shown.returncode == 0, shown.stdout[-3000:] + shown.stderr[-3000:]
    (table,) = re.findall(r"^Job stats:\n.*\n[- ]+\n((?:\w+ +\d+\n)+)", shown.stdout + shown.stderr, flags=re.MULTILINE)[:1]
    return {rule: int(count) for rule, count in (line.split() for line in table.splitlines())}


def expected_jobs(suite: dict[str, Any]) -> dict[str, int]:
    """From the suite's text alone: what runs have in common is made once."""
    runs = {name: suite["defaults"] | (run or {}) for name, run in suite["runs"].items()}
    for run in runs.values():
        run["reward"] = suite["defaults"]["reward"] | run["reward"]
        assert run.get("decomposition") is None, "a chain of students would add to the counts below"
    seeds, kinds, asks = suite["seeds"], suite["questions"], suite["evaluation"]["reward"]
    pairs = {(run["student"], run["teacher"]) for run in runs.values()}
    models = {model for pair in pairs for model in pair}
    lists = [run for run in runs.values() if run.get("train_on", "lists") not in ("references", "teacher_responses")]
    drawn = {(run["student"], run["samples"]) for run in runs.values()}
    of_teachers = {(run["teacher"], run["samples"]) for run in runs.values() if run.get("train_on") == "teacher_responses"}
    scored = {(run["teacher"], run["student"], run["samples"]) for run in lists if run["reward"]["alpha"] < 1}
    asked = {
        (run["teacher"], run["student"], run["samples"], run["n"], run["reward"]["questions"])
        for run in lists
        if run["reward"]["alpha"] > 0
    }
    assert asks["questions"] in kinds
    judges = [of_set["judging"] for of_set in suite["judged"]["sets"].values()]
    judged = sum(len(judging["runs"]) for judging in judges)
    starts = {run["student"] for judging in judges for name, run in runs.items() if name in judging["runs"]}
    counts = {
        "prompts": 1 + len(judges) * len(starts),
        "dataset": len({of_set["dataset"] for of_set in suite["judged"]["sets"].values()}),
        "draws": len(seeds) * judged,
        "judge": len(seeds) * judged,
        "model": len(models),
        "held_out": len(models),
        "responses": len(seeds) * (len(drawn) + len(of_teachers)) + len({student for student, _ in pairs}),
        "scores": len(seeds) * len(scored) + len(pairs),
        "questions": len(seeds) * len(asked) + len(kinds) * len(pairs),
        "train": len(seeds) * len(runs),
        "student": len(runs),
        "teacher": len(pairs),
        "pad_results": 1,
        "publish": 1,
        "ablation": len(suite["ablations"]),
        "publish_ablation": len(suite["ablations"]),
        "pad": 1,
    }
    return counts | {"total": sum(counts.values())}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy(tmp_path_factory.mktemp("checkout"))


def test_the_whole_plan(checkout: Path) -> None:
    assert jobs(checkout, "pad") == expected_jobs(committed())


def test_every_ablation_is_a_target(checkout: Path) -> None:
    named = [f"{name}_{ablation}" for name in PAD_SUITES for ablation in committed(name)["ablations"]]
    assert {"pad_alpha", "pad_testbed_alpha"} <= set(named)
    found = jobs(checkout, *named)
    assert {name: found.get(name) for name in named} == dict.fromkeys(named, 1)
    assert found["ablation"] == found["publish_ablation"] == len(named)
    assert not {"pad_results", "publish", "pad"} & set(found), "an ablation needs its own runs only"


def of_length(n: int) -> dict[str, Any]:
    """The suite with one run, on lists of n."""
    mapping = committed()
    mapping["samples"]["long"] = mapping["samples"]["paper"] | {"n": n, "draws": 20}
    del mapping["ablations"], mapping["judged"]
    return mapping | {"runs": {"long": {"samples": "long", "n": n}}}


def test_lists_too_long_for_exact_divergences() -> None:
    parse_suite(of_length(14), PATH)
    with pytest.raises(UserError, match=r"pad\.yaml: runs\.long\.n: exact divergences .* lists of 14, .*15"):
        parse_suite(of_length(15), PATH)
