"""What re-runs when something changes, seen in real Snakemake runs of the smallest suite in a copy of the checkout."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from checkouts import ROOT, copy, environment, planned, snakemake

TABLES = ("results/smoke", "published/smoke/v1")
pytestmark = pytest.mark.slow


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


@pytest.fixture
def checkout(finished):
    """The finished checkout, its sources put back afterwards."""
    yield finished
    for name in ("workflow", "src"):
        shutil.rmtree(finished / name)
    _copy_sources(finished)


def _copy_sources(folder: Path) -> None:
    for name in ("workflow", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))


def test_nothing_to_do_after_a_run_nor_after_a_readme_or_comment_edit(checkout):
    assert planned(checkout) == set()
    (checkout / "README.md").write_text("edited")
    _edit(checkout / "src/prefdist/objectives/policy_gradient.py", '"""Maximise', '# a comment\n"""We maximise')
    assert planned(checkout) == set()


def test_a_change_in_one_family_reruns_its_trainings_and_what_follows(checkout):
    _edit(checkout / "src/prefdist/objectives/policy_gradient.py", "ratio.clamp(1 - row.clip", "ratio.clamp(0.9 - row.clip")
    methods = {f"train/{name}-seed{seed}" for name in ("reverse_kl_ppo", "pmle") for seed in (0, 1)}
    assert planned(checkout) == methods | {"evaluate/reverse_kl_ppo", "evaluate/pmle", *TABLES}


def test_a_change_of_one_row_or_run_reruns_that_run(checkout):
    dpo = {"train/dpo-seed0", "train/dpo-seed1", "evaluate/dpo", *TABLES}
    _edit(checkout / "workflow/objectives/dpo.yaml", "beta: 0.", "beta: 1.")
    assert planned(checkout) == dpo
    _edit(checkout / "workflow/objectives/dpo.yaml", "beta: 1.", "beta: 0.")
    assert planned(checkout) == set()
    _edit(checkout / "workflow/suites/smoke.yaml", "dpo: {objective: dpo}", "dpo: {objective: dpo, parameters: {beta: 9.0}}")
    assert planned(checkout) == dpo


def test_a_new_run_costs_its_own_training_and_evaluation(checkout):
    _edit(
        checkout / "workflow/suites/smoke.yaml", "  dpo: {objective: dpo}", "  dpo: {objective: dpo}\n  ipo: {objective: ipo}"
    )
    assert planned(checkout) == {"train/ipo-seed0", "train/ipo-seed1", "evaluate/ipo", *TABLES}


def test_committed_tables_are_not_taken_for_a_run(finished, tmp_path):
    """A fresh clone has the tables of results/ without their markers: everything is to be made."""
    clone = copy(tmp_path)
    shutil.copytree(finished / "results", clone / "results")
    names = planned(clone)
    assert {"text/stdlib", "train/prior", "train/dpo-seed0", *TABLES} <= names


def test_tables_that_were_removed_are_published_again_and_nothing_else_is_made(finished):
    table = finished / "results/smoke/v1/table.csv"
    before = table.read_bytes()
    shutil.rmtree(table.parent)
    assert planned(finished) == {"published/smoke/v1"}
    assert snakemake(finished, "smoke").returncode == 0
    assert table.read_bytes() == before
    assert planned(finished) == set()


def test_changed_values_go_to_a_local_version(checkout):
    """The configuration is no longer the release's, which stays as it is."""
    released = checkout / "results/smoke/v1"
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in released.iterdir()}
    _edit(checkout / "workflow/suites/smoke.yaml", "dpo: {objective: dpo}", "dpo: {objective: dpo, parameters: {beta: 9.0}}")
    done = snakemake(checkout, "smoke")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "prefdist results diff smoke v1 v1+" in done.stdout + done.stderr
    assert {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in released.iterdir()} == before
    (local,) = checkout.glob("results/smoke/v1+*")
    diff = _prefdist(checkout, "results", "diff", "smoke")
    assert f"b = results/smoke/{local.name}" in diff.stdout
    assert "configuration: runs.dpo.parameters.beta: null -> 9.0" in diff.stdout
    assert "code:" not in diff.stdout
    shutil.rmtree(local)


def test_rerun_of_a_release_gives_its_cells_again(finished):
    """From scratch, in a copy of the checkout that is gone afterwards; same machine, same bits."""
    lines = (finished / "results/smoke/v1/table.csv").read_text().splitlines()[1:]
    done = _prefdist(finished, "results", "verify", "smoke", "v1", "--rerun", "--cores", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    cells = len(lines) + len((finished / "results/smoke/v1/reward_model.csv").read_text().splitlines()) - 1
    assert f"{cells} of {cells} cells fall inside their released intervals, {cells} of them equal" in done.stdout
    assert not list(finished.glob("scratch/rerun-*"))


def _prefdist(checkout, *arguments):
    command = ["prefdist", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False)


def test_a_broken_suite_starts_nothing(checkout):
    _edit(checkout / "workflow/suites/smoke.yaml", "gamma: 0.1", "gamma: 0.1, gama: 0.2")
    done = snakemake(checkout, "smoke")
    assert done.returncode != 0
    assert "workflow/suites/smoke.yaml: preferences.gama: no such key (value 0.2)" in done.stdout + done.stderr


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished, tmp_path):
    checkout = copy(tmp_path)
    for seconds in (14, 20):
        process = subprocess.Popen(
            ["prefdist", "demo", "--suite", "smoke", "--cores", "2"],
            cwd=checkout,
            env=environment(checkout),
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    assert not (checkout / "results/smoke/v1/table.csv").exists(), "the run ended before it was killed"
    done = subprocess.run(
        ["prefdist", "demo", "--suite", "smoke", "--cores", "2"],
        cwd=checkout,
        env=environment(checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "report: artefacts/published/smoke/report.html" in done.stdout
    for name in ("table.csv", "reward_model.csv"):
        assert (checkout / "results/smoke/v1" / name).read_bytes() == (finished / "results/smoke/v1" / name).read_bytes()
