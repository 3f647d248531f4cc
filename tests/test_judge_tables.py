"""From judgements to tables, by hand; the same again without a key; AlpacaEval's annotations.json both ways."""

import json
from pathlib import Path
from typing import Any

import pytest
from judge_inputs import KEY, endpoint, longer, pairs, write_answers, write_prompts
from judge_servers import completion, serving

from prefdist import artefacts
from prefdist.cli import main
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.judging import stage
from prefdist.judging.annotations import annotations, read_annotations
from prefdist.judging.measures import length_controlled_values, prompt_values
from prefdist.judging.schemas import COMPARISONS, JUDGEMENTS
from prefdist.judging.tables import rebuilt

Row = dict[str, Any]
KINDS = {"compares": True, "weighted": False, "asked": True}


def _row(preference: float | None, *, order: int = 0, sample: int = 0, **other: Any) -> Row:
    row = {"prompt_id": "p", "sample": sample, "order": order, "turn": 1, "preference": preference, "rating": None}
    return {**row, "weight": None if preference is None else 1.0, "length_answer": 10, "length_baseline": 20, **other}


def test_position_bias_by_hand() -> None:
    rows = [
        *(_row(1.9, order=0, sample=0), _row(1.6, order=1, sample=0)),  # the answer wins both: they agree
        *(_row(1.8, order=0, sample=1), _row(1.4, order=1, sample=1)),  # the second shown wins both: they do not
        *(_row(1.5, order=0, sample=2), _row(1.5, order=1, sample=2)),  # two draws agree
        *(_row(1.5, order=0, sample=3), _row(2.0, order=1, sample=3)),  # a draw and a win do not
        *(_row(None, order=0, sample=4), _row(2.0, order=1, sample=4)),  # one is missing: no pair
    ]
    values = prompt_values(rows, **KINDS)
    assert values["win_rate"] == pytest.approx((0.9 + 0.6 + 0.8 + 0.4 + 0.5 + 0.5 + 0.5 + 1.0 + 1.0) / 9)
    assert values["position_agreement"] == 0.5
    # P(first wins): baseline first 1 − (p − 1), answer first p − 1; means 0.35, 0.3, 0.5, 0.75 of the four pairs
    assert values["first_shown_wins"] == pytest.approx((0.35 + 0.3 + 0.5 + 0.75) / 4)
    assert values["unparsable"] == 0.1
    assert (values["length_answer"], values["length_baseline"]) == (10.0, 20.0)


def test_one_order_says_nothing_of_position_and_no_reply_nothing_at_all() -> None:
    values = prompt_values([_row(None)], **KINDS)
    assert values == {"win_rate": None, "unparsable": 1.0, "length_answer": 10.0, "length_baseline": 20.0}


def test_too_few_prompts_have_no_length_control() -> None:
    assert length_controlled_values([_row(1.5)], None, None) is None


@pytest.fixture
def artefact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A judged artefact with its provenance, made with a key that is gone, of an endpoint that is gone."""
    monkeypatch.setenv("JUDGE_KEY", KEY)
    with serving(lambda body: "?" if "answer 5" in body["messages"][-1]["content"] else longer(body)) as server:
        spec = endpoint(server.url, key_variable="JUDGE_KEY", prices={"input": 1.0, "output": 2.0, "ceiling": 1.0})
        inputs = pairs(tmp_path)
        artefacts.make(
            tmp_path / "judge",
            identity={"stage": "judge", "spec": spec},
            inputs={},
            run=lambda out: stage.run(spec, inputs, out, tmp_path / "scratch/judge"),
        )
    monkeypatch.delenv("JUDGE_KEY")
    return tmp_path / "judge"


def test_tables_are_rebuilt_without_key_or_endpoint(artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    metrics, found = rebuilt(artefact)
    assert metrics == tables.read_table(artefact / "metrics.parquet", tables.METRICS)
    assert found == json.loads((artefact / "summary.json").read_text())
    assert found["unparsable"] == 2
    assert found["cost"] == pytest.approx(12 * (100 * 1.0 + 10 * 2.0) / 1e6)
    assert main(["judgements", "show", str(artefact)]) == 0
    assert "equal to summary.json" in capsys.readouterr().out
    assert KEY not in (artefact / "provenance.json").read_text()


@pytest.mark.parametrize("action", [["show"], ["export"]])
def test_another_stages_artefact_is_named(action: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "draws"
    artefacts.make(folder, identity={"stage": "draws", "spec": {}}, inputs={}, run=lambda out: None)
    assert main(["judgements", *action, str(folder), *(["a.json"] if action == ["export"] else [])]) == 2
    assert f"{folder}: made by stage draws; name a folder of artefacts/judge" in capsys.readouterr().err


def test_replies_are_read_anew_not_trusted(artefact: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Verdicts altered in the table, replies left: the rebuilt table has the replies' verdicts."""
    _, before = rebuilt(artefact)
    rows = tables.read_table(artefact / "judgements.parquet", JUDGEMENTS)
    tables.write_table(artefact / "judgements.parquet", [{**row, "preference": 2.0} for row in rows], JUDGEMENTS)
    assert rebuilt(artefact)[1] == before
    assert main(["judgements", "show", str(artefact)]) == 2, "a file that was altered is named"
    assert "judgements.parquet: its content is not what provenance.json says" in capsys.readouterr().err


def test_ours_as_theirs_and_back(artefact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "annotations.json"
    assert main(["judgements", "export", str(artefact), str(file), "--baseline", "human"]) == 0
    rows = json.loads(file.read_text())
    assert rows[0] == {
        "instruction": "post 0",
        "output_1": "reference 0 " + "r" * 20,
        "output_2": "answer 0 " + "a" * 40,
        "generator_1": "human",
        "generator_2": "dpo",
        "annotator": "judge",
        "preference": 2.0,
    }
    assert [row["preference"] for row in rows] == [2.0, 1.0, 2.0, 1.0, 2.0, None]
    assert [vars(one) for one in read_annotations(file)] == rows
    capsys.readouterr()
    assert main(["judgements", "score", str(file)]) == 0
    shown = capsys.readouterr().out
    # 3 of 5; variance of five 0-1 values with three ones, ddof 1: 0.3
    assert "win rate: 60.00 ± 24.49 % (5 pairs, 1 missing)" in shown
    assert "lengths alone (not AlpacaEval's length-controlled win rate)" in shown


def test_theirs_as_alpaca_eval_writes_it(tmp_path: Path) -> None:
    """Further keys, NaN as Python's json writes it, a draw as 0."""
    row = {
        "instruction": "i",
        "output_1": "a",
        "generator_1": "gpt4_1106_preview",
        "dataset": "helpful_base",
        "output_2": "b",
        "generator_2": "m",
        "annotator": "weighted_alpaca_eval_gpt4_turbo",
        "raw_completion": {"text": "m"},
    }
    file = tmp_path / "annotations.json"
    file.write_text(json.dumps([{**row, "preference": value} for value in (1.25, 0.0, float("nan"), None, 2)]))
    assert [one.preference for one in read_annotations(file)] == [1.25, 0.0, None, None, 2.0]


GOOD = {"instruction": "i", "output_1": "a", "generator_1": "g", "output_2": "b", "generator_2": "m", "annotator": "j"}


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "not readable as JSON"),
        ("[]", "not a list of annotations"),
        ('{"a": 1}', "not a list of annotations"),
        (json.dumps([{**GOOD, "output_2": None}]), "row 0: 'output_2' is missing or no text"),
        (json.dumps([GOOD, {**GOOD, "preference": 2.5}]), r"row 1: preference is 2\.5"),
        (json.dumps([{**GOOD, "preference": True}]), "row 0: preference is True"),
        (json.dumps([{**GOOD, "preference": "m"}]), "row 0: preference is 'm'"),
        (json.dumps([GOOD, {**GOOD, "generator_2": "n"}]), r"generator_2 has several values \(m, n\)"),
        (json.dumps(["x"]), "row 0: 'instruction' is missing"),
    ],
)
def test_files_that_are_none_of_alpaca_evals(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "annotations.json").write_text(content)
    with pytest.raises(UserError, match=said):
        read_annotations(tmp_path / "annotations.json")


def test_several_samples_do_not_fit_their_format() -> None:
    row = {name: None for name in COMPARISONS.names} | {"prompt_id": "p", "prompt": "x", "answer": "a", "baseline": "b"}
    comparisons = [{**row, "sample": 0}, {**row, "sample": 1}]
    with pytest.raises(UserError, match="one answer a prompt"):
        annotations(comparisons, [_row(1.0)], model="m", baseline="b", annotator="j")


def test_length_control_of_a_judged_run(tmp_path: Path) -> None:
    """With AlpacaEval's files the metric has its name and its mean is the win rate; without them it has another name."""
    names = [f"p{i}" for i in range(8)]
    inputs = {
        "prompts": write_prompts(tmp_path / "prompts", {name: f"Do {name}." for name in names}),
        "answers": write_answers(tmp_path / "answers", {name: ["a" * (5 + 7 * i)] for i, name in enumerate(names)}),
        "baseline": write_answers(tmp_path / "baseline", {name: ["b" * (30 - i)] for i, name in enumerate(names)}),
    }
    folder = tmp_path / "files"
    folder.mkdir()
    (folder / "alpaca_eval.json").write_text(json.dumps([{"instruction": f"Do {name}."} for name in reversed(names)]))
    lines = [f"{i},m,{0.1 * (i % 3)},{0.2 * i - 1},{0.3 * i - 1},False" for i in range(8)]
    header = "index,model,preference,std_delta_len,instruction_difficulty,not_gamed_baseline"
    (folder / "df_gamed.csv").write_text("\n".join([header, *lines]) + "\n")

    def rule(body: Row) -> Row:
        p = 0.1 + 0.1 * int(body["messages"][-1]["content"].split("Do p")[1][0])
        return completion("m", logprobs={"m": p, "M": 0.0})

    with serving(rule) as server:
        spec = endpoint(server.url, "alpaca_eval")
        for used, metric in (({}, "length_controlled_plain"), ({"alpaca_eval": folder}, "length_controlled")):
            out = tmp_path / metric
            out.mkdir()
            stage.run(spec, {**inputs, **used}, out, tmp_path / "scratch/judge")
            names_of = {row["metric"] for row in tables.read_table(out / "metrics.parquet", tables.METRICS)}
            assert {name for name in names_of if name.startswith("length_controlled")} == {metric}
        assert len(server.bodies) == 16
        (folder / "alpaca_eval.json").write_text(json.dumps([{"instruction": "Do p0."}]))
        with pytest.raises(UserError, match="prompt 'p1' is none of AlpacaEval's instructions"):
            stage.run(spec, {**inputs, "alpaca_eval": folder}, out, tmp_path / "scratch/judge")
