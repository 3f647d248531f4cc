"""A judge's endpoint that misbehaves, and a run that is killed: nothing is lost, and nothing is asked for twice."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from judge_inputs import KEY, PRICES, endpoint, judged, longer, pairs
from judge_servers import Fault, serving, timeout_of

from prefdist.errors import UserError
from prefdist.judging import stage

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.mark.parametrize(
    ("fault", "least"),
    [
        (Fault(429, headers={"Retry-After": "0.3"}), 0.3),
        (Fault(500), 0.0),
        (Fault(0), 0.0),
        (Fault(0, silent=3.0), 0.0),
        (Fault(200, body="<html>gateway</html>"), 0.0),
        (Fault(200, body='{"choices": []}'), 0.0),
    ],
    ids=["429", "500", "cut", "hangs", "html", "empty"],
)
def test_a_passing_fault_is_tried_again(tmp_path: Path, fault: Fault, least: float) -> None:
    seen: set[str] = set()

    def rule(body: dict[str, Any]) -> Any:
        content = body["messages"][-1]["content"]
        if content not in seen:
            seen.add(content)
            return fault
        return longer(body)

    with serving(rule) as server:
        rows = judged(endpoint(server.url, timeout=timeout_of(fault), concurrency=1), pairs(tmp_path, 2), tmp_path)
    assert [row["preference"] for row in rows] == [2.0, 2.0, 1.0, 1.0]
    assert set(server.counts.values()) == {2}
    gaps = [b - a for a, b in zip(server.times[::2], server.times[1::2], strict=True)]
    assert min(gaps) >= least


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(0, silent=3.0), r"no reply in 2 attempts, the last one: no whole reply within 1 s"),
        (Fault(503, body="overloaded"), r"no reply in 2 attempts, the last one: status 503 \(overloaded\)"),
        (Fault(0), "no reply in 2 attempts, the last one: the connection broke"),
        (Fault(200, body="hello"), r"the last one: what came is no chat completion \(hello\)"),
        (Fault(429, headers={"Retry-After": "3600"}), "asks to wait 3600 s, which is more than patience"),
        (Fault(400, body="no such model"), r"refused with status 400 \(no such model\)"),
        (Fault(401, body=KEY), "status 401: no key was sent"),
    ],
    ids=["hangs", "503", "cut", "nonsense", "429", "400", "401"],
)
def test_a_lasting_fault_is_one_clear_sentence_and_loses_nothing(tmp_path: Path, fault: Fault, said: str) -> None:
    inputs, broken = pairs(tmp_path), True

    def rule(body: dict[str, Any]) -> Any:
        return fault if broken and "answer 4" in body["messages"][-1]["content"] else longer(body)

    with serving(rule) as server:
        spec = endpoint(server.url, attempts=2, timeout=timeout_of(fault), concurrency=1)
        with pytest.raises(UserError, match=said):
            judged(spec, inputs, tmp_path)
        assert not (tmp_path / "out/judgements.parquet").exists()
        kept, server.counts = [c for c in server.counts if "answer 4" not in c], server.counts
        assert len(kept) == 8
        broken = False
        judged(spec, inputs, tmp_path)
    assert {server.counts[content] for content in kept} == {1}


def test_an_endpoint_that_nobody_serves(tmp_path: Path) -> None:
    with serving(longer) as server:
        url = server.url
    with pytest.raises(UserError, match=r"no reply in 2 attempts, the last one: out of reach"):
        judged(endpoint(url, attempts=2), pairs(tmp_path, 1), tmp_path)


def test_a_reply_that_trickles_is_no_reply(tmp_path: Path) -> None:
    """Each byte comes within the timeout, the whole never."""
    import socket

    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not closing.wait(0.05):
            try:
                connection.sendall(b" ")
            except OSError:
                break
        connection.close()

    thread = threading.Thread(target=trickle, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    began = time.monotonic()
    try:
        with pytest.raises(UserError, match=r"no whole reply within 0\.3 s"):
            judged(endpoint(url, attempts=1, timeout=0.3, concurrency=1), pairs(tmp_path, 1), tmp_path)
        assert time.monotonic() - began < 20.0, "1000 bytes would take 50 seconds"
    finally:
        closing.set()
        listener.close()
        thread.join()


def test_stored_replies_are_not_asked_for_again_whatever_else_changes(tmp_path: Path) -> None:
    inputs = pairs(tmp_path)
    with serving(longer) as server:
        first = judged(endpoint(server.url), inputs, tmp_path)
        assert set(server.counts.values()) == {1}
        # another ceiling, other limits; then more prompts
        assert judged(endpoint(server.url, timeout=9.0, prices={**PRICES, "ceiling": 1.0}), inputs, tmp_path) == first
        assert len(server.bodies) == 12
        more = {**pairs(tmp_path / "more", 8)}
        assert judged(endpoint(server.url), more, tmp_path)[:12] == first
        assert len(server.bodies) == 16
        judged(endpoint(server.url, model="other"), inputs, tmp_path)
        assert len(server.bodies) == 28


JUDGE = """
import json, sys
from pathlib import Path
from prefdist.judging.comparisons import read_pairs
from prefdist.judging.endpoint import Endpoint
from prefdist.config.judge import Judging
spec, inputs, replies = json.loads(sys.argv[1])
judging = {key: spec[key] for key in ("judge", "protocol", "orders")}
pairs = read_pairs({role: Path(path) for role, path in inputs.items()})
Endpoint(Judging.model_validate(judging), Path(replies)).judge(pairs)
"""
"""What the stage does with an endpoint, without torch, which takes seconds to import."""


def test_killed_and_resumed_without_repeating_what_was_stored(tmp_path: Path) -> None:
    inputs = pairs(tmp_path, 20)
    enough, hold = threading.Event(), threading.Event()

    def rule(body: dict[str, Any]) -> str:
        if len(server.bodies) > 12 and not hold.is_set():
            enough.set()
            hold.wait(20)
        return longer(body)

    with serving(rule) as server:
        spec = endpoint(server.url, concurrency=2, timeout=30.0)
        replies = tmp_path / "scratch" / stage.REPLIES
        settings = json.dumps([spec, {role: str(path) for role, path in inputs.items()}, str(replies)])
        process = subprocess.Popen([sys.executable, "-c", JUDGE, settings], stderr=subprocess.DEVNULL)
        assert enough.wait(60)
        process.kill()  # SIGKILL
        process.wait()
        hold.set()
        journal = [json.loads(line) for line in _journal(tmp_path).read_text().splitlines()]
        stored = sum("reply" in line for line in journal)
        assert stored >= 10
        rows = judged(spec, inputs, tmp_path)
    assert [row["preference"] for row in rows] == [p for i in range(20) for p in [2.0 if i % 2 == 0 else 1.0] * 2]
    # Only what was under way when it was killed, two at most, was sent twice.
    assert sum(server.counts.values()) <= 40 + 2
    assert sum(count == 1 for count in server.counts.values()) >= stored
    assert max(server.counts.values()) <= 2


def _journal(folder: Path) -> Path:
    (file,) = (folder / "scratch" / stage.REPLIES).glob("*.jsonl")
    return file


def test_a_line_cut_off_by_a_kill_is_its_request_again(tmp_path: Path) -> None:
    inputs = pairs(tmp_path, 2)
    with serving(longer) as server:
        judged(endpoint(server.url, concurrency=1), inputs, tmp_path)
        file = _journal(tmp_path)
        file.write_text(file.read_text()[:-30])
        rows = judged(endpoint(server.url), inputs, tmp_path)
        assert len(server.bodies) == 5
        judged(endpoint(server.url), inputs, tmp_path)
        assert len(server.bodies) == 5
    assert [row["preference"] for row in rows] == [2.0, 2.0, 1.0, 1.0]
