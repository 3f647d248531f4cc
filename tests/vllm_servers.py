"""vLLM's own server of OpenAI's format as a child process, on this machine's CPUs. It ends with the test that started it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import httpx2

from prefdist.sampling.vllm import process

NAME = "judge"
PATIENCE = 300.0
"""Seconds until it must be up: about 35 on two idle cores."""
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "TORCH_COMPILE_DISABLE": "1",
    "OMP_NUM_THREADS": "1",
}


@dataclass(frozen=True)
class VllmServer:
    """A server that answers. `log`: what it has printed."""

    child: "subprocess.Popen[bytes]"
    root: str
    log: Path

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Connections are taken, as the kernel does that, and nothing is answered."""
        os.killpg(self.child.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.killpg(self.child.pid, signal.SIGCONT)


@contextmanager
def serving(folder: Path, log: Path, *options: str) -> Iterator[VllmServer]:
    """The model of the folder under the name NAME. Its whole process group is killed at the end."""
    port = _free_port()
    command = [*process.interpreter(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)]
    command += ["--served-model-name", NAME, "--host", "127.0.0.1", "--port", str(port)]
    command += ["--dtype", "float32", "--enforce-eager", *options]
    inherited = {name: value for name, value in os.environ.items() if name not in process._OURS}
    with log.open("wb") as stream:
        child = subprocess.Popen(
            command, stdout=stream, stderr=subprocess.STDOUT, env=inherited | ENVIRONMENT, start_new_session=True
        )
    try:
        server = VllmServer(child, f"http://127.0.0.1:{port}", log)
        _wait(server)
        yield server
    finally:
        with suppress(ProcessLookupError):  # it died by itself, and so did what it had started
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _wait(server: VllmServer) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.child.poll() is not None:
            break
        with suppress(httpx2.RequestError):
            if httpx2.get(f"{server.root}/health", timeout=5.0, trust_env=False).status_code == 200:
                return
        time.sleep(0.5)
    raise AssertionError(
        f"vLLM's server did not come up; the end of its log:\n{server.log.read_text(errors='replace')[-3000:]}"
    )


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
