"""Commits of the hub that the papers' suites pin: one a repository, and refused before the network where none is chosen."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from changed_suites import committed
from checkouts import ROOT

from prefdist.errors import UserError
from prefdist.plan import STAGES, Artefact, plan
from prefdist.suites import parse_suite

PAPER = ("tldr", "chat", "pad", "spl", "spl_best_of_n", "spl_best_of_n_math")
ZEROS = "0" * 40
NOT_FOUND = "cleanrl/summarize_from_feedback_tldr_3_filtered_oai_preprocessing_1704563162"


def pinned(node: Any) -> Iterator[tuple[str, str]]:
    """(repository, commit) wherever a suite names both."""
    if isinstance(node, dict):
        source = node.get("hub") or node.get("dataset")
        if isinstance(source, str):
            yield source, node["revision"]
        for value in node.values():
            yield from pinned(value)


def downloads(name: str, mapping: dict[str, Any]) -> dict[str, Artefact]:
    """What a plan of the suite fetches, by repository."""
    made = plan(parse_suite(mapping, Path(f"workflow/suites/{name}.yaml")), ROOT).artefacts.values()
    return {a.spec.get("hub") or a.spec["dataset"]: a for a in made if a.spec.get("revision") is not None}


def test_every_suite_pins_the_same_full_commit_of_a_repository() -> None:
    commits: dict[str, set[str]] = {}
    for name in PAPER:
        for repo, commit in pinned(committed(name)):
            assert re.fullmatch("[0-9a-f]{40}", commit), (name, repo, commit)
            commits.setdefault(repo, set()).add(commit)
    assert {repo: found for repo, found in commits.items() if len(found) > 1} == {}
    assert {repo for repo, found in commits.items() if ZEROS in found} == {NOT_FOUND}, "tldr.yaml says of which none was found"
    chosen = [commit for found in commits.values() for commit in found]
    assert len(set(chosen)) == len(chosen), "no commit stands beside two repositories"


@pytest.mark.parametrize("name", PAPER)
def test_a_plan_fetches_the_commits_of_its_suite(name: str) -> None:
    mapping = committed(name)
    assert {repo: a.spec["revision"] for repo, a in downloads(name, mapping).items()} == dict(pinned(mapping))


@pytest.mark.parametrize("name", PAPER)
def test_placeholders_are_refused_before_the_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model and dataset that a suite names; the sentence says where the commit is to be put."""
    monkeypatch.chdir(ROOT)
    text = (ROOT / f"workflow/suites/{name}.yaml").read_text()
    zeroed = yaml.safe_load(re.sub(r'(?<=revision: )"[0-9a-f]{40}"', f'"{ZEROS}"', text))
    found = downloads(name, zeroed)
    assert set(found) == dict(pinned(zeroed)).keys()
    for repo, artefact in found.items():
        key = "hub" if "hub" in artefact.spec else "dataset"
        expected = rf"{name}\.yaml.*: revision beside {key}: {repo} is 0{{40}}, a placeholder; put there the commit"
        with pytest.raises(UserError, match=expected):
            import_module(STAGES[artefact.stage]).run(artefact.spec, {}, tmp_path / "out", tmp_path / "scratch")
