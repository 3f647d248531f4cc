"""The worker as a child process: started, asked, and ended; a worker that dies or falls silent is an error, never a wait.

Left out: what is asked (engine.py) and what answers (worker.py).
"""

import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from prefdist.errors import UserError

Message = dict[str, Any]

VARIABLE = "PREFDIST_VLLM_PYTHON"
"""An interpreter that has vLLM, or a command that ends in one, such as `apptainer exec --nv IMAGE python`."""
PATIENCE = 3600.0
"""Seconds until a silent worker is given up: for loading a large model, or for one request, which is bounded (engine.py)."""
_WORKER = Path(__file__).with_name("worker.py")
_LOG = 3000
"""Bytes of the worker's log that an error shows, at most."""
_OURS = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV")
"""Variables of this interpreter that another one must not see."""
_SETTINGS = {
    "PYTHONSAFEPATH": "1",  # the worker's folder holds files of ours, whose names are not to hide modules of others
    "PYTHONNOUSERSITE": "1",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process, so that killing it ends everything
}
_DEFAULTS = {
    "VLLM_CPU_KVCACHE_SPACE": "1",  # GiB; vLLM's own default is nearly all memory
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the cores are shared with the trainer and with other jobs
}


def interpreter() -> list[str]:
    """The command that runs an interpreter with vLLM. UserError, which says what to do, if there is none."""
    given = os.environ.get(VARIABLE)
    if given:
        command = shlex.split(given)
        if shutil.which(command[0]) is None:
            raise UserError(f"{VARIABLE}: {command[0]} is no program; set it to an interpreter that has vLLM, or unset it")
        return command
    if find_spec("vllm") is not None:
        return [sys.executable]
    raise UserError(
        f"engine: vllm needs vLLM, which is not installed here; it wants other packages than training does, so set {VARIABLE} "
        "to an interpreter that has it (docs/engines.md), or set engine to transformers"
    )


class Process:
    """A worker that answers. It is killed by close(), when the object goes, and at this process's end, whichever is first.

    options: what vLLM's LLM is made with. UserError if it cannot be made, naming the reason and the end of the worker's log.
    """

    def __init__(self, options: Message, environment: Mapping[str, str] | None = None, *, patience: float = PATIENCE) -> None:
        self._patience = patience
        command = [*interpreter(), str(_WORKER)]
        self._log: IO[bytes] = tempfile.TemporaryFile("ab+")  # noqa: SIM115 - closed by _end
        inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env={**_DEFAULTS, **inherited, **_SETTINGS, **(environment or {})},
            start_new_session=True,  # a group of its own, with whatever it starts
        )
        assert self._child.stdin is not None and self._child.stdout is not None
        self._in, self._out = self._child.stdin.fileno(), self._child.stdout.fileno()
        os.set_blocking(self._in, False)
        self._received = b""
        self.close = weakref.finalize(self, _end, self._child, self._log)
        try:
            self.about = self.ask("start", **options)
        except UserError:
            self.close()
            raise

    def ask(self, do: str, **arguments: Any) -> Message:
        """The worker's answer. UserError if it is an error, or if the worker died or stayed silent; it is then ended."""
        if not self.close.alive:
            raise UserError("vLLM was ended before; start it again")
        until = time.monotonic() + self._patience
        self._send(json.dumps({"do": do, **arguments}).encode() + b"\n", until)
        answer: Message = json.loads(self._line(until))
        if "error" in answer:
            raise UserError(f"vLLM refused ({do}): {answer['error']}\n{self._tail()}")
        return answer

    def _send(self, data: bytes, until: float) -> None:
        view = memoryview(data)
        while view:
            if not select.select([], [self._in], [], max(0.0, until - time.monotonic()))[1]:
                self._give_up(f"took nothing for {self._patience:.0f} s")
            try:
                view = view[os.write(self._in, view) :]
            except BrokenPipeError:
                self._give_up("died")

    def _line(self, until: float) -> bytes:
        while b"\n" not in self._received:
            if not select.select([self._out], [], [], max(0.0, until - time.monotonic()))[0]:
                self._give_up(f"gave no answer for {self._patience:.0f} s")
            data = os.read(self._out, 1 << 20)
            if not data:
                self._give_up("died")
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def _give_up(self, what: str) -> None:
        log = self._tail()
        self.close()
        code = self._child.returncode
        how = f"{what} (exit status {code})" if what == "died" else what
        raise UserError(f"vLLM's process {how}; the end of its log:\n{log}")

    def _tail(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), _LOG, max(0, size - _LOG)).decode(errors="replace").strip() or "(empty)"


def _end(child: "subprocess.Popen[bytes]", log: IO[bytes]) -> None:
    """Kill the worker and what it has started. It keeps nothing that would be lost."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    for pipe in (child.stdin, child.stdout, log):
        if pipe is not None:
            pipe.close()
