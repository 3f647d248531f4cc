"""Judging through a real local server: what is sent, kept, tried again, paid, and what happens when the endpoint misbehaves."""

import json
import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from judge_inputs import KEY, endpoint, judged, longer, pairs, summaries
from judge_servers import Fault, completion, serving

from prefdist.config_judge import EndpointJudge, Judging
from prefdist.errors import UserError
from prefdist.judging import pace, stage
from prefdist.judging.endpoint import NONSENSE
from prefdist.judging.pace import backoff

PRICES = {"input": 10.0, "output": 30.0}
"""A reply of 100 and 10 tokens then costs 0.0013."""
COST = 0.0013


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "FIRST_WAIT", 0.01)
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def test_every_pair_is_shown_in_both_orders_and_the_longer_answer_wins(tmp_path: Path) -> None:
    inputs = pairs(tmp_path)
    with serving(longer) as server:
        rows = judged(endpoint(server.url, temperature=0.25), inputs, tmp_path)
    assert [(row["prompt_id"], row["order"]) for row in rows] == [(f"p{i}", order) for i in range(6) for order in (0, 1)]
    assert [row["preference"] for row in rows] == [2.0 if i % 2 == 0 else 1.0 for i in range(6) for _ in (0, 1)]
    shown = {summaries(body) for body in server.bodies}
    assert ("reference 0 " + "r" * 20, "answer 0 " + "a" * 40) in shown
    assert ("answer 0 " + "a" * 40, "reference 0 " + "r" * 20) in shown
    assert len(shown) == 12
    assert rows[0]["reply"] == "One is longer.\nPreferred: B"
    assert (rows[0]["prompt_tokens"], rows[0]["completion_tokens"], rows[0]["finish_reason"]) == (100, 10, "stop")
    assert (rows[0]["length_answer"], rows[0]["length_baseline"]) == (49, 32)
    (sent,) = {(body["model"], body["temperature"], body["max_tokens"]) for body in server.bodies}
    assert sent == ("judge", 0.25, 256)
    assert server.keys == [None] * 12


def test_a_drawn_order_is_one_request_a_pair_and_depends_on_the_seed_alone(tmp_path: Path) -> None:
    inputs = pairs(tmp_path, 16)
    with serving(longer) as server:
        spec = endpoint(server.url, orders="drawn")
        rows = judged(spec, inputs, tmp_path)
        assert len(server.bodies) == 16
        again = judged({**spec, "order_seed": 1}, inputs, tmp_path)
    assert {row["order"] for row in rows} == {0, 1}
    assert [row["order"] for row in rows] != [row["order"] for row in again]
    assert [row["preference"] for row in rows] == [row["preference"] for row in again] == [2.0, 1.0] * 8


def test_a_judge_who_likes_the_first_answer_best_is_found_out(tmp_path: Path) -> None:
    with serving(lambda body: "Preferred: A") as server:
        judged(endpoint(server.url), pairs(tmp_path), tmp_path)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    values = {name: found["value"] for name, found in summary["metrics"].items()}
    assert values["win_rate"] == 0.5
    assert values["position_agreement"] == 0.0
    assert values["first_shown_wins"] == 1.0


def test_some_nonsense_is_missing_and_counted(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> str:
        return "Hm." if "answer 3" in body["messages"][-1]["content"] else longer(body)

    with serving(rule) as server:
        rows = judged(endpoint(server.url), pairs(tmp_path), tmp_path)
    assert [row["prompt_id"] for row in rows if row["preference"] is None] == ["p3", "p3"]
    assert {row["reply"] for row in rows if row["preference"] is None} == {"Hm."}
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["unparsable"] == 2
    assert summary["win_rate"] == {
        "estimate": 60.0,  # three of the five that are left
        "standard_error": pytest.approx(100 * (0.3 / 5) ** 0.5),  # variance 3·2/(5·4) of five wins and losses
        "n_wins": 3,
        "n_wins_base": 2,
        "n_draws": 0,
        "n_total": 5,
        "n_missing": 1,
    }


def test_nothing_but_nonsense_stops_early_and_stays_stopped(tmp_path: Path) -> None:
    inputs = pairs(tmp_path, 40)
    with serving(lambda body: "I like both.") as server:
        spec = endpoint(server.url, concurrency=2)
        with pytest.raises(
            UserError, match=r"none of the first 20 replies of judge can be read, the last one is 'I like both\.'"
        ):
            judged(spec, inputs, tmp_path)
        asked = len(server.bodies)
        assert NONSENSE <= asked <= NONSENSE + 2
        with pytest.raises(UserError, match="none of the first"):
            judged(spec, inputs, tmp_path)
        assert len(server.bodies) == asked


def test_few_replies_of_nonsense_make_no_table(tmp_path: Path) -> None:
    with serving(lambda body: "?") as server, pytest.raises(UserError, match="none of 4 judgements can be read"):
        judged(endpoint(server.url), pairs(tmp_path, 2), tmp_path)
    assert not (tmp_path / "out/judgements.parquet").exists()


def _timeout(fault: Fault) -> float:
    """Short where the server is silent; a busy machine's good replies need longer."""
    return 1.0 if fault.silent else 20.0


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
        rows = judged(endpoint(server.url, timeout=_timeout(fault), concurrency=1), pairs(tmp_path, 2), tmp_path)
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
        spec = endpoint(server.url, attempts=2, timeout=_timeout(fault), concurrency=1)
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
from prefdist.config_judge import Judging
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


def test_the_price_ceiling_is_never_passed(tmp_path: Path) -> None:
    inputs = pairs(tmp_path)
    with serving(longer) as server:
        # A request of about 900 bytes and 256 tokens could cost 0.016 to 0.018; every reply costs 0.0013.
        spec = endpoint(server.url, prices={**PRICES, "ceiling": 0.0235}, concurrency=4)
        with pytest.raises(UserError, match=r"judge\.prices\.ceiling: 0\.\d+ of 0\.0235 are spent.*of 12 replies are kept"):
            judged(spec, inputs, tmp_path)
        asked = len(server.bodies)
        assert 1 <= asked < 12
        assert asked * COST <= 0.0235
        worst = max(len(json.dumps(body["messages"]).encode()) for body in server.bodies) + 32
        assert asked * COST + (10 * worst + 30 * 256) / 1e6 > 0.0235, "it stopped earlier than it had to"
        with pytest.raises(UserError, match=f"{asked} of 12 replies are kept"):
            judged(spec, inputs, tmp_path)
        assert len(server.bodies) == asked
        judged(endpoint(server.url, prices={**PRICES, "ceiling": 1.0}), inputs, tmp_path)
        assert len(server.bodies) == 12
    assert json.loads((tmp_path / "out/summary.json").read_text())["cost"] == pytest.approx(12 * COST)


@pytest.mark.parametrize("fault", [Fault(0, silent=3.0), Fault(0), Fault(504)], ids=["hangs", "cut", "gateway"])
def test_what_no_reply_came_of_counts_as_its_worst_case(tmp_path: Path, fault: Fault) -> None:
    """The endpoint may have worked, and bill it: the ceiling counts it, also in the next run."""
    inputs, silent = pairs(tmp_path, 1), True
    with serving(lambda body: fault if silent else longer(body)) as server:
        spec = endpoint(server.url, prices={**PRICES, "ceiling": 0.04}, timeout=_timeout(fault), attempts=9, concurrency=1)
        for _ in range(2):
            with pytest.raises(UserError, match="ceiling"):
                judged(spec, inputs, tmp_path)
            assert len(server.bodies) == 2, "twice about 0.016, and no third time"
        silent = False
        judged(endpoint(server.url, prices={**PRICES, "ceiling": 0.1}), inputs, tmp_path)
        assert len(server.bodies) == 4


def test_what_the_endpoint_refuses_costs_nothing(tmp_path: Path) -> None:
    """Four refusals of about 0.016 each, under a ceiling that holds two: neither this run nor the next has paid for them."""
    inputs = pairs(tmp_path, 1)
    faults = iter([Fault(503), Fault(429), Fault(500), Fault(529)])
    with serving(lambda body: next(faults, None) or longer(body)) as server:
        spec = endpoint(server.url, prices={**PRICES, "ceiling": 0.04}, attempts=4, concurrency=1)
        with pytest.raises(UserError, match="no reply in 4 attempts"):
            judged(spec, inputs, tmp_path)
        judged(spec, inputs, tmp_path)
        assert len(server.bodies) == 6


def test_without_usage_a_reply_costs_its_worst_case_and_money_is_set_aside_before(tmp_path: Path) -> None:
    """Four threads, and money for two requests: the other two are not sent."""
    with serving(lambda body: completion(longer(body), tokens=None)) as server:
        spec = endpoint(server.url, prices={**PRICES, "ceiling": 0.04}, concurrency=4)
        with pytest.raises(UserError, match="2 of 12 replies are kept"):
            judged(spec, pairs(tmp_path), tmp_path)
        assert len(server.bodies) == 2


def test_requests_a_minute_and_concurrency_are_kept(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> str:
        time.sleep(0.05)
        return longer(body)

    with serving(rule) as server:
        began = time.monotonic()
        judged(endpoint(server.url, requests_per_minute=600.0, concurrency=12), pairs(tmp_path), tmp_path)
        assert time.monotonic() - began >= 11 * 0.1, "twelve requests, eleven gaps, one reply each"
        judged(endpoint(server.url, concurrency=3, model="other"), pairs(tmp_path / "more"), tmp_path)
        assert server.most_under_way <= 3


def test_the_key_is_sent_and_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("JUDGE_KEY", f" {KEY}\n")
    inputs, errors = pairs(tmp_path, 3), []
    faults = iter([Fault(500, body=f"bad header Bearer {KEY}"), Fault(200, body=KEY)])

    def rule(body: dict[str, Any]) -> Any:
        return next(faults, None) or f"Your key is {KEY}.\n{longer(body)}"

    with serving(rule) as server, caplog.at_level(logging.DEBUG):
        spec = endpoint(server.url, key_variable="JUDGE_KEY", prices={**PRICES, "ceiling": 1.0}, concurrency=1)
        rows = judged(spec, inputs, tmp_path)
        assert set(server.keys) == {f"Bearer {KEY}"}
        assert rows[0]["reply"].startswith("Your key is [key].")
        for fault in (Fault(400, body=KEY), Fault(401, body=KEY), Fault(500, body=KEY), Fault(200, body=KEY)):
            server.rule = lambda body, fault=fault: fault
            with pytest.raises(UserError) as caught:
                judged(endpoint(server.url, **{**spec["judge"], "model": "other"}), inputs, tmp_path)
            errors.append(str(caught.getrepr(style="long", chain=True)))
    assert "it does not take the key in JUDGE_KEY" in errors[1]
    captured = capfd.readouterr()
    for text in (captured.out, captured.err, caplog.text, *errors):
        assert KEY not in text
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(files) >= 6
    for file in files:
        assert KEY.encode() not in file.read_bytes(), file


def test_without_its_key_nothing_is_sent_but_finished_tables_need_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inputs = pairs(tmp_path, 2)
    monkeypatch.delenv("JUDGE_KEY", raising=False)
    with serving(longer) as server:
        spec = endpoint(server.url, key_variable="JUDGE_KEY", prices={**PRICES, "ceiling": 1.0})
        with pytest.raises(UserError, match="the environment has no JUDGE_KEY"):
            judged(spec, inputs, tmp_path)
        assert server.bodies == []
        monkeypatch.setenv("JUDGE_KEY", KEY)
        rows = judged(spec, inputs, tmp_path)
    monkeypatch.delenv("JUDGE_KEY")
    assert judged(spec, inputs, tmp_path) == rows


def test_waits_double_up_to_patience_and_a_date_is_understood() -> None:
    waits = [backoff(n, None, 0.05) for n in range(1, 6)]
    for wait, longest in zip(waits, [0.01, 0.02, 0.04, 0.05, 0.05], strict=True):
        assert wait is not None
        assert longest / 2 <= wait <= longest
    assert backoff(1, "2", 5.0) == 2.0
    assert backoff(1, "6", 5.0) is None
    assert backoff(1, "Thu, 01 Jan 1970 00:00:00 GMT", 5.0) == 0.0
    nonsense = backoff(1, "soon", 5.0)
    assert nonsense is not None
    assert nonsense <= 0.01


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"base_url": "ftp://x/v1"}, "not the address of an endpoint"),
        ({"base_url": "https://me:secret@x/v1"}, "user or password"),
        ({"key_variable": "OPENAI_API_KEY"}, "costs money"),
        ({"keys": "x"}, "Extra inputs"),
        ({"key_variable": "sk-123"}, "should match pattern"),
    ],
)
def test_settings_that_are_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        EndpointJudge.model_validate({"kind": "endpoint", "model": "m", "key_variable": None, **settings})


def test_an_endpoint_needs_a_protocol_and_other_judges_have_none() -> None:
    with pytest.raises(ValueError, match="an endpoint needs one of tldr, alpaca_eval, mt_bench, arena_hard"):
        Judging.model_validate({"judge": {"kind": "endpoint", "model": "m", "key_variable": None}})
    with pytest.raises(ValueError, match="other judges have none"):
        Judging.model_validate({"judge": {"kind": "known", "gamma": 1.0}, "protocol": "tldr"})
