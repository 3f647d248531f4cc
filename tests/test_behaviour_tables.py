"""The tables of behaviour: values by other ways, rebuilt byte for byte, shown in the terminal."""

import itertools
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from behaviour_results import (
    ANSWERS,
    MODELS,
    POLICIES,
    PROBLEMS,
    PROMPTS,
    QUESTIONS,
    RESAMPLES,
    SEEDS,
    SPEC,
    answers,
    cell,
    made,
    outcomes,
    value,
    write_inputs,
    write_results,
)
from rich.cells import cell_len

from prefdist.errors import UserError
from prefdist.evaluation.multiple_choice import Answers, metrics
from prefdist.evaluation.significance import compare_all
from prefdist.results import ablation, calibration
from prefdist.results.behaviour_tables import read_rows
from prefdist.results.coverage import powers
from prefdist.results.differences import read_cells
from prefdist.results.listing import print_release
from prefdist.results.metrics_behaviour import main_metrics, measure_of, specs
from prefdist.results.release import Release, new_record
from prefdist.results.tables import read_csv
from prefdist.results.verify import verify_release


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Also where tables are written again."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RESAMPLES", RESAMPLES)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return write_inputs(tmp_path_factory.mktemp("artefacts"))


@pytest.fixture(scope="module")
def results(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_results(inputs, tmp_path_factory.mktemp("checkout"))


def test_what_the_stage_leaves(results: Path) -> None:
    names = {file.name for file in results.iterdir()}
    assert names >= {f"{measure}.md" for measure in SPEC["measured"]} | {"coverage.md", "slopes.md", "fits.md", "efficiency.md"}
    assert names >= {"metrics.parquet", "answers.parquet", "outcomes.parquet", "split.parquet", "tails.csv", "manifest.json"}
    drawn = (
        "quality_diversity",
        "quality_diversity_main",
        "shift",
        "repeats",
        "coverage",
        "reliability-made",
        "calibration-made",
    )
    assert names >= {f"{name}.{kind}" for name in drawn for kind in ("svg", "png")}
    told = json.loads((results / "benchmarks.json").read_text())
    assert told[1] == {"run": "dpo", "seed": 0, "versions": {"arc_easy": 1.0}}
    assert (results / "data_card.md").read_text() == "# Card\n"
    lines = (results / "cost.csv").read_text().splitlines()
    assert lines == ["run,seed,steps,tokens,seconds", *(f"{run},{seed},2,24,3.5" for run in ("dpo", "spl") for seed in SEEDS)]


def test_cells_are_means_of_rows_in_the_units_of_the_table(results: Path) -> None:
    found = cell(results, "spl", "win_rate_base")
    expected = np.mean([value("spl", seed, p, "win_rate_base") for seed in SEEDS for p in range(PROMPTS)])
    assert found["estimate"] == pytest.approx(100 * expected, rel=1e-5)  # six digits in the file
    assert (found["n_prompts"], found["n_seeds"], found["n"]) == (PROMPTS, 2, 2 * PROMPTS)
    assert found["low"] < found["estimate"] < found["high"]
    # 0.01 a place in POLICIES, on the same prompts and seeds
    names = ("dpo", "dpo_hot")
    distance, of_hot = (cell(results, name, "kl/random/4")["estimate"] for name in names)
    assert of_hot - distance == pytest.approx(0.02, abs=1e-5)


@pytest.mark.parametrize("bins", [4, 10])
def test_calibration_errors_are_means_of_the_seeds_own(results: Path, bins: int) -> None:
    errors = []
    for seed in SEEDS:
        gaps: dict[int, list[float]] = {}
        for row in answers("dpo"):
            if row["seed"] == seed:
                p = np.exp(row["logp_options"])
                p /= p.sum()
                gaps.setdefault(int(p.max() * bins), []).append(float(p.argmax() == row["gold"]) - p.max())
        errors.append(sum(abs(sum(gap)) for gap in gaps.values()) / QUESTIONS)
    found = cell(results, "dpo", f"made/ece_width_{bins}")
    assert found["estimate"] == pytest.approx(np.mean(errors), rel=1e-5)
    assert (found["n_prompts"], found["n_seeds"]) == (QUESTIONS, 2)


def test_the_table_of_calibration_shows_the_suites_number_of_bins(results: Path) -> None:
    text = (results / "calibration.md").read_text()
    assert "ECE, 4 bins of equal width" in text and "ECE, 10 bins" not in text
    assert "## made" in text and "made: accuracy" not in text
    names = {found["metric"] for found in read_csv(results / "table.csv")}
    assert {f"made/ece_{scheme}_{bins}" for scheme in ("width", "mass") for bins in (4, 10, 15, 20)} <= names


def test_auroc_counts_pairs(results: Path) -> None:
    of_seeds = []
    for seed in SEEDS:
        (one,) = (Answers.of_rows([row for row in answers("spl") if row["seed"] == seed]),)
        right, wrong = one.confidence[one.correct], one.confidence[~one.correct]
        of_seeds.append(np.mean([(a > b) + 0.5 * (a == b) for a in right for b in wrong]))
    assert cell(results, "spl", "made/auroc")["estimate"] == pytest.approx(np.mean(of_seeds), rel=1e-5)


def test_several_seeds_need_the_same_questions() -> None:
    one, other = (Answers(np.log([[0.5, 0.5]]), np.array([0]), [name]) for name in "ab")
    with pytest.raises(ValueError, match="same questions"):
        metrics([one, other])


def by_hand(run: str, criterion: str, k: int, problems: list[int]) -> float:
    """Over all subsets of k answers of every seed and problem, in percent."""
    shares = []
    for problem, seed in itertools.product(problems, SEEDS):
        of_problem = [row for row in outcomes(run, (seed,)) if row["prompt_id"] == f"problem{problem}"]
        hits = []
        for subset in itertools.combinations(of_problem, k):
            best = max(row["reward"] for row in subset)
            counted = [row["correct"] for row in subset if criterion == "pass" or row["reward"] == best]
            hits.append(float(any(counted)) if criterion == "pass" else np.mean(counted))
        shares.append(np.mean(hits))
    return 100 * float(np.mean(shares))


@pytest.mark.parametrize("criterion", ["pass", "best"])
@pytest.mark.parametrize("k", [1, 2, 4])
def test_coverage_is_the_mean_over_all_subsets(results: Path, criterion: str, k: int) -> None:
    for run in MODELS:
        found = cell(results, run, f"{criterion}/all/{k}", "coverage")
        assert found["estimate"] == pytest.approx(by_hand(run, criterion, k, list(range(PROBLEMS))), rel=1e-5)


def test_difficulty_is_told_by_the_other_answers_of_the_base(results: Path) -> None:
    first: dict[int, int] = {}
    for row in outcomes("base", (9,), rewarded=False):
        if row["correct"]:
            first.setdefault(int(row["prompt_id"].removeprefix("problem")), row["sample"] + 1)
    splits: dict[str, list[int]] = {"easy": [], "medium": [], "hard": []}
    for problem in range(PROBLEMS):
        at = first.get(problem, ANSWERS + 1)
        splits["easy" if at <= 1 else "medium" if at <= 2 else "hard"].append(problem)
    there = {found["metric"].split("/")[1] for found in read_csv(results / "coverage.csv")}
    assert there == {"all"} | {name for name, problems in splits.items() if problems}
    assert len(there) > 2  # else this shows little
    for name, problems in splits.items():
        if problems:
            found = cell(results, "dpo", f"pass/{name}/2", "coverage")
            assert found["estimate"] == pytest.approx(by_hand("dpo", "pass", 2, problems), rel=1e-5)
            assert found["n_prompts"] == len(problems)


def test_a_policy_that_is_always_right_needs_one_answer(results: Path) -> None:
    text = (results / "efficiency.md").read_text()
    assert "what `dpo` reaches with 4" in text
    rows_of = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert rows_of["spl"].split(" | ")[1:3] == ["1.0 [1.0, 1.0]"] * 2
    assert rows_of["base"].split(" | ")[1].startswith("∞")  # it is right less often


def test_powers_of_two_and_the_last() -> None:
    assert powers(1) == [1]
    assert powers(8) == [1, 2, 4, 8]
    assert powers(12) == [1, 2, 4, 8, 12]


def test_comparisons_are_with_the_first_run_and_corrected(results: Path) -> None:
    text = (results / "comparisons.md").read_text()
    _, _, after = text.partition("## diversity: win rate against π₀ ↑ (%), against `dpo`")
    lines = dict(line.strip("| ").split(" | ", 1) for line in after.split("##")[0].splitlines() if line.startswith("| "))
    # All six differences have one sign: 2 of 2⁶ flips are as large. Holm multiplies by the three policies.
    assert lines["spl"] == "+1.0 [+1.0, +1.0] | 0.031 | 0.094"
    assert lines["dpo_hot"] == "+2.0 [+2.0, +2.0] | 0.031 | 0.094"
    assert lines["base"] == "-1.0 [-1.0, -1.0] | 0.031 | 0.094"
    assert "dpo" not in lines
    assert "## repeats" not in text
    assert "## benchmarks: arc_easy: acc ↑ (%), against `dpo`" in text


def test_comparing_with_one_run_is_part_of_comparing_all() -> None:
    rng = np.random.default_rng(0)
    runs = {name: rng.normal(size=(2, 8)) for name in "abc"}
    pairs = {(found.a, found.b): found for found in compare_all(runs, permutations=99, resamples=50)}
    few = compare_all(runs, against="c", permutations=99, resamples=50)
    assert [(found.a, found.b) for found in few] == [("a", "c"), ("b", "c")]
    for found in few:
        same = pairs[found.a, found.b]
        assert (found.difference, found.p_value) == (same.difference, same.p_value)
        assert found.p_corrected <= same.p_corrected  # of fewer comparisons


def test_slopes_and_fits_are_told(results: Path) -> None:
    slopes = read_rows(results / "slopes.csv")
    assert len(slopes) == 2 * 2 * 3 and {row["run"] for row in slopes} == {"dpo", "spl"}
    assert list(slopes[0].values()) == ["dpo", "0", "own", "0.5", "0.25", "0.75", "0.125", "16"]
    assert "| dpo | 0 | own | 0.50 [0.25, 0.75] | 0.12 | 16 |" in (results / "slopes.md").read_text().splitlines()
    assert (results / "tails.csv").read_text().splitlines()[:2] == [
        "run,seed,n,n_not_finite,minimum,0.5",
        "base,0,8,0,-70.5,-60.25",
    ]
    fits = (results / "fits.md").read_text().splitlines()
    assert "| dpo | 1 | random | 4 | 0.25 | 0.75 [0.50, 0.88] |" in fits
    assert "| dpo_hot | 1 | random | 4 | – | 0.75 [0.50, 0.88] |" in fits


def test_rows_of_seeds_are_told_apart_when_tables_are_compared(results: Path) -> None:
    names = {found["run"] for found in read_cells(results / "fits.csv")}
    assert len(names) == 2 * 2 * 3 * 2  # policies, seeds, fillings, numbers of tokens


@pytest.fixture
def release(results: Path, tmp_path: Path) -> Release:
    """The results as they are published."""
    found = Release(tmp_path, Path("results/made/v1"))
    shutil.copytree(results, found.path)
    (found.path / "release.json").write_text(json.dumps(new_record(tmp_path, found, found.path)))
    return found


def test_tables_follow_from_their_rows_and_an_edited_number_is_found(release: Release) -> None:
    file = release.path / "coverage.csv"
    file.write_text(file.read_text().replace("dpo,pass/all/1,", "dpo,pass/all/1,1", 1))
    verdict = verify_release(release)
    assert {problem.split(":")[0] for problem in verdict.problems} == {"coverage.csv"}  # all others have the same bytes
    assert any("dpo / pass/all/1" in problem for problem in verdict.problems)
    written = {file.name for file in release.path.iterdir() if file.suffix in (".md", ".csv")}
    assert written - set(verdict.rebuilt) == {"data_card.md", "cost.csv", "slopes.csv", "fits.csv", "tails.csv"}


def test_the_terminal_shows_what_there_is_room_for(release: Release, capsys: pytest.CaptureFixture[str]) -> None:
    print_release(release, [])
    text = capsys.readouterr().out
    assert all(name in text for name in POLICIES) and "self-BLEU" in text
    assert max(map(cell_len, text.splitlines())) <= 120
    print_release(release, ["made/ece_width_4", "arc_easy/acc,none"])
    shown = " ".join(capsys.readouterr().out.split())
    assert "arc_easy: acc" in shown and "self-BLEU" not in shown
    with pytest.raises(UserError, match="--metrics nothing: not in the table; it has win_rate_base"):
        print_release(release, ["nothing"])


@pytest.mark.parametrize(
    ("measure", "metric"),
    [("calibration", "made/ece_width_4"), ("best_of_n", "pass_at_1"), ("benchmarks", "arc_easy/acc,none")],
)
def test_ablations_of_any_measure(
    inputs: dict[str, Path], results: Path, tmp_path: Path, measure: str, metric: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = {"name": "x", "title": "X", "measure": measure, "runs": {"0": "dpo", "1": "spl", "2": "dpo"}, "bins": 4}
    of_measure = {role: folder for role, folder in inputs.items() if role in (f"{measure}/dpo", f"{measure}/spl")}
    found = Release(tmp_path, Path("results/made/v1-ablations/x"))
    found.path.parent.mkdir(parents=True)
    made(found.path, "ablation", lambda out: ablation.run(spec, of_measure, out, out), spec=spec)
    for value_of, run in spec["runs"].items():  # type: ignore[attr-defined]
        own, of_suite = cell(found.path, value_of, metric), cell(results, run, metric)
        assert own | {"run": run} == of_suite
    assert (found.path / "figure.svg").is_file()
    (found.path / "release.json").write_text(json.dumps(new_record(tmp_path, found, found.path)))
    verdict = verify_release(found)
    assert verdict.problems == [] and {"table.csv", "table.md"} <= set(verdict.rebuilt)
    print_release(found, [metric])
    assert len(capsys.readouterr().out.splitlines()) >= 4


def test_names_tell_what_measured_them() -> None:
    told = {
        "win_rate_base": "diversity",
        "tpm_sft_0": "shift",
        "sequence_kl/text/16": "repeats",
        "mmlu/accuracy": "calibration",
        "mmlu/ece_mass_15": "calibration",
        "mmlu/acc,none": "benchmarks",
        "group/gsm8k/exact_match,strict-match": "benchmarks",
        "pass_at_1": "best_of_n",
    }
    assert {name: measure_of(name) for name in told} == told
    with pytest.raises(UserError, match="metric mmlu/size"):
        measure_of("mmlu/size")
    (spec,) = specs(["gsm8k/exact_match,strict-match"])
    assert spec.heading == "gsm8k: exact match, strict-match ↑ (%)"
    assert [spec.key for spec in main_metrics(told, "benchmarks")] == ["mmlu/acc,none", "group/gsm8k/exact_match,strict-match"]
