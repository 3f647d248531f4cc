"""What a judge's endpoint may cost: the ceiling holds, whatever comes back or does not."""

import json
from pathlib import Path

import pytest
from judge_inputs import COST, PRICES, endpoint, judged, longer, pairs
from judge_servers import Fault, completion, serving, timeout_of

from prefdist.errors import UserError

pytestmark = pytest.mark.usefixtures("impatient")


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
        spec = endpoint(server.url, prices={**PRICES, "ceiling": 0.04}, timeout=timeout_of(fault), attempts=9, concurrency=1)
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
