"""A real local server that speaks OpenAI's chat completions format, answers by a test's rule, and misbehaves on demand."""

import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Body = dict[str, Any]
Rule = Callable[[Body], Any]
"""From a request's body to its reply: a text, a whole completion, or a Fault."""


class Fault:
    """A status with headers, a cut connection (status 0), or silence for so many seconds."""

    def __init__(self, status: int = 0, *, headers: dict[str, str] | None = None, body: str = "{}", silent: float = 0.0):
        self.status, self.headers, self.body, self.silent = status, headers or {}, body, silent


class JudgeServer(ThreadingHTTPServer):
    """`bodies`: every request's body as it came; `keys`: their Authorization headers; `counts`: by their last message."""

    daemon_threads = True

    def __init__(self, rule: Rule) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.rule, self.closing = rule, threading.Event()
        self.bodies: list[Body] = []
        self.keys: list[str | None] = []
        self.times: list[float] = []
        self.counts: Counter[str] = Counter()
        self.under_way = self.most_under_way = 0
        self.mutex = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: JudgeServer

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.mutex:
            server.bodies.append(body)
            server.times.append(time.monotonic())
            server.keys.append(self.headers.get("Authorization"))
            server.counts[body["messages"][-1]["content"]] += 1
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            self._answer(server.rule(body) if self.path == "/v1/chat/completions" else Fault(404))
        finally:
            with server.mutex:
                server.under_way -= 1

    def _answer(self, found: Any) -> None:
        status, headers, text = 200, {}, ""
        if isinstance(found, Fault):
            if found.silent:
                self.server.closing.wait(found.silent)
            if not found.status:
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            status, headers, text = found.status, found.headers, found.body
        else:
            text = json.dumps(found if isinstance(found, dict) else completion(found))
        content = text.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


def completion(text: str, *, logprobs: dict[str, float] | None = None, tokens: tuple[int, int] | None = (100, 10)) -> Body:
    """A chat completion with so many prompt and reply tokens, and log-probabilities of its first token."""
    choice: Body = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
    if logprobs is not None:
        told = [{"token": token, "logprob": value, "bytes": None} for token, value in logprobs.items()]
        choice["logprobs"] = {"content": [{"token": text, "logprob": 0.0, "top_logprobs": told}]}
    found: Body = {"id": "c", "object": "chat.completion", "model": "judge", "choices": [choice]}
    if tokens is not None:
        found["usage"] = {"prompt_tokens": tokens[0], "completion_tokens": tokens[1], "total_tokens": sum(tokens)}
    return found


@contextmanager
def serving(rule: Rule) -> Iterator[JudgeServer]:
    server = JudgeServer(rule)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


def timeout_of(fault: Fault) -> float:
    """Short where the server is silent; a busy machine's good replies need longer."""
    return 1.0 if fault.silent else 20.0
