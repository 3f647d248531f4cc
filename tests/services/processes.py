"""Daemons of a test: on loopback, in the foreground, in a group of their own, ended with the test however it ends."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(command: Sequence[str], log: Path, port: int, seconds: float = 60) -> subprocess.Popen[bytes]:
    """Start a daemon that listens on `port`, and wait until it does."""
    with log.open("ab") as out:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process
        time.sleep(0.1)
    kill(process)
    raise RuntimeError(f"{command[0]} does not listen on port {port}: {log.read_text()[-2000:]}")


def kill(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to the daemon and all that it started."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
