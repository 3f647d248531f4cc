"""Artefacts appear whole or not at all, say what they were made from, and are not trusted when they were changed."""

import json
import os
import signal
import time
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from conftest import World

from prefdist import artefacts, cli
from prefdist.errors import UserError


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
    assert sorted(file.name for file in made.parent.iterdir()) == ["made"]


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
            artefacts.make(out, identity={}, inputs={}, run=fails)
    assert sorted(file.name for file in made.parent.iterdir()) == ["made"]
    assert artefacts.provenance(made)["stage"] == "x"
    artefacts.verify(made)


def test_what_was_there_is_replaced_whole(made: Path) -> None:
    artefacts.make(made, identity={}, inputs={}, run=lambda folder: (folder / "c").touch())
    assert sorted(file.name for file in made.iterdir()) == ["c", artefacts.PROVENANCE]


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
    artefacts.make(out, identity={}, inputs={}, run=write)
    artefacts.verify(out)


def test_only_the_first_process_puts_it_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    artefacts.make(tmp_path / "made", identity={}, inputs={}, run=write)
    assert not list(tmp_path.iterdir())
    monkeypatch.setenv("RANK", "0")
    artefacts.make(tmp_path / "made", identity={}, inputs={}, run=write)
    artefacts.verify(tmp_path / "made")


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
    with pytest.raises(UserError, match=f"^{made}.*provenance.*delete {made} and run again$"):
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


def test_publish_copies_a_verified_artefact_and_marks_it(tmp_path: Path) -> None:
    artefact, folder = tmp_path / "artefact", tmp_path / "results" / "v1"
    artefacts.make(artefact, identity={}, inputs={}, run=lambda out: (out / "table.csv").write_text("a\n1\n"))
    folder.mkdir(parents=True)
    (folder / "stale.csv").write_text("old")
    artefacts.publish(artefact, folder, ".published-1")
    assert {file.name for file in folder.iterdir()} == {"table.csv", "provenance.json", ".published-1"}
    assert (folder / "table.csv").read_text() == "a\n1\n"
    (artefact / "table.csv").write_text("a\n2\n")
    with pytest.raises(UserError, match=r"table\.csv: its content is not"):
        artefacts.publish(artefact, folder, ".published-1")
    assert (folder / "table.csv").read_text() == "a\n1\n"
