"""Artefacts appear whole or not at all, say what they were made from, and are not trusted when they were changed."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
import torch
from conftest import World
from safetensors.torch import save_file

from prefdist import artefacts, cli
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.training import checkpoint
from prefdist.training.learner import Learner


def visible(folder: Path) -> list[str]:
    """What lies in a folder but locks, which stay for the next maker, and the second copy of the provenance."""
    return sorted(file.name for file in folder.iterdir() if not (file.name.startswith(".") and file.suffix != ".tmp"))


def write(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "a.bin").write_bytes(bytes(range(256)) * 300)
    (folder / "sub" / "b.txt").write_text("two")


@pytest.fixture
def made(tmp_path: Path) -> Path:
    artefacts.make(tmp_path / "made", identity={"stage": "x"}, inputs={}, run=write)
    return tmp_path / "made"


def test_what_is_made(made: Path) -> None:
    record = artefacts.provenance(made)
    assert record["stage"] == "x"
    assert set(record["outputs"]) == {"a.bin", "sub/b.txt"}
    # sha256 of the three letters t, w, o, from coreutils' sha256sum
    assert record["outputs"]["sub/b.txt"] == "3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3"
    assert record["wall_seconds"] >= 0
    assert record["environment"]["packages"]["torch"]
    assert visible(made.parent) == ["made"]


def test_the_content_digest_is_of_the_content(made: Path, tmp_path: Path) -> None:
    artefacts.make(tmp_path / "again", identity={"stage": "y"}, inputs={}, run=write)
    assert artefacts.verify(tmp_path / "again") == artefacts.verify(made)

    def other(folder: Path) -> None:
        write(folder)
        (folder / "sub" / "b.txt").write_text("twp")

    artefacts.make(tmp_path / "other", identity={"stage": "x"}, inputs={}, run=other)
    assert artefacts.verify(tmp_path / "other") != artefacts.verify(made)


def test_an_exception_leaves_nothing(made: Path) -> None:
    """Neither the folder nor a temporary one; and what stood there before stays."""

    def fails(folder: Path) -> None:
        write(folder)
        raise ValueError("in the middle")

    for out in (made.parent / "new", made):
        with pytest.raises(ValueError, match="in the middle"):
            artefacts.make(out, identity={"stage": "y"}, inputs={}, run=fails)
    assert visible(made.parent) == ["made"]
    assert artefacts.provenance(made)["stage"] == "x"
    artefacts.verify(made)


def test_what_was_there_is_replaced_whole(made: Path) -> None:
    artefacts.make(made, identity={"stage": "y"}, inputs={}, run=lambda folder: (folder / "c").touch())
    assert visible(made) == ["c", artefacts.PROVENANCE]


def write_and_wait(out: Path) -> None:
    def slow(folder: Path) -> None:
        write(folder)
        time.sleep(60)

    artefacts.make(out, identity={}, inputs={}, run=slow)


def test_a_killed_process_leaves_no_artefact(tmp_path: Path, processes: ForkServerContext) -> None:
    out = tmp_path / "made"
    process = processes.Process(target=write_and_wait, args=(out,))
    process.start()
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".made.*/sub/b.txt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    with pytest.raises(UserError, match=r"made: not a complete artefact \(provenance\.json is missing\); run the stage"):
        artefacts.verify(out)
    assert len(visible(tmp_path)) == 1, "what the killed one had written"
    artefacts.make(out, identity={}, inputs={}, run=write)
    artefacts.verify(out)
    assert visible(tmp_path) == ["made"]


def counted(runs: list[Path]) -> Callable[[Path], None]:
    def run(folder: Path) -> None:
        runs.append(folder)
        write(folder)

    return run


def test_what_is_made_already_is_kept(made: Path) -> None:
    runs: list[Path] = []
    before = artefacts.provenance(made)
    artefacts.make(made, identity={"stage": "x"}, inputs={}, run=counted(runs))
    assert not runs
    assert artefacts.provenance(made) == before


@pytest.mark.parametrize("change", ["identity", "damage", "input", "further input"])
def test_what_is_not_the_same_is_made_again(change: str, made: Path, tmp_path: Path) -> None:
    runs: list[Path] = []
    out, identity, inputs = tmp_path / "next", {"spec": {"beta": (0.1, 1)}}, {"x": made}

    def make() -> None:
        artefacts.make(out, identity=identity, inputs=inputs, run=counted(runs))

    make()
    make()
    assert len(runs) == 1
    if change == "identity":
        identity["spec"] = {"beta": (0.1, 2)}
    elif change == "damage":
        flip_a_bit(out / "a.bin")
    elif change == "input":
        artefacts.make(made, identity={"stage": "y"}, inputs={}, run=lambda folder: (folder / "c").touch())
    else:
        inputs["y"] = made
    make()
    assert len(runs) == 2
    artefacts.verify(out)


def write_slowly(out: Path, marks: Path) -> None:
    def slow(folder: Path) -> None:
        (marks / f"{os.getpid()}").touch()
        time.sleep(1.0)
        write(folder)

    artefacts.make(out, identity={}, inputs={}, run=slow)


@pytest.mark.parametrize("first_is_killed", [False, True])
def test_two_makers_never_mix(first_is_killed: bool, tmp_path: Path, processes: ForkServerContext) -> None:
    """The second waits for the first, and keeps what it made; it makes it itself if the first is killed."""
    out, marks = tmp_path / "made", tmp_path / "marks"
    marks.mkdir()
    first, second = (processes.Process(target=write_slowly, args=(out, marks)) for _ in range(2))
    first.start()
    deadline = time.monotonic() + 60
    while not list(marks.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    second.start()
    if first_is_killed:
        time.sleep(0.3)
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
    for process in (first, second):
        process.join(60)
    assert second.exitcode == 0
    assert {file.name for file in marks.iterdir()} == {str(p.pid) for p in ([first, second] if first_is_killed else [first])}
    artefacts.verify(out)
    assert visible(tmp_path) == ["made", "marks"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 2 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small file system needs root and a kernel that lets root mount")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def write_a_table(folder: Path) -> None:
    rows = [
        {"prompt_id": str(i), "module": "m", "split": "train", "prompt": os.urandom(99).hex(), "reference": "r"}
        for i in range(40_000)
    ]
    tables.write_table(folder / "prompts.parquet", rows, tables.PROMPTS)


def write_a_model(folder: Path) -> None:
    save_file({"weight": torch.zeros(2**20)}, folder / "model.safetensors")


def write_a_checkpoint(folder: Path) -> None:
    learner = Learner(torch.nn.Linear(1024, 1024))
    checkpoint.save(folder, learner, torch.optim.AdamW(learner.trainable().values()), 1, [])


@pytest.mark.parametrize(
    "run", [write_a_table, write_a_model, write_a_checkpoint, lambda folder: (folder / "a").write_bytes(bytes(2**22))]
)
def test_a_full_disk_keeps_what_was_there(run: Callable[[Path], None], small_disk: Path) -> None:
    """Whichever library writes; and there is space again for what fits."""
    artefacts.make(small_disk / "made", identity={}, inputs={}, run=write)
    with pytest.raises(UserError, match=r"disk/big: no space left for it \(\d MiB free now\).*free some space"):
        artefacts.make(small_disk / "big", identity={}, inputs={}, run=run)
    assert visible(small_disk) == ["made"]
    artefacts.verify(small_disk / "made")
    artefacts.make(small_disk / "small", identity={}, inputs={}, run=write)
    artefacts.verify(small_disk / "small")


def test_a_full_disk_keeps_the_last_checkpoint(small_disk: Path) -> None:
    learner = Learner(torch.nn.Linear(300, 300))
    optimiser = torch.optim.AdamW(learner.trainable().values())
    checkpoint.save(small_disk, learner, optimiser, 7, [{"loss": 1.0}])
    (small_disk / "other").write_bytes(bytes(2**20 + 2**19))
    with pytest.raises((OSError, RuntimeError)):
        checkpoint.save(small_disk, learner, optimiser, 8, [{"loss": 1.0}, {"loss": 0.5}])
    assert visible(small_disk) == ["checkpoint.pt", "other"]
    assert checkpoint.load(small_disk, learner, optimiser) == (7, [{"loss": 1.0}])


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[40_000] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        ("a.bin", Path.unlink, "missing, though provenance.json lists it"),
        ("a.bin", flip_a_bit, "its content is not what provenance.json says"),
        ("a.bin", lambda file: os.truncate(file, 40_000), "its content is not what provenance.json says"),
        ("sub/b.txt", lambda file: file.write_text("Two"), "its content is not what provenance.json says"),
        ("sub/b.txt", lambda file: file.write_text(""), "its content is not what provenance.json says"),
    ],
)
def test_damage_is_noticed_and_named(name: str, damage: object, message: str, made: Path, tmp_path: Path) -> None:
    """By whoever checks, and by the next stage before it runs."""
    assert callable(damage)
    damage(made / name)
    expected = f"^{made / name}: {message}; delete {made} and run again$"
    with pytest.raises(UserError, match=expected):
        artefacts.verify(made)
    ran: list[Path] = []
    with pytest.raises(UserError, match=expected):
        artefacts.make(tmp_path / "next", identity={}, inputs={"x": made}, run=ran.append)
    assert not ran
    assert not (tmp_path / "next").exists()


@pytest.mark.parametrize("content", ["", '{"outputs": {"a.bin"', "[]", "{}"])
def test_a_damaged_provenance(content: str, made: Path) -> None:
    (made / artefacts.PROVENANCE).write_text(content)
    with pytest.raises(UserError, match=f"^{made}.*provenance.*if {made} is to be one, delete it and run again$"):
        artefacts.verify(made)


def test_inputs_are_recorded_by_content(made: Path, tmp_path: Path) -> None:
    artefacts.make(tmp_path / "next", identity={}, inputs={"x": made}, run=write)
    recorded = artefacts.provenance(tmp_path / "next")["inputs"]
    assert recorded == {"x": {"path": str(made), "content": artefacts.verify(made)}}


def test_nothing_of_this_machine_is_recorded(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `prefdist make` writes can be published: no absolute path in any text file."""
    monkeypatch.chdir(world.root / "workflow")  # from anywhere in a checkout
    artefact = world.artefacts["dpo_lora-seed0"]
    assert cli.main(["make", str(artefact.path), "--suite", "tiny"]) == 0
    folder = world.root / artefact.path
    record = artefacts.provenance(folder)
    assert record["digest"] == artefact.digest
    assert record["code"] == artefact.code_digest
    assert record["spec"] == json.loads(json.dumps(artefact.spec))
    assert {role: value["path"] for role, value in record["inputs"].items()} == {
        role: str(source.path) for role, source in artefact.inputs.items()
    }
    texts = [file for file in folder.rglob("*") if file.suffix in (".json", ".jsonl", ".md", ".txt", ".jinja")]
    assert len(texts) >= 4
    secrets = [str(world.root), str(Path.home()) + os.sep, str(Path(__file__).parents[1])]
    for file in texts:
        for secret in secrets:
            assert secret not in file.read_text(), (file, secret)
    assert artefacts.verify(folder)
    assert cli.main(["make", "artefacts/train/unknown", "--suite", "tiny"]) == 2
