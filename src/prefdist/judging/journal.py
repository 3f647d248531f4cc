"""Replies on disk, written as they come: nothing that was paid for is lost or asked for again.

A folder holds one file of JSON lines a maker. All files are read, so that a reply to the same request (endpoint, model,
messages, limits) serves every artefact that asks for it, also after a change of code or ceiling. Before a request is sent, what
it could cost is written down; a process that is killed with a request under way counts it as spent.
"""

import json
import os
import threading
from collections.abc import Collection, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import FileLock

from prefdist.judging.protocols.form import Reply


class Journal:
    """Replies by the digest of their request; `wanted` are the requests of one artefact, in a file of its own.

    Writing is for one process at a time: enter it as a context.
    """

    def __init__(self, folder: Path, name: str, wanted: Collection[str]) -> None:
        self._file = folder / f"{name}.jsonl"
        self._lock, self._mutex = FileLock(folder / f".{name}.lock"), threading.Lock()
        self._wanted = set(wanted)
        self.replies: dict[str, Reply] = {}
        self.spent = 0.0

    def __enter__(self) -> "Journal":
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._lock.acquire()
        self._read()
        self._stream = self._file.open("a", encoding="utf-8")
        if self._file.stat().st_size and not self._file.read_bytes().endswith(b"\n"):
            self._stream.write("\n")  # closes a line that a kill cut off
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()
        self._lock.release()

    def sent(self, request: str, worst: float) -> None:
        self._append({"request": request, "sent": worst})

    def unpaid(self, request: str, worst: float) -> None:
        """The endpoint refused the request last sent, or never got it."""
        self._append({"request": request, "unpaid": worst})

    def replied(self, request: str, worst: float, cost: float, reply: Reply) -> None:
        """The reply is on disk when this returns."""
        self._append({"request": request, "worst": worst, "cost": cost, "reply": asdict(reply)})
        with self._mutex:
            self.replies[request] = reply

    def _append(self, line: dict[str, Any]) -> None:
        with self._mutex:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())

    def _read(self) -> None:
        self.replies.clear()
        self.spent = 0.0
        for file in sorted(self._file.parent.glob("*.jsonl")):
            for line in _lines(file):
                if line["request"] not in self._wanted:
                    continue
                self.spent += line.get("sent", 0.0) - line.get("unpaid", 0.0)
                if "reply" in line:
                    self.spent += line["cost"] - line["worst"]
                    self.replies[line["request"]] = Reply(**line["reply"])


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; one that a kill cut off is left out, and its request counts as sent."""
    for text in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict) and "request" in line:
            yield line
