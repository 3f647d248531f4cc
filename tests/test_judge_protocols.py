"""What each protocol asks, and what it makes of replies: what its definition says, and nothing where it says nothing."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from judge_inputs import endpoint, judged, pairs, write_answers, write_prompts
from judge_servers import completion, serving

from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.judging.comparisons import Answer, Comparison, read_dialogues, read_pairs
from prefdist.judging.protocols import PROTOCOLS
from prefdist.judging.protocols.form import Reply

COMPARISON = Comparison("p", 0, "QUESTION", Answer("ANSWER"), Answer("BASELINE"))


def _read(protocol: str, text: str, logprobs: dict[str, float] | None = None) -> tuple[float, float] | None:
    found = PROTOCOLS[protocol].read(Reply(text, logprobs))
    return None if found is None else (found.value, found.weight)


@pytest.mark.parametrize(
    ("text", "first_wins"),
    [
        ("B misses the point.\nPreferred: A", 1.0),
        ("A misses the point.\n**Preferred:** B", 0.0),
        ('Preferred: "B".', 0.0),
        ("Preferred: A\nPreferred: A", 1.0),
        ("Preferred: A\nPreferred: B", None),
        ("Preferred: A or B", None),
        ("Preferred: C", None),
        ("Preferred: neither", None),
        ("A", None),
        ("I would say that the preferred one is A", None),
        ("Preferred: Both", None),
        ("", None),
    ],
)
def test_tldr(text: str, first_wins: float | None) -> None:
    assert _read("tldr", text) == (None if first_wins is None else (first_wins, 1.0))


@pytest.mark.parametrize(
    ("label", "first_wins", "battles"),
    [
        ("[[A>>B]]", 1.0, 3.0),
        ("[[A>B]]", 1.0, 1.0),
        ("[[A=B]]", 0.5, 1.0),
        ("[[B>A]]", 0.0, 1.0),
        ("[[B>>A]]", 0.0, 3.0),
    ],
)
def test_arena_hard(label: str, first_wins: float, battles: float) -> None:
    assert _read("arena_hard", f"My final verdict is: {label}. So {label}.") == (first_wins, battles)


@pytest.mark.parametrize("text", ["", "A>B", "[[A]]", "[[A>B]] or rather [[B>A]]", "[[A>>>B]]", "[[=]]", "[A>B]"])
def test_arena_hard_guesses_nothing(text: str) -> None:
    assert _read("arena_hard", text) is None


@pytest.mark.parametrize(
    ("text", "rating"),
    [
        ("Good. Rating: [[8]]", 8.0),
        ("[[7.5]]", 7.5),
        ("Rating: [6]", 6.0),
        ("[3] is cited. Rating: [[9]]", 9.0),
        ("[[10]] and later [[2]]", 10.0),
        ("[[0]]", None),
        ("[[11]]", None),
        ("8", None),
        ("[[eight]]", None),
        ("[[-8]]", None),
        ("", None),
    ],
)
def test_mt_bench(text: str, rating: float | None) -> None:
    assert _read("mt_bench", text) == (None if rating is None else (rating, 1.0))


def test_alpaca_eval_weighs_both_letters() -> None:
    # 0.5 and 0.1 for m with and without a space, 0.2 for M, beside others: 0.6/0.8
    found = _read("alpaca_eval", "M", {"m": math.log(0.5), "M": math.log(0.2), " m": math.log(0.1), "mM": math.log(0.05)})
    assert found is not None
    assert found[0] == pytest.approx(0.75)
    assert _read("alpaca_eval", "m", {" M": -0.1, "ma": -3.0}) == (0.0, 1.0)
    assert _read("alpaca_eval", "m", {"M": -0.1, "x": -3.0}) == (0.0, 1.0)
    assert _read("alpaca_eval", "m", {"The": -0.1}) is None
    assert _read("alpaca_eval", "m", {}) is None
    assert _read("alpaca_eval", "m") is None, "without log-probabilities the sampled letter is not taken for a probability"


def test_answers_stand_in_the_order_of_showing() -> None:
    for name in ("tldr", "alpaca_eval", "arena_hard"):
        text = PROTOCOLS[name].ask(COMPARISON, 1, ["FIRST", "SECOND"])[-1]["content"]
        assert text.index("QUESTION") < text.index("FIRST") < text.index("SECOND")


def test_braces_in_texts_are_texts() -> None:
    comparison = Comparison("p", 0, "{first} {0} {{", Answer("{x}"), Answer("{y}"))
    for name in ("tldr", "alpaca_eval", "arena_hard"):
        text = PROTOCOLS[name].ask(comparison, 1, ["{y}", "{x}"])[-1]["content"]
        assert "{first} {0} {{" in text
        assert "{y}" in text


def test_alpaca_eval_through_a_server(tmp_path: Path) -> None:
    def rule(body: dict[str, Any]) -> dict[str, Any]:
        """P(m) = 0.9 for the answer "long"; the first one otherwise has 0.25."""
        content = body["messages"][-1]["content"]
        first = content.split("# Answer of model m\n\n")[1].split("\n\n# Answer of model M")[0]
        share = 0.9 if first == "long" else 0.25
        return completion("m", logprobs={"m": math.log(share), "M": math.log(1 - share)}, tokens=(500, 1))

    inputs = {
        "prompts": write_prompts(tmp_path / "prompts", {"a": "Do it."}),
        "answers": write_answers(tmp_path / "answers", {"a": ["long"]}),
        "baseline": write_answers(tmp_path / "baseline", {"a": ["short"]}),
    }
    with serving(rule) as server:
        rows = judged(endpoint(server.url, "alpaca_eval"), inputs, tmp_path)
    # baseline first: it wins with 0.25; answer first: it wins with 0.9
    assert [row["preference"] for row in rows] == pytest.approx([1.75, 1.9])
    (sent,) = {tuple(body[key] for key in ("max_tokens", "logprobs", "top_logprobs", "temperature")) for body in server.bodies}
    assert sent == (1, True, 5, 0.0)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["metrics"]["win_rate"]["value"] == pytest.approx(0.825)


def test_tokens_of_one_text_count_together(tmp_path: Path) -> None:
    """Some servers tell two tokens by one text: "m" of 0.5 and 0.1 beside "M" of 0.2 is 0.6/0.8 for the answer shown first."""

    def rule(body: dict[str, Any]) -> dict[str, Any]:
        found = completion("m", logprobs={"m": math.log(0.5), "M": math.log(0.2), "other": math.log(0.1)})
        found["choices"][0]["logprobs"]["content"][0]["top_logprobs"][2]["token"] = "m"
        return found

    with serving(rule) as server:
        rows = judged(endpoint(server.url, "alpaca_eval"), pairs(tmp_path, 1), tmp_path)
    assert [row["preference"] for row in rows] == pytest.approx([1.25, 1.75])
    assert json.loads(rows[0]["top_logprobs"]) == pytest.approx({"m": math.log(0.6), "M": math.log(0.2)})


def test_arena_hard_counts_strong_verdicts_three_times(tmp_path: Path) -> None:
    """Baseline first: B>>A, the answer wins three battles; answer first: B>A, it loses one. 3 of 4, and half the games."""

    def rule(body: dict[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return "[[B>>A]]" if content.index("reference 0") < content.index("answer 0") else "[[B>A]]"

    with serving(rule) as server:
        rows = judged(endpoint(server.url, "arena_hard"), pairs(tmp_path, 1), tmp_path)
    assert [(row["preference"], row["weight"]) for row in rows] == [(2.0, 3.0), (1.0, 1.0)]
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert summary["metrics"]["arena_hard"]["value"] == 0.75
    assert summary["metrics"]["win_rate"]["value"] == 0.5
    assert summary["metrics"]["battles_won"]["value"] == 3.0


def test_arena_hards_score_is_a_ratio_of_battles_with_a_value_a_prompt(tmp_path: Path) -> None:
    """By hand: p0 wins 3 + 1 of 4, p1 wins 0 of 1 + 1, p2 cannot be read: R = 4/6, 3 battles a prompt on average."""
    verdicts = {"post 0": {True: "B>>A", False: "A>B"}, "post 1": {True: "A>B", False: "B>A"}}

    def rule(body: dict[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        post = content.split("<prompt>\n")[1].split("\n")[0]
        baseline_first = content.index("reference") < content.index(f"answer {post[-1]}")
        return f"[[{verdicts[post][baseline_first]}]]" if post in verdicts else "?"

    with serving(rule) as server:
        judged(endpoint(server.url, "arena_hard"), pairs(tmp_path, 3), tmp_path)
    rows = tables.read_table(tmp_path / "out/metrics.parquet", tables.METRICS)
    values = {row["prompt_id"]: row["value"] for row in rows if row["metric"] == "arena_hard"}
    assert values == {
        "p0": pytest.approx(2 / 3 + (4 - 4 * 2 / 3) / 3),
        "p1": pytest.approx(2 / 3 + (0 - 2 * 2 / 3) / 3),
        "p2": None,
    }
    shown = json.loads((tmp_path / "out/summary.json").read_text())["metrics"]["arena_hard"]
    assert shown["value"] == pytest.approx(4 / 6) and (shown["n"], shown["n_missing"]) == (2, 1)


def _write_second_turns(folder: Path, turns: dict[str, tuple[str, str, str]]) -> None:
    rows = [
        {"prompt_id": name, "prompt": prompt, "first_reference": first, "reference": second}
        for name, (prompt, first, second) in turns.items()
    ]
    tables.write_table(folder / "second_turns.parquet", rows, tables.SECOND_TURNS)


def _dialogue_inputs(folder: Path) -> dict[str, Path]:
    prompts = write_prompts(folder / "p1", {"w": "Write a poem.", "m": "What is 2+2?"})
    _write_second_turns(prompts, {"w": ("Now shorter.", "", ""), "m": ("And squared?", "four", "sixteen")})
    return {
        "prompts": prompts,
        "answers": write_answers(folder / "a1", {"w": ["Roses."], "m": ["It is 4."]}),
        "second_answers": write_answers(folder / "a2", {"w": ["Rose."], "m": ["It is 17."]}),
    }


def test_mt_bench_rates_two_turns_and_the_second_sees_the_first(tmp_path: Path) -> None:
    ratings = {"Roses.": 9, "Rose.": 7, "It is 4.": 10, "It is 17.": 1}

    def rule(body: dict[str, Any]) -> str:
        content = body["messages"][-1]["content"]
        return f"Rating: [[{ratings[content.rsplit('<assistant>', 1)[1].split('</assistant>')[0].strip()]}]]"

    with serving(rule) as server:
        rows = judged(endpoint(server.url, "mt_bench"), _dialogue_inputs(tmp_path), tmp_path)
    assert [(row["prompt_id"], row["turn"], row["rating"]) for row in rows] == [
        ("w", 1, 9.0),
        ("w", 2, 7.0),
        ("m", 1, 10.0),
        ("m", 2, 1.0),
    ]
    asked = {body["messages"][-1]["content"] for body in server.bodies}
    (first,) = [text for text in asked if "Write a poem." in text and "Rose." not in text]
    (second,) = [text for text in asked if "Rose." in text]
    assert second.index("Write a poem.") < second.index("Roses.") < second.index("Now shorter.") < second.index("Rose.")
    assert "reference answer" not in first + second
    assert [text for text in asked if "sixteen" in text] == [text for text in asked if "It is 17." in text]
    assert all("four" in text for text in asked if "It is 4." in text)
    metrics = tables.read_table(tmp_path / "out/metrics.parquet", tables.METRICS)
    assert {(row["prompt_id"], row["metric"]): row["value"] for row in metrics if row["metric"].startswith("rating")} == {
        ("w", "rating"): 8.0,
        ("w", "rating_turn_1"): 9.0,
        ("w", "rating_turn_2"): 7.0,
        ("m", "rating"): 5.5,
        ("m", "rating_turn_1"): 10.0,
        ("m", "rating_turn_2"): 1.0,
    }
    assert json.loads((tmp_path / "out/summary.json").read_text())["metrics"]["rating"]["value"] == 6.75


def test_answers_that_do_not_fit_are_named(tmp_path: Path) -> None:
    inputs = _dialogue_inputs(tmp_path)
    with pytest.raises(UserError, match=r"has samples \[0, 1\], its first turn \[0\]"):
        read_dialogues({**inputs, "second_answers": write_answers(tmp_path / "a3", {"w": ["x", "y"], "m": ["z"]})})
    with pytest.raises(UserError, match="prompt 'w' has no reference to compare with"):
        read_pairs({"prompts": inputs["prompts"], "answers": inputs["answers"]})
    _write_second_turns(inputs["prompts"], {"m": ("And?", "", "")})
    with pytest.raises(UserError, match=r"second_turns\.parquet: prompt 'w' is missing"):
        read_dialogues(inputs)
    two = write_answers(tmp_path / "a4", {"w": ["x", "y"], "m": ["z"]})
    three = write_answers(tmp_path / "a5", {"w": ["1", "2", "3"], "m": ["4"]})
    with pytest.raises(UserError, match="prompt 'w' has 3 samples"):
        read_pairs({"prompts": inputs["prompts"], "answers": two, "baseline": three})
    with pytest.raises(UserError, match="no such table"):
        read_pairs({"prompts": inputs["prompts"], "answers": tmp_path / "p1"})


def test_samples_meet_the_baselines_samples_or_its_only_one(tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "p", {"a": "A?"})
    answers = write_answers(tmp_path / "x", {"a": ["1", "2"]})
    for beside, wanted in ((["b"], ["b", "b"]), (["b", "c"], ["b", "c"])):
        baseline = write_answers(tmp_path / f"y{len(beside)}", {"a": beside})
        found = read_pairs({"prompts": prompts, "answers": answers, "baseline": baseline})
        assert [(one.answer.text, one.baseline.text) for one in found if one.baseline] == list(zip("12", wanted, strict=True))
