"""The same command again, whatever became of the last one: locks of the dead are removed, those of the living are not."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
HELD = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from pathlib import Path
from prefdist import restart
print(restart.claim(Path.cwd()), flush=True)
sys.stdin.read()
"""


def claim(folder: Path) -> Any:
    """A process that says it is alive in a folder, until its pipe is closed or it is killed; and whether it is alone."""
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen(["python", "-c", HELD], cwd=folder, text=True, **pipes)
    return process, process.stdout.readline() == "True\n"


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    file = tmp_path / ".snakemake/locks/0.output.lock"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def test_the_lock_of_the_dead_is_removed_and_named(lock: Path, tmp_path: Path) -> None:
    process, alone = claim(tmp_path)
    assert alone
    assert not lock.exists()
    process.kill()
    process.communicate()
    lock.touch()
    again, alone = claim(tmp_path)
    assert alone
    assert not lock.exists()
    _, told = again.communicate()
    assert f"{lock}: left by a Snakemake that was killed; removed" in told


def test_the_lock_of_the_living_stays_whoever_of_them_it_is(lock: Path, tmp_path: Path) -> None:
    """The first ends, and the second, which was not alone, is still there."""
    first, _ = claim(tmp_path)
    lock.touch()
    second, alone = claim(tmp_path)
    assert not alone
    first.communicate()
    third, alone = claim(tmp_path)
    assert not alone
    assert lock.exists()
    for process in (second, third):
        process.communicate()
    process, alone = claim(tmp_path)
    assert alone
    assert not lock.exists()
    process.communicate()


SNAKEFILE = f"""
import sys
sys.path.insert(0, {str(ROOT / "src")!r})
from pathlib import Path
from prefdist import restart
workflow.is_main_process and restart.claim(Path.cwd())
rule slow:
    output: "made"
    shell: "while ! test -e enough; do sleep 0.1; done; touch made"
"""


@pytest.fixture
def snakemake(tmp_path: Path) -> Iterator[Any]:
    (tmp_path / "Snakefile").write_text(SNAKEFILE)
    started = []

    def start() -> subprocess.Popen[str]:
        command = ["snakemake", "--cores", "1", "--rerun-incomplete"]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "start_new_session": True}
        started.append(subprocess.Popen(command, cwd=tmp_path, text=True, **pipes))
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@pytest.mark.slow
def test_two_snakemakes_in_one_folder_and_one_that_was_killed(snakemake: Any, tmp_path: Path) -> None:
    """The second is refused in Snakemake's own words and the first ends well; after SIGKILL the same command goes on."""

    def locked() -> bool:
        deadline = time.monotonic() + 60
        while not (there := list((tmp_path / ".snakemake/locks").glob("*.lock"))) and time.monotonic() < deadline:
            time.sleep(0.05)
        return bool(there)

    killed = snakemake()
    assert locked()
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    first = snakemake()
    time.sleep(1)
    deadline = time.monotonic() + 60
    while "slow" not in (line := first.stdout.readline()) and time.monotonic() < deadline:
        assert "LockException" not in line
    second = snakemake()
    told, _ = second.communicate(timeout=120)
    assert second.returncode != 0
    assert "Directory cannot be locked" in told
    (tmp_path / "enough").touch()
    first.communicate(timeout=120)
    assert first.returncode == 0
    assert (tmp_path / "made").exists()
