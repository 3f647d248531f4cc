"""What a run does with an artefact that is half there, damaged or edited by hand."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from checkouts import planned, snakemake

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
