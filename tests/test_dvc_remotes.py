"""Artefacts through real remotes: a folder, an S3 server, an SSH server; also one that dies in mid-push.

What is shared is the text of the testbed, really made, and beside it a file large enough to be interrupted.
"""

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from checkouts import environment
from dvc_checkouts import clone, commit, dvc, files_with, git, repository, run
from services.sshd import Sshd
from services.swift import KEY, SECRET, Swift

from prefdist.artefacts import PROVENANCE
from prefdist.plan import plan
from prefdist.suites import load_suite

pytestmark = pytest.mark.dvc
LARGE = 300 * 2**20
PUSH_SECONDS = 420
"""A client that has lost its server tries for minutes before it gives up."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with one artefact, added and committed; its remotes are the tests'."""
    checkout = repository(tmp_path_factory.mktemp("made"))
    done = run(checkout, "prefdist", "make", text_of(checkout), "--suite", "smoke")
    assert done.returncode == 0, done.stdout
    dvc(checkout, "add", "-q", "artefacts")
    commit(checkout, "the text")
    return checkout


def text_of(checkout: Path) -> str:
    (text,) = plan(load_suite("smoke", checkout), checkout).of_stage("text")
    return str(text.path)


@pytest.fixture
def checkout(made: Path, tmp_path: Path) -> Path:
    """A copy with a cache of its own."""
    return Path(shutil.copytree(made, tmp_path / "checkout", symlinks=True))


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    server = Swift(tmp_path_factory.mktemp("swift"))
    try:
        server.start()
        server.create_bucket("shared")
        yield server
    finally:
        server.stop()


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    server = Sshd(tmp_path_factory.mktemp("sshd"))
    try:
        server.start()
        yield server
    finally:
        server.kill()


def s3_remote(checkout: Path, server: Swift, prefix: str, secret: str = SECRET) -> None:
    dvc(checkout, "remote", "add", "-q", "-d", "s3", f"s3://shared/{prefix}")
    for key, value in (("endpointurl", server.endpoint), ("region", "us-east-1")):
        dvc(checkout, "remote", "modify", "-q", "s3", key, value)
    for key, value in (("access_key_id", KEY), ("secret_access_key", secret)):
        dvc(checkout, "remote", "modify", "-q", "--local", "s3", key, value)
    commit(checkout, "a remote")


def ssh_remote(checkout: Path, server: Sshd, folder: Path) -> None:
    dvc(checkout, "remote", "add", "-q", "-d", "ssh", f"ssh://root@127.0.0.1:{server.port}{folder}")
    dvc(checkout, "remote", "modify", "-q", "--local", "ssh", "keyfile", str(server.key))
    commit(checkout, "a remote")


def assert_shared(checkout: Path, folder: Path) -> None:
    """A fresh clone pulls every byte, and what it pulled counts as made."""
    other = clone(checkout, folder)
    dvc(other, "pull", "-q", "artefacts.dvc")
    files = sorted(file.relative_to(checkout) for file in (checkout / "artefacts").rglob("*") if file.is_file())
    shared = [file for file in files if file.suffix != ".lock"]
    assert shared == sorted(file.relative_to(other) for file in (other / "artefacts").rglob("*") if file.is_file())
    for file in shared:
        assert (other / file).read_bytes() == (checkout / file).read_bytes(), file
    done = run(other, "prefdist", "make", text_of(other), "--suite", "smoke")
    assert done.returncode == 0, done.stdout
    assert "verified and kept" in done.stdout


def test_a_folder(checkout: Path, tmp_path: Path) -> None:
    (checkout / "artefacts/text/.stdlib-0.tmp").mkdir()
    (checkout / "artefacts/text/.stdlib-0.tmp/half").write_text("of a maker at work")
    dvc(checkout, "remote", "add", "-q", "-d", "folder", str(tmp_path / "remote"))
    commit(checkout, "a remote")
    assert "up to date" in dvc(checkout, "status", "artefacts.dvc")
    shutil.rmtree(checkout / "artefacts/text/.stdlib-0.tmp")
    dvc(checkout, "push", "-q")
    assert_shared(checkout, tmp_path / "other")


def test_s3_keeps_its_secret_and_refuses_a_wrong_one(checkout: Path, swift: Swift, tmp_path: Path) -> None:
    s3_remote(checkout, swift, "whole")
    dvc(checkout, "push", "-q")
    assert_shared(checkout, tmp_path / "other")

    tracked = [checkout / name for name in git(checkout, "ls-files").splitlines()]
    assert checkout / ".dvc/config" in tracked
    assert checkout / ".dvc/config.local" not in tracked
    assert files_with(SECRET, [checkout, tmp_path / "other"]) == [
        checkout / ".dvc/config.local",
        tmp_path / "other/.dvc/config.local",
    ]
    assert SECRET not in git(checkout, "log", "-p", "--all")

    dvc(checkout, "remote", "modify", "-q", "--local", "s3", "secret_access_key", "wrong")
    refused = run(checkout, "dvc", "push", "-r", "s3", "artefacts.dvc")
    assert refused.returncode != 0, refused.stdout
    assert "Forbidden" in refused.stdout
    assert SECRET not in refused.stdout


def test_ssh(checkout: Path, sshd: Sshd, tmp_path: Path) -> None:
    ssh_remote(checkout, sshd, tmp_path / "remote")
    dvc(checkout, "push", "-q")
    assert_shared(checkout, tmp_path / "other")


def size(folder: Path) -> int:
    files = (Path(at) / name for at, _, names in os.walk(folder) for name in names)
    return sum(file.stat().st_size for file in files if file.exists())


def assert_survives_a_death(checkout: Path, storage: Path, server: Swift | Sshd, other: Path) -> None:
    """The push fails and says so; after the server's return a second one ends it, and nothing wrong was kept."""
    (folder,) = (path for path in (checkout / "artefacts/text").iterdir() if path.is_dir())
    weights = folder.with_name("large") / "model.safetensors"
    weights.parent.mkdir()
    with weights.open("wb") as file:
        for _ in range(LARGE // 2**20):
            file.write(os.urandom(2**20))
    (weights.parent / PROVENANCE).write_text("{}")
    dvc(checkout, "add", "-q", "artefacts")
    commit(checkout, "something large")

    before = size(storage)
    push = start_push(checkout)
    try:
        wait_until(lambda: size(storage) - before > LARGE // 20 or push.poll() is not None)
        assert push.poll() is None, "the push ended before the server was killed"
        server.kill()
        output, _ = push.communicate(timeout=PUSH_SECONDS)
    finally:
        push.kill()
    assert push.returncode != 0, output
    assert "failed to transfer" in output, output
    assert "Traceback" not in output
    server.start()
    dvc(checkout, "push", "-q")
    assert "in sync" in dvc(checkout, "status", "--cloud", "artefacts.dvc")
    assert_shared(checkout, other)


def start_push(checkout: Path) -> subprocess.Popen[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.Popen(["dvc", "push"], cwd=checkout, env=environment(checkout), text=True, **streams)


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_an_s3_server_that_dies_in_mid_push(checkout: Path, swift: Swift, tmp_path: Path) -> None:
    s3_remote(checkout, swift, "died")
    assert_survives_a_death(checkout, swift.folder / "devices", swift, tmp_path / "other")


def test_an_ssh_server_that_dies_in_mid_push(checkout: Path, sshd: Sshd, tmp_path: Path) -> None:
    (tmp_path / "remote").mkdir()
    ssh_remote(checkout, sshd, tmp_path / "remote")
    assert_survives_a_death(checkout, tmp_path / "remote", sshd, tmp_path / "other")
