"""Forecasts of a checkout: what is cached, whose seconds are used, which class a job has, and what is printed."""

import io
import json
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from prefdist import artefacts
from prefdist.bench import forecast as bench
from prefdist.errors import UserError
from prefdist.forecast.classes import Classes
from prefdist.forecast.forecast import Forecaster, Line
from prefdist.forecast.states import Records, states
from prefdist.forecast.table import WIDTH, show, summary
from prefdist.plan import STAGES, Artefact, Plan, plan
from prefdist.suites import load_suite

ROOT = Path(__file__).parents[1]
PROFILE = Path("slurm")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Suites and profile of this project, and nothing made."""
    shutil.copytree(ROOT / "workflow" / "suites", tmp_path / "workflow" / "suites")
    shutil.copytree(ROOT / PROFILE, tmp_path / PROFILE)
    (tmp_path / "Snakefile").touch()
    return tmp_path


@pytest.fixture
def smoke(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    monkeypatch.chdir(checkout)
    return plan(load_suite("smoke", checkout), checkout)


def _write(out: Path) -> None:
    (out / "content").write_bytes(bytes(1000))


def _make(artefact: Artefact, seconds: float | None = None) -> None:
    """The artefact and all it is made from, each with a file in place of its content, as `prefdist make` records it."""
    if (artefact.path / artefacts.PROVENANCE).is_file():
        return
    for source in artefact.inputs.values():
        _make(source)
    identity = {"stage": artefact.stage, "name": artefact.name, "digest": artefact.digest, "code": artefact.code_digest}
    artefacts.make(
        artefact.path,
        identity={**identity, "spec": artefact.spec},
        inputs={role: source.path for role, source in artefact.inputs.items()},
        run=_write,
    )
    if seconds is not None:
        _edit(artefact, wall_seconds=seconds)


def _edit(artefact: Artefact, **values: object) -> None:
    file = artefact.path / artefacts.PROVENANCE
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def _states(planned: Plan) -> dict[str, str]:
    found = states(planned, [planned.final], Records(Path()))
    return {planned.artefacts[path].name: state for path, state in found.items()}


def test_everything_is_to_make_and_then_cached(smoke: Plan) -> None:
    assert set(_states(smoke).values()) == {"to make"}
    _make(smoke.final)
    assert set(_states(smoke).values()) == {"cached"}


def test_changed_code_is_made_again_with_all_that_follows(smoke: Plan) -> None:
    _make(smoke.final)
    changed = next(artefact for artefact in smoke.of_stage("train") if artefact.name == "dpo-seed1")
    _edit(changed, code="0" * 12)
    making = {name for name, state in _states(smoke).items() if state == "to make"}
    assert making == {"dpo-seed1", "dpo", "smoke"}  # the training, its evaluation and the tables


def test_a_missing_artefact_is_made_only_if_asked_for(smoke: Plan) -> None:
    _make(smoke.final)
    trained = next(artefact for artefact in smoke.of_stage("train") if artefact.name == "dpo-seed1")
    shutil.rmtree(trained.path)
    assert _states(smoke)["dpo-seed1"] == "not needed"
    evaluated = next(artefact for artefact in smoke.of_stage("evaluate") if artefact.name == "dpo")
    shutil.rmtree(evaluated.path)
    shutil.rmtree(smoke.final.path)
    making = {name for name, state in _states(smoke).items() if state == "to make"}
    assert making == {"dpo-seed1", "dpo", "smoke"}


def test_a_forecast_writes_nothing(smoke: Plan) -> None:
    _make(smoke.final)

    def snapshot() -> dict[Path, int]:
        return {file: file.stat().st_mtime_ns for file in Path().rglob("*")}

    before = snapshot()
    forecast = Forecaster(Path()).forecast(smoke, [smoke.final], Classes(PROFILE, Path()))
    show(forecast, "smoke", Console(file=io.StringIO(), width=WIDTH))
    assert snapshot() == before


def _line(smoke: Plan, name: str) -> Line:
    lines = Forecaster(Path()).forecast(smoke, [smoke.final], None).lines
    return next(line for line in lines if line.artefact.stage == "reference" and line.artefact.name == name)


def test_an_artefact_is_forecast_from_all_but_itself(smoke: Plan) -> None:
    first, second = sorted(smoke.of_stage("reference"), key=lambda artefact: artefact.name)
    _make(first, seconds=10.0)
    _make(second, seconds=1000.0)
    for name, used, expected in (("seed0", 10.0, 1000.0), ("seed1", 1000.0, 10.0)):
        line = _line(smoke, name)
        assert line.made is not None and line.seconds is not None
        assert line.made.seconds == used
        # Both have the same work, so the one's seconds are the other's forecast.
        assert line.seconds.middle == pytest.approx(expected)
        assert line.seconds.measured == 1


def test_measured_seconds_give_the_middle_and_the_range(smoke: Plan) -> None:
    first, _ = sorted(smoke.of_stage("reference"), key=lambda artefact: artefact.name)
    assert _line(smoke, "seed0").seconds.measured == 0  # type: ignore[union-attr]
    _make(first, seconds=50.0)
    measured = _line(smoke, "seed1").seconds
    assert measured is not None
    assert (measured.low, measured.middle, measured.high) == pytest.approx((50.0, 50.0, 50.0))


def test_a_gpu_does_not_measure_for_a_cpu(smoke: Plan) -> None:
    first, _ = sorted(smoke.of_stage("reference"), key=lambda artefact: artefact.name)
    _make(first, seconds=1.0)
    record = json.loads((first.path / artefacts.PROVENANCE).read_text())
    _edit(first, environment={**record["environment"], "device": "NVIDIA H100 80GB HBM3"})
    assert _line(smoke, "seed1").seconds.measured == 0  # type: ignore[union-attr]


def test_every_stage_has_a_class_in_the_profile() -> None:
    classes = Classes(PROFILE, ROOT)
    found = {stage: classes.of(stage) for stage in STAGES}
    assert {stage for stage, job in found.items() if job.gpus} >= {"train", "responses", "scores", "questions"}
    assert found["text"].gpus == found["results"].gpus == 0
    assert all(job.minutes and job.partition for job in found.values())


def _profile(folder: Path, text: str) -> Classes:
    (folder / "config.yaml").write_text(text)
    return Classes(folder, Path("/"))


TRAIN = (
    "jobs: 7\nset-resources:\n  train: {slurm_partition: big, runtime: 90 * attempt, gres: 'gpu:a100:2', cpus_per_task: 8}\n"
)


def test_classes_are_read_from_a_profile(tmp_path: Path) -> None:
    classes = _profile(tmp_path, TRAIN + "  exact_optima: {slurm_partition: small, runtime: 2h}\n")
    job = classes.of("train")
    assert (job.partition, job.gpus, job.cpus, job.minutes, classes.jobs) == ("big", 2, 8, 90.0, 7)
    assert classes.of("exact_optima").minutes == 120.0


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (TRAIN, "set-resources.text is missing"),
        ("jobs: 7\nset-resources:\n  text: {runtime: 5}\n", "set-resources.text.slurm_partition is missing"),
        ("jobs: 7\nset-resources:\n  text: {slurm_partition: cpu}\n", "set-resources.text.runtime is missing"),
    ],
)
def test_what_a_profile_lacks_is_named(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(UserError, match=named) as caught:
        _profile(tmp_path, text).of("text")
    assert "config.yaml" in str(caught.value)


def test_a_missing_profile_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere/config\.yaml"):
        Classes(Path("nowhere"), tmp_path)


def test_groups_are_submitted_together(tmp_path: Path) -> None:
    classes = _profile(tmp_path, TRAIN + "groups: {evaluate: e, calibrate: e}\ngroup-components: {e: 4}\n")
    assert classes.submissions({"train": 3, "evaluate": 4, "calibrate": 1}) == 3 + 2


@pytest.mark.parametrize(
    "suite", ["pad", "pad_testbed", "testbed", "arithmetic", "exact", "spl", "spl_best_of_n", "tldr", "chat"]
)
@pytest.mark.parametrize("local", [True, False])
def test_tables_fit_the_terminal(checkout: Path, suite: str, local: bool) -> None:
    planned = plan(load_suite(suite, ROOT), ROOT)
    finals = [planned.final, *(ablation.final for ablation in planned.ablations.values())]
    forecast = Forecaster(checkout).forecast(planned, finals, None if local else Classes(PROFILE, checkout))
    printed = io.StringIO()
    show(forecast, suite, Console(file=printed, width=WIDTH))
    assert max(map(len, printed.getvalue().splitlines())) <= WIDTH
    assert "…" not in printed.getvalue()
    said = " ".join(printed.getvalue().split())
    unknown = {
        "pad": "google/gemma-2-9b-it",
        "spl": "mistralai/Mistral-7B-Instruct-v0.2",
        "spl_best_of_n": "mistral-7b-sft-beta",
        "tldr": "EleutherAI/pythia-6.9b-deduped",
        "chat": "meta-llama/Meta-Llama-3-8B-Instruct",
    }
    assert all((f"{model} is not fetched yet" in said) == (suite == of) for of, model in unknown.items())
    assert ("documents of the benchmarks gsm8k, mmlu," in said) == (suite == "spl")


def test_a_disk_that_is_too_small_and_a_limit_that_is_too_short_are_said(smoke: Plan) -> None:
    forecast = Forecaster(Path()).forecast(smoke, [smoke.final], Classes(PROFILE, Path()))
    assert not any("WARNING" in sentence for sentence in summary(forecast))
    hurried = [replace(line, job=replace(line.job, minutes=0.01)) for line in forecast.lines]
    said = "\n".join(summary(replace(forecast, free=1000, lines=hurried)))
    assert "it does not fit" in said
    assert f"{len(smoke.artefacts)} jobs may need more than the walltime" in said


def test_the_wall_time_is_that_of_the_longest_chain(smoke: Plan) -> None:
    forecast = replace(Forecaster(Path()).forecast(smoke, [smoke.final], None), jobs=1000)

    def chain(artefact: Artefact, seconds: Callable[[Artefact], float]) -> float:
        return seconds(artefact) + max((chain(source, seconds) for source in artefact.inputs.values()), default=0.0)

    by_path = {line.artefact.path: line.seconds.middle for line in forecast.lines if line.seconds}
    assert forecast.wall_seconds() == pytest.approx(chain(smoke.final, lambda artefact: by_path[artefact.path]))
    total = sum(by_path.values())
    assert replace(forecast, jobs=1).wall_seconds() == pytest.approx(total)


def test_the_command_is_quick_and_needs_no_torch(checkout: Path) -> None:
    code = "import sys; from prefdist.cli import main; r = main(['plan', 'pad_testbed']); sys.exit(r or 'torch' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, capture_output=True, text=True, timeout=120, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    assert "GPU-hours" in done.stdout
    assert after.ru_utime - before.ru_utime < 3  # of the processor, so that a busy machine does not count


def test_an_unknown_ablation_is_named(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from prefdist.cli import main

    monkeypatch.chdir(checkout)
    assert main(["plan", "pad_testbed", "--ablation", "nothing"]) == 2
    assert "--ablation nothing: no such ablation; known are variants, alpha" in capsys.readouterr().err
    assert main(["plan", "pad_testbed", "--ablation", "alpha", "--artefacts"]) in (0, None)
    assert "artefacts/ablation/pad_testbed-alpha-" in capsys.readouterr().out


def test_the_bench_holds_forecasts_against_other_measurements(smoke: Plan) -> None:
    assert bench.measure(Path()) == []
    first, second = sorted(smoke.of_stage("reference"), key=lambda artefact: artefact.name)
    _make(first, seconds=10.0)
    _make(second, seconds=1000.0)
    found = {row["name"]: row for row in bench.measure(Path()) if row["suite"] == "smoke" and row["stage"] == "reference"}
    assert found["seed0"]["all_but_itself_seconds"] == pytest.approx(1000.0)
    assert found["seed0"]["other_suites_seconds"] is None  # no other suite was run
    assert found["seed0"]["rates_seconds"] == pytest.approx(found["seed1"]["rates_seconds"])  # equal work
    assert "| smoke | reference | 2 | 1010 |" in bench.report(list(found.values()))
