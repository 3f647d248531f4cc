"""What re-runs when something changes, seen in real Snakemake runs of the smallest suite in a copy of the checkout."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
pytestmark = pytest.mark.slow


def _copy(folder: Path) -> Path:
    for name in ("Snakefile", "workflow", "src", "profiles"):
        source = ROOT / name
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    return folder


def _environment(checkout: Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}


def _snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=checkout, env=_environment(checkout), capture_output=True, text=True, check=False)


def _planned(checkout: Path) -> set[str]:
    """Names of the artefacts that a run would make, digests cut off: {"train/dpo-seed0", …, "results/smoke"}."""
    shown = _snakemake(checkout, "-n", "smoke")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    output = shown.stdout + shown.stderr
    outputs = re.findall(r"^    output: (.*)$", output, flags=re.MULTILINE)
    published = {name for name in outputs if name.startswith("results/")}
    made = set(outputs) - published
    names = {re.sub(r"^artefacts/(.*)-[0-9a-f]{10}(/.*)?$", r"\1", name.split(",")[0]) for name in made}
    assert bool(published) == ("results/smoke" in names)
    return names


def _edit(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text, f"{file} has no {old!r}"
    file.write_text(text.replace(old, new, 1))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    checkout = _copy(tmp_path_factory.mktemp("checkout"))
    done = _snakemake(checkout, "smoke")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout


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
    assert _planned(checkout) == set()
    (checkout / "README.md").write_text("edited")
    _edit(checkout / "src/prefdist/objectives/policy_gradient.py", '"""Maximise', '# a comment\n"""We maximise')
    assert _planned(checkout) == set()


def test_a_change_in_one_family_reruns_its_trainings_and_what_follows(checkout):
    _edit(checkout / "src/prefdist/objectives/policy_gradient.py", "ratio.clamp(1 - row.clip", "ratio.clamp(0.9 - row.clip")
    methods = {f"train/{name}-seed{seed}" for name in ("reverse_kl_ppo", "pmle") for seed in (0, 1)}
    assert _planned(checkout) == methods | {"evaluate/reverse_kl_ppo", "evaluate/pmle", "results/smoke"}


def test_a_change_of_one_row_or_run_reruns_that_run(checkout):
    dpo = {"train/dpo-seed0", "train/dpo-seed1", "evaluate/dpo", "results/smoke"}
    _edit(checkout / "workflow/objectives/dpo.yaml", "beta: 0.", "beta: 1.")
    assert _planned(checkout) == dpo
    _edit(checkout / "workflow/objectives/dpo.yaml", "beta: 1.", "beta: 0.")
    assert _planned(checkout) == set()
    _edit(checkout / "workflow/suites/smoke.yaml", "dpo: {objective: dpo}", "dpo: {objective: dpo, parameters: {beta: 9.0}}")
    assert _planned(checkout) == dpo


def test_a_new_run_costs_its_own_training_and_evaluation(checkout):
    _edit(
        checkout / "workflow/suites/smoke.yaml", "  dpo: {objective: dpo}", "  dpo: {objective: dpo}\n  ipo: {objective: ipo}"
    )
    assert _planned(checkout) == {"train/ipo-seed0", "train/ipo-seed1", "evaluate/ipo", "results/smoke"}


def test_committed_tables_are_not_taken_for_a_run(finished, tmp_path):
    """A fresh clone has the tables of results/ without their markers: everything is to be made."""
    clone = _copy(tmp_path)
    shutil.copytree(finished / "results", clone / "results", ignore=shutil.ignore_patterns(".published*"))
    planned = _planned(clone)
    assert {"text/stdlib", "train/prior", "train/dpo-seed0", "results/smoke"} <= planned


def test_a_broken_suite_starts_nothing(checkout):
    _edit(checkout / "workflow/suites/smoke.yaml", "gamma: 0.1", "gamma: 0.1, gama: 0.2")
    done = _snakemake(checkout, "smoke")
    assert done.returncode != 0
    assert "workflow/suites/smoke.yaml: preferences.gama: no such key (value 0.2)" in done.stdout + done.stderr


def test_a_killed_run_goes_on_and_ends_with_the_same_numbers(finished, tmp_path):
    checkout = _copy(tmp_path)
    for seconds in (14, 20):
        process = subprocess.Popen(
            ["prefdist", "demo", "--suite", "smoke", "--cores", "2"],
            cwd=checkout,
            env=_environment(checkout),
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
        env=_environment(checkout),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "report: results/smoke/v1/report.html" in done.stdout
    for name in ("table.csv", "reward_model.csv"):
        assert (checkout / "results/smoke/v1" / name).read_bytes() == (finished / "results/smoke/v1" / name).read_bytes()
