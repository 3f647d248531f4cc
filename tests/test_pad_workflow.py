"""A suite of preference distillation in real Snakemake runs: nothing twice, only what changed, and killed in between.

The suite is pad_smoke with one seed, two of its runs and the resampled chain, in a copy of the checkout.
"""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import checkouts
import pytest
import yaml
from checkouts import environment, planned, snakemake

RUNS = {"paper", "released", "resampled"}
RESULTS = Path("results/pad_smoke")
VARIANTS = "published/pad_smoke/v1-ablations/variants"
SUITE = Path("workflow/suites/pad_smoke.yaml")
pytestmark = pytest.mark.slow


def copy(folder: Path) -> Path:
    checkout = checkouts.copy(folder)
    mapping = yaml.safe_load((checkout / SUITE).read_text())
    mapping["seeds"] = [0]
    mapping["runs"] = {name: run for name, run in mapping["runs"].items() if name in RUNS}
    mapping["ablations"] = {"variants": mapping["ablations"]["variants"]}
    write(checkout, mapping)
    return checkout


def write(checkout: Path, mapping: dict[str, Any]) -> None:
    (checkout / SUITE).write_text(yaml.safe_dump(mapping, sort_keys=False))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    checkout = copy(tmp_path_factory.mktemp("checkout"))
    done = snakemake(checkout, "pad_smoke")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    return checkout


@pytest.fixture
def checkout(finished: Path) -> Iterator[Path]:
    """The finished checkout, its suite put back afterwards."""
    suite = (finished / SUITE).read_text()
    yield finished
    (finished / SUITE).write_text(suite)


def test_a_run_ends_with_its_tables_and_a_second_one_has_nothing_to_do(finished: Path) -> None:
    table = (finished / RESULTS / "v1/table.csv").read_text()
    assert {line.split(",")[0] for line in table.splitlines()[1:]} == RUNS
    variants = (finished / RESULTS / "v1-ablations/variants/table.csv").read_text()
    assert {line.split(",")[0] for line in variants.splitlines()[1:]} == {"paper", "released"}
    for name in ("cost.csv", "overview.svg", "teacher-teacher-student.csv", "teacher-teacher-student-reliability.svg"):
        assert (finished / RESULTS / "v1" / name).stat().st_size > 0
    costs = (finished / RESULTS / "v1/cost.csv").read_text().splitlines()[1:]
    assert {line.split(",")[0] for line in costs} == RUNS
    assert planned(finished, "pad_smoke") == set()
    assert not any((finished / "scratch").rglob("*.parquet"))


@pytest.mark.parametrize("run", ["paper", "resampled"])
def test_a_changed_parameter_reruns_its_run(run: str, checkout: Path) -> None:
    """The second training of a chain is on samples of the first, which are drawn, scored and asked about again."""
    mapping = yaml.safe_load((checkout / SUITE).read_text())
    mapping["runs"][run] = {**mapping["runs"][run], "parameters": {"beta_teacher": 3.0}}
    write(checkout, mapping)
    after = {f"student/{run}", "pad_results/pad_smoke", "published/pad_smoke/v1"}
    if run == "paper":
        expected = {"train/paper-seed0", "ablation/pad_smoke-variants", VARIANTS}
    else:
        part = "resampled-part1-seed0"
        expected = {"train/resampled-part0-seed0", f"train/{part}", f"responses/{part}"}
        expected |= {f"scores/teacher-{part}", f"questions/teacher-n_way4-{part}"}
    assert planned(checkout, "pad_smoke") == after | expected


def under_way(checkout: Path) -> list[Path]:
    """Artefacts that a teacher is making: its scores or its answers, whichever the scheduler takes first."""
    return [folder for stage in ("scores", "questions") for folder in checkout.glob(f"artefacts/{stage}/.*.tmp")]


def kill_while_the_teacher_works(checkout: Path) -> None:
    """Start the ablation's target, and kill it and all it started once the teacher is at work."""
    command = ["snakemake", "--cores", "2", "pad_smoke_variants"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    process = subprocess.Popen(command, cwd=checkout, env=environment(checkout), start_new_session=True, **quiet)
    deadline = time.monotonic() + 300
    while process.poll() is None and not under_way(checkout) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)  # within the loading of the teacher or its work
    assert process.poll() is None, "the run ended before it was killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert under_way(checkout), "the teacher had finished before it was killed"
    for folder in under_way(checkout):
        folder.rename(folder.with_name("left-by-the-killed" + folder.name))


def test_one_ablation_alone_killed_while_the_teacher_works(finished: Path, tmp_path: Path) -> None:
    """It makes what its two runs need, no more, and ends with the bytes of the run that was not killed."""
    checkout = tmp_path / "checkout"
    for name in ("workflow", "src", "profiles"):
        shutil.copytree(finished / name, checkout / name)
    shutil.copy(finished / "Snakefile", checkout)
    needed = planned(checkout, "pad_smoke_variants")
    assert {"train/teacher", "train/paper-seed0", "train/released-seed0", "ablation/pad_smoke-variants"} <= needed
    assert {"scores/teacher-student-eight-seed0", "questions/teacher-pairwise4-student-released-seed0"} <= needed
    assert not [name for name in needed if "resampled" in name or name.split("/")[0] in ("pad_results", "teacher")]
    for _ in range(2):  # of three artefacts at least two are left after the first time
        kill_while_the_teacher_works(checkout)
    assert not (checkout / RESULTS).exists()
    done = snakemake(checkout, "pad_smoke_variants")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert planned(checkout, "pad_smoke_variants") == set()
    made = {str(path.parent.relative_to(checkout / "artefacts")) for path in checkout.glob("artefacts/*/*/provenance.json")}
    assert {re.sub(r"-[0-9a-f]{10}$", "", name) for name in made} == needed - {VARIANTS}
    folder = RESULTS / "v1-ablations/variants"
    for name in ("table.csv", "table.md", "figure.svg"):
        assert (checkout / folder / name).read_bytes() == (finished / folder / name).read_bytes()
    assert not (checkout / RESULTS / "v1").exists()
