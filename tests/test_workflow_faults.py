"""What a run does with an artefact that is half there, damaged, edited by hand or late to be seen."""

import os
import shutil
import stat
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from checkouts import copy, environment, planned, snakemake

from prefdist.artefacts import verify
from prefdist.plan import plan
from prefdist.suites import load_suite

pytestmark = pytest.mark.slow


@pytest.fixture
def checkout(finished: Path, tmp_path: Path) -> Path:
    """A finished run that may be damaged: what was made, with Snakemake's memory of it."""
    shutil.copytree(finished, tmp_path / "checkout", symlinks=True)
    return tmp_path / "checkout"


def folder(checkout: Path, name: str) -> Path:
    (found,) = checkout.glob(f"artefacts/{name}-" + "[0-9a-f]" * 10)
    return found


def truncate(file: Path) -> None:
    os.truncate(file, file.stat().st_size // 2)


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


def edit_by_hand(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b" ")


@pytest.mark.parametrize("damage", [truncate, flip_a_bit, edit_by_hand])
def test_a_damaged_artefact_is_named_before_use_and_rebuilt_once_deleted(
    damage: Callable[[Path], None], checkout: Path
) -> None:
    """π₀'s weights are damaged, and a method that starts from them is to be trained anew."""
    prior = folder(checkout, "train/prior")
    weights, before = prior / "model.safetensors", (prior / "model.safetensors").read_bytes()
    damage(weights)
    policy = folder(checkout, "train/dpo-seed0")
    again = ("--forcerun", f"{policy.relative_to(checkout)}/provenance.json", "--", "smoke")
    shutil.rmtree(policy)
    refused = snakemake(checkout, *again)
    assert refused.returncode != 0
    sentence = (
        f"{weights.relative_to(checkout)}: its content is not what provenance.json says; delete {prior.relative_to(checkout)}"
    )
    assert sentence in refused.stdout + refused.stderr, "the sentence is shown with the failed job"
    assert not list(checkout.glob("artefacts/train/dpo-seed0-*/provenance.json"))
    shutil.rmtree(prior)
    tables = (checkout / "results/smoke/v1/table.csv").read_bytes()
    unchanged = {path: path.stat().st_ino for path in checkout.glob("artefacts/*/*/*.parquet")}
    mended = snakemake(checkout, *again)
    assert mended.returncode == 0, mended.stdout[-3000:] + mended.stderr[-3000:]
    assert weights.read_bytes() == before
    assert (checkout / "results/smoke/v1/table.csv").read_bytes() == tables
    assert {path: path.stat().st_ino for path in unchanged if path.parts[-3] != "results"} == {
        path: number for path, number in unchanged.items() if path.parts[-3] != "results"
    }, "what follows from the same content is kept"
    assert planned(checkout) == set()


def test_half_an_output_is_made_again(checkout: Path) -> None:
    """As a stage leaves it that writes in place, or a copy that was cut off: files, and no provenance."""
    half = folder(checkout, "evaluate/dpo")
    (half / "provenance.json").unlink()
    truncate(half / "metrics.parquet")
    done = snakemake(checkout, f"{half.relative_to(checkout)}/provenance.json")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert (half / "provenance.json").is_file()
    rest = snakemake(checkout, "smoke")
    assert rest.returncode == 0, rest.stdout[-3000:] + rest.stderr[-3000:]
    assert planned(checkout) == set()


LATE = """#!/bin/sh
# prefdist on a node whose writes the main node sees {seconds} s later.
{real} "$@" || exit
[ "$1" = make ] || exit 0
mv "$2" "$2.unseen"
(sleep {seconds}; mv "$2.unseen" "$2") >/dev/null 2>&1 &
"""


@pytest.mark.parametrize(("patience", "ends_well"), [(20, True), (1, False)])
def test_outputs_that_are_seen_late(patience: int, ends_well: bool, tmp_path: Path) -> None:
    """As on a network file system whose clients remember for some seconds what is not there."""
    checkout, programs = tmp_path / "checkout", tmp_path / "programs"
    programs.mkdir()
    checkout.mkdir()
    copy(checkout)
    script = programs / "prefdist"
    script.write_text(LATE.format(real=shutil.which("prefdist"), seconds=6))
    script.chmod(script.stat().st_mode | stat.S_IXUSR)
    (text,) = plan(load_suite("smoke", checkout), checkout).of_stage("text")
    target = f"{text.path}/provenance.json"
    command = ["snakemake", "--cores", "1", "--latency-wait", str(patience), "--", target]
    variables = environment(checkout) | {"PATH": f"{programs}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=checkout, env=variables, capture_output=True, text=True, check=False)
    assert (done.returncode == 0) == ends_well, done.stdout[-3000:] + done.stderr[-3000:]
    if not ends_well:
        assert "--latency-wait" in done.stdout + done.stderr
    deadline = time.monotonic() + 30
    while list(checkout.glob("artefacts/text/*.unseen")) and time.monotonic() < deadline:
        time.sleep(0.1)
    again = snakemake(checkout, target)
    assert again.returncode == 0, again.stdout[-3000:] + again.stderr[-3000:]
    assert "Nothing to be done" in again.stdout + again.stderr
    verify(checkout / text.path)
