"""Judging through a real local server: what is sent, how it is read, how fast, and where the key is not."""

import json
import logging
import time
from pathlib import Path
from typing import Any

import pytest
from judge_inputs import KEY, PRICES, endpoint, judged, longer, pairs, summaries
from judge_servers import Fault, serving

from prefdist.config.judge import EndpointJudge, Judging
from prefdist.errors import UserError
from prefdist.judging.endpoint import NONSENSE
from prefdist.judging.pace import backoff

pytestmark = pytest.mark.usefixtures("impatient")


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
