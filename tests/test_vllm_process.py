"""The process that holds vLLM, without vLLM: what its client says and does when it is missing, dies, hangs or babbles.

The processes are real. Some run our worker with a package of the name `vllm` that does what a test needs.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from prefdist.errors import UserError
from prefdist.sampling.vllm import process
from prefdist.sampling.vllm.engine import MEMORY, _share, only, seed
from prefdist.sampling.vllm.process import VARIABLE, Process

Start = Callable[..., Process]

ECHO = """
import json, sys
for line in sys.stdin:
    request = json.loads(line)
    {}
    print(json.dumps(request), flush=True)
"""
STUB = """
import os, time
__version__ = "0.0.stub"
class SamplingParams:
    def __init__(self, **options): pass
class LLM:
    def __init__(self, **options):
        print("babble on stdout", flush=True)
        os.write(1, b"and from C\\n")
        {}
"""
OPTIONS: dict[str, Any] = {"max_num_batched_tokens": 8, "max_model_len": 8}
RUN_WITH = "import runpy, sys; sys.path.insert(0, sys.argv.pop(1)); runpy.run_path(sys.argv[1], run_name='__main__')"


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the command that is given the worker's path: a Python program that ignores it."""

    def use(source: str) -> None:
        file = tmp_path / "program.py"
        file.write_text(source)
        monkeypatch.setenv(VARIABLE, shlex.join([sys.executable, str(file)]))

    return use


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Sets the command that runs our worker, which then imports this as vLLM; the argument ends LLM's constructor."""

    def use(body: str) -> None:
        (tmp_path / "packages").mkdir()
        (tmp_path / "packages" / "vllm.py").write_text(STUB.format(body))
        (tmp_path / "packages" / "torch.py").write_text("class cuda:\n    is_available = staticmethod(lambda: False)\n")
        monkeypatch.setenv(VARIABLE, shlex.join([sys.executable, "-c", RUN_WITH, str(tmp_path / "packages")]))

    return use


def gone(pid: int, seconds: float = 20.0) -> bool:
    """Whether a process ends within that time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


# ---- finding an interpreter ------------------------------------------------------------------------------------------


def test_no_vllm_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with pytest.raises(UserError, match=r"not installed here.* set PREFDIST_VLLM_PYTHON .*docs/engines.md.* to transformers"):
        Process({})


def test_a_command_that_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "/nowhere/python -u")
    with pytest.raises(UserError, match="PREFDIST_VLLM_PYTHON: /nowhere/python is no program"):
        Process({})


def test_an_interpreter_without_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, sys.executable)
    with pytest.raises(UserError, match=r"refused .start.: ModuleNotFoundError: No module named 'vllm'"):
        Process(OPTIONS)


# ---- talking ---------------------------------------------------------------------------------------------------------


def test_long_messages_both_ways(program: Callable[[str], None]) -> None:
    """Far more than a pipe holds, in one line each way, and unchanged: floats to the last bit, infinities, Unicode."""
    program(ECHO.format("pass"))
    worker = Process({"model": "π"})
    assert worker.about == {"do": "start", "model": "π"}
    numbers = torch.rand(100_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).tolist()
    sent = {"numbers": [*numbers, float("-inf")], "ids": list(range(200_000)), "text": "ℓ\n"}
    assert worker.ask("anything", **sent) == {"do": "anything", **sent}
    worker.close()
    with pytest.raises(UserError, match="ended before"):
        worker.ask("more")


def test_what_vllm_prints_is_no_answer(stub: Callable[[str], None]) -> None:
    stub("")
    worker = Process(OPTIONS)
    assert worker.about == {"version": "0.0.stub"}
    assert "babble on stdout" in worker._tail() and "and from C" in worker._tail()
    worker.close()


def test_an_error_of_vllm_is_told_and_survived(stub: Callable[[str], None]) -> None:
    """The message and the end of the log; the worker can still be asked."""
    stub("")
    worker = Process(OPTIONS)
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"refused \(score\): AttributeError: 'LLM' object has no .*'generate'(.|\n)*babble"
        ):
            worker.ask("score", rows=[[[1, 2], 2, [3]]])
    worker.close()


# ---- dying and hanging -----------------------------------------------------------------------------------------------


def test_death_while_it_starts(stub: Callable[[str], None]) -> None:
    stub("os._exit(7)")
    with pytest.raises(UserError, match=r"process died \(exit status 7\); the end of its log:(.|\n)*and from C"):
        Process(OPTIONS)


def test_death_at_work(program: Callable[[str], None]) -> None:
    program(ECHO.format("if request['do'] == 'sample': sys.stderr.write('out of memory'); sys.exit(3)"))
    worker = Process({})
    with pytest.raises(UserError, match=r"died \(exit status 3\)(.|\n)*out of memory"):
        worker.ask("sample")


def test_death_between_requests(program: Callable[[str], None]) -> None:
    program(ECHO.format("pass"))
    worker = Process({})
    os.kill(worker._child.pid, signal.SIGKILL)
    assert gone(worker._child.pid)
    with pytest.raises(UserError, match=r"died \(exit status -9\)"):
        worker.ask("sample", ids=list(range(100_000)))


@pytest.mark.parametrize("what", ["gave no answer", "took nothing"])
def test_silence_is_not_waited_for(what: str, program: Callable[[str], None]) -> None:
    """It works for ever, or does not even read what is more than a pipe holds. Nothing of it is left."""
    once = "import time\nfor line in [sys.stdin.readline()]:"
    program(ECHO.format("pass").replace("for line in sys.stdin:", once) + "time.sleep(600)")
    worker = Process({}, patience=1.0)
    pid = worker._child.pid
    began = time.monotonic()
    with pytest.raises(UserError, match=f"{what} for 1 s"):
        worker.ask("sample", ids=list(range(1000 if what == "gave no answer" else 1_000_000)))
    assert time.monotonic() - began < 10
    assert gone(pid)


def test_its_children_end_with_it(program: Callable[[str], None], tmp_path: Path) -> None:
    """vLLM starts processes of its own where a model is on several GPUs."""
    body = f"import subprocess; open({str(tmp_path / 'pid')!r}, 'w').write(str(subprocess.Popen(['sleep', '600']).pid))"
    program(ECHO.format(body))
    worker = Process({})
    child = int((tmp_path / "pid").read_text())
    assert psutil.pid_exists(child)
    worker.close()
    assert gone(child) and gone(worker._child.pid)


CLIENT = """
import sys, time
from prefdist.sampling.vllm.process import Process
{}
"""


@pytest.mark.parametrize("end", ["killed while vLLM works", "at its end", "by an exception"])
def test_it_ends_with_its_client(end: str, stub: Callable[[str], None], tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    told = f"open({str(pid) + '.new'!r}, 'w').write(str(os.getpid())); os.rename({str(pid) + '.new'!r}, {str(pid)!r})"
    stub(f"{told}; time.sleep({600 if end.startswith('killed') else 0})")
    source = "kept = Process({'max_num_batched_tokens': 8, 'max_model_len': 8})" + (
        "; raise ValueError" if end == "by an exception" else ""
    )
    client = subprocess.Popen([sys.executable, "-c", CLIENT.format(source)], stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60
    while not pid.exists() and time.monotonic() < until:
        time.sleep(0.05)
    if end.startswith("killed"):
        client.kill()
    assert client.wait(60) == {"killed while vLLM works": -9, "at its end": 0, "by an exception": 1}[end]
    assert gone(int(pid.read_text()))


def test_the_other_interpreter_sees_nothing_of_ours(program: Callable[[str], None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/ours")
    monkeypatch.setenv("VLLM_CPU_KVCACHE_SPACE", "3")
    program(ECHO.format("import os; request = dict(os.environ)"))
    worker = Process({}, {"CUDA_VISIBLE_DEVICES": "5"})
    seen: dict[str, Any] = worker.about
    worker.close()
    assert "PYTHONPATH" not in seen
    assert (seen["VLLM_CPU_KVCACHE_SPACE"], seen["CUDA_VISIBLE_DEVICES"]) == ("3", "5"), "the caller's word stands"
    assert (seen["HF_HUB_OFFLINE"], seen["VLLM_NO_USAGE_STATS"]) == ("1", "1")
    assert process._DEFAULTS["VLLM_CPU_KVCACHE_SPACE"] == "1"


# ---- pure functions --------------------------------------------------------------------------------------------------


def test_seeds() -> None:
    seeds = {seed(key, number) for key in ("a", "a/1", "b") for number in range(1000)}
    assert len(seeds) == 3000
    assert all(0 <= value < 2**56 for value in seeds)
    # printf 'a/0' | sha256sum
    assert seed("a", 0) == int.from_bytes(bytes.fromhex("d7e98967056f48"), "little")


@pytest.mark.parametrize(
    ("device", "visible", "shown"),
    [
        (None, "0,1", {}),
        (torch.device("cpu"), "0,1", {}),
        (torch.device("cuda"), None, {}),
        (torch.device("cuda", 1), None, {"CUDA_VISIBLE_DEVICES": "1"}),
        (torch.device("cuda", 1), "4,6", {"CUDA_VISIBLE_DEVICES": "6"}),
        (torch.device("cuda", 0), "GPU-ab,GPU-cd", {"CUDA_VISIBLE_DEVICES": "GPU-ab"}),
    ],
)
def test_each_rank_has_its_own_gpu(device: torch.device | None, visible: str | None, shown: dict[str, str]) -> None:
    assert only(device, {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == shown


def test_the_share_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(MEMORY, raising=False)
    assert _share(0.4) == 0.4
    monkeypatch.setenv(MEMORY, "0.25")
    assert _share(0.4) == 0.25
    for wrong in ("90%", "0", "1.5", "nan"):
        monkeypatch.setenv(MEMORY, wrong)
        with pytest.raises(UserError, match=f"{MEMORY}: '{wrong}' is no share"):
            _share(0.4)
