"""What runs cost and share: a plan made by hand, and real plans against sums over their graphs."""

from pathlib import Path

import pytest
from rich.console import Console

from prefdist.cli import main
from prefdist.forecast.classes import Classes, JobClass
from prefdist.forecast.forecast import Forecaster, Line
from prefdist.forecast.runs import Runs, cost, runs_of
from prefdist.forecast.runs_table import show_runs
from prefdist.forecast.throughput import Seconds
from prefdist.paths import RESULTS
from prefdist.plan import Artefact, Plan, plan
from prefdist.published.records import Cost
from prefdist.suites import load_suite

ROOT = Path(__file__).parents[1]
GPU, CPU = JobClass("gpu", gpus=2), JobClass("cpu", cpus=8)


def made_up() -> tuple[Plan, dict[str, Artefact]]:
    """text → prior → (a of two seeds, b); a and b share π₀'s draws; baselines are for no run."""
    text = Artefact("text", "text", {})
    prior = Artefact("train", "prior", {}, {"text": text})
    draws = Artefact("draws", "draws", {}, {"prior": prior})
    a0, a1, b = (Artefact("train", name, {}, {"init": prior, "draws": draws}) for name in ("a-0", "a-1", "b-0"))
    judge_a, judge_b = (
        Artefact("evaluate", name, {}, {f"policy/{i}": policy for i, policy in enumerate(policies)})
        for name, policies in (("a", [a0, a1]), ("b", [b]))
    )
    baselines = Artefact("baselines", "baselines", {}, {"prior": prior})
    inputs = {"evaluation/a": judge_a, "evaluation/b": judge_b, "baselines": baselines, "text": text}
    inputs |= {"policy/a/0": a0, "policy/a/1": a1, "policy/b/0": b}
    final = Artefact("results", "made_up", {"runs": ["a", "b"]}, inputs)
    names = ("text", "prior", "draws", "a0", "a1", "b", "judge_a", "judge_b", "baselines", "final")
    artefacts = dict(zip(names, (text, prior, draws, a0, a1, b, judge_a, judge_b, baselines, final), strict=True))
    return Plan(final, RESULTS / "made_up/v1"), artefacts


# Hours of wall time; twice as many of GPUs.
HOURS = {"prior": 10.0, "draws": 3.0, "a0": 1.0, "a1": 2.0, "b": 4.0, "judge_a": 0.5, "judge_b": 0.25, "baselines": 7.0}


def forecast(unknown: tuple[str, ...] = ()) -> Runs:
    planned, artefacts = made_up()
    lines = []
    for name, artefact in artefacts.items():
        gpu = name in HOURS
        hours = HOURS.get(name, 100.0)  # on CPUs; not in the sums
        seconds = None if name in unknown else Seconds(0.0, 3600 * hours, 0.0)
        lines.append(Line(artefact, "to make", GPU if gpu else CPU, seconds, 0.0, flops=2e15 * hours))
    return Runs(planned, lines)


def test_costs_by_hand() -> None:
    runs = forecast()
    a, b = runs.runs
    assert (a.name, len(a.trained), len(b.trained)) == ("a", 2, 1)
    assert cost(a.trained).hours == pytest.approx(2 * (1 + 2))
    assert cost(a.own).hours == pytest.approx(2 * 0.5)
    assert cost(a.shared).hours == cost(b.shared).hours == pytest.approx(2 * (10 + 3))
    assert cost([*a.trained, *a.own]).flops == pytest.approx(7e15)
    assert a.alone.hours == pytest.approx(2 * (1 + 2 + 0.5 + 10 + 3))
    assert runs.made_once().hours == pytest.approx(2 * (10 + 3 + 1 + 2 + 4 + 0.5 + 0.25))
    assert runs.made_by_each().hours == pytest.approx(runs.made_once().hours + 2 * (10 + 3))
    assert runs.beside().hours == pytest.approx(2 * 7)  # the results are on CPUs


def test_what_is_shared_is_listed_by_stage() -> None:
    runs = forecast()
    shared = runs.shared_by_stage()
    assert {stage: [line.artefact.name for line in lines] for stage, lines in shared.items()} == {
        "text": ["text"],
        "train": ["prior"],
        "draws": ["draws"],
    }
    assert {runs.used_by(line) for lines in shared.values() for line in lines} == {2}


def test_a_policy_that_another_run_samples_too_is_trained_by_its_own() -> None:
    planned, artefacts = made_up()
    heated = Artefact("evaluate", "hot", {}, {"policy/0": artefacts["b"]})
    families = {"families": {"a": "", "b": "", "hot": ""}}
    final = Artefact("results", "made_up", families, {**planned.final.inputs, "evaluation/hot": heated})
    planned = Plan(final, RESULTS / "made_up/v1")
    lines = [Line(one, "to make", GPU, Seconds(0.0, 3600.0, 0.0), 0.0) for one in planned.artefacts.values()]
    _, b, hot = Runs(planned, lines).runs
    assert ([line.artefact.name for line in b.trained], hot.trained) == (["b-0"], [])
    assert "b-0" in {line.artefact.name for line in hot.shared}
    assert b.alone.hours == hot.alone.hours == pytest.approx(2 * 5)  # text, π₀, draws, b, and an evaluation each


def test_unknown_costs_are_counted_and_not_nought() -> None:
    runs = forecast(unknown=("prior", "b", "text"))
    a, b = runs.runs
    assert (cost(a.own).unknown, cost(a.shared).unknown, cost(b.trained).unknown) == (0, 1, 1)  # text needs no GPU
    assert (runs.made_once().unknown, runs.made_by_each().unknown) == (2, 3)


@pytest.mark.parametrize("suite", ["pad", "spl", "testbed", "spl_best_of_n"])
def test_sums_over_a_real_plan(suite: str, tmp_path: Path) -> None:
    """Every artefact belongs to runs or to none; each run alone is the sum over all it is made from, found recursively."""
    planned = plan(load_suite(suite, ROOT), ROOT)
    forecaster = Forecaster(tmp_path)
    forecaster.facts.root = ROOT  # shapes of models of the hub; what this checkout has made is not looked at
    runs = runs_of(forecaster, planned, Classes(Path("slurm"), ROOT))
    assert not runs.counted or suite == "testbed"
    hours = {path: cost([line]).hours for path, line in runs.lines.items()}

    def made_from(artefact: Artefact) -> set[str]:
        return {str(artefact.path)}.union(*(made_from(source) for source in artefact.inputs.values()))

    evaluations: dict[str, set[str]] = {}
    models = {model.name for model in planned.of_stage("model")}  # judged as they are, for no run
    for role, artefact in planned.final.inputs.items():
        kind, _, name = role.partition("/")
        if kind == "judged":
            name = name.partition("/")[0]
            name = "" if name in models else name
        if name and kind not in ("policy", "teacher") and "/" not in name:
            evaluations.setdefault(name, set()).update(made_from(artefact))
    alone = {run.name: run.alone.hours for run in runs.runs}
    assert alone.keys() == evaluations.keys()
    for name, paths in evaluations.items():
        assert alone[name] == pytest.approx(sum(hours[path] for path in paths))
    assert runs.made_once().hours == pytest.approx(sum(hours[path] for path in set().union(*evaluations.values())))
    assert runs.made_once().hours + runs.beside().hours == pytest.approx(sum(hours.values()))
    assert runs.made_by_each().hours == pytest.approx(sum(alone.values()))


def test_the_table_has_the_papers_hours_beside_ours(capsys: pytest.CaptureFixture[str]) -> None:
    stated = Cost(
        methods=["A"], hours=60, devices=4, device="A100", evidence="paper", source="somewhere", suite="made_up", runs=["a"]
    )
    show_runs(forecast(unknown=("b",)), [stated], "made up", "GPU-h", Console(width=140))
    shown = capsys.readouterr().out
    row = next(line for line in shown.splitlines() if line.startswith("│ a "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["a", "2", "3", "6", "1", "26", "33", "3.3e+16", "240 A100"]
    assert "all runs, what they share made once: 33.5 + 1? GPU-h" in shown
    assert "all runs, if each made its own: 59.5 + 1? GPU-h; sharing saves 26 (44%)" in shown
    assert "made for the suite and for no run: 14 GPU-h" in shown
    assert "published (paper: somewhere): A: 240 GPU-h, 60 h of 4 × A100" in shown


def test_the_command(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert main(["plan", "pad", "--runs"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "gemma_dpo" in shown
    assert "8.79 A800-80GB" in shown
    assert main(["plan", "pad", "--runs", "--ablation", "alpha"]) == 2
    assert "leave out --ablation" in capsys.readouterr().err
