"""The results of a suite of behaviour: values by other ways, tables rebuilt byte for byte, figures that show them."""

import itertools
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from rich.cells import cell_len

from prefdist import artefacts
from prefdist.config_spl import SplSuite
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.evaluation.multiple_choice import Answers, metrics, question_rows
from prefdist.evaluation.significance import compare_all
from prefdist.plan.behaviour import sweeps
from prefdist.results import ablation, behaviour, calibration
from prefdist.results.behaviour_tables import read_rows
from prefdist.results.calibration import grouped_answers
from prefdist.results.coverage import powers
from prefdist.results.differences import read_cells
from prefdist.results.figures_answers import coverage, reliabilities
from prefdist.results.figures_behaviour import Look, front, main_quality_diversity, quality_diversity
from prefdist.results.figures_shift import repeats, shift
from prefdist.results.listing import print_release
from prefdist.results.metrics_behaviour import DIVERSITY, REPEATS, SHIFT, main_metrics, measure_of, specs
from prefdist.results.release import Release, new_record
from prefdist.results.tables import Cell, read_csv
from prefdist.results.verify import verify_release
from prefdist.suites import load_suite

SEEDS = (0, 1)
POLICIES = ("base", "dpo", "spl", "dpo_hot")
MODELS = POLICIES[:3]
SPEC: dict[str, Any] = {
    "suite": "made",
    "seeds": list(SEEDS),
    "measured": {
        "diversity": list(POLICIES),
        "shift": list(MODELS),
        "repeats": ["dpo", "dpo_hot"],
        "calibration": list(MODELS),
        "best_of_n": list(MODELS),
        "tax": list(MODELS),
        "benchmarks": list(MODELS),
    },
    "families": {"base": "π₀", "dpo": "DPO", "spl": "SPL", "dpo_hot": "temperature"},
    "sweeps": [["dpo", "dpo_hot"]],
    "bins": 4,
    "easy": 1,
    "medium": 2,
}
PROMPTS, QUESTIONS, PROBLEMS, ANSWERS = 6, 12, 5, 4
Row = dict[str, Any]


def value(run: str, seed: int, prompt: int, name: str) -> float:
    """Of a prompt and seed, the same for all runs, plus 0.01 for each place of the run in POLICIES."""
    noise = np.random.default_rng([seed, prompt, len(name)]).normal(0.5, 0.1)
    return float(noise + 0.01 * POLICIES.index(run))


def rows(run: str, names: list[str], prompts: int = PROMPTS) -> list[Row]:
    return [
        {"run": run, "seed": seed, "prompt_id": f"p{p}", "metric": name, "value": value(run, seed, p, name)}
        for name, seed, p in itertools.product(names, SEEDS, range(prompts))
    ]


def answers(run: str) -> list[Row]:
    found = []
    for seed, q in itertools.product(SEEDS, range(QUESTIONS)):
        rng = np.random.default_rng([POLICIES.index(run), seed, q])
        logps = np.log(0.9 * rng.dirichlet(np.ones(3)))
        key = {"run": run, "choices": "made", "seed": seed, "question_id": f"q{q}"}
        found.append({**key, "gold": int(rng.integers(3)), "logp_options": logps.tolist()})
    return found


def outcomes(run: str, seeds: tuple[int, ...] = SEEDS, *, rewarded: bool = True) -> list[Row]:
    """π₀ is right by chance, `dpo` more often, `spl` always; two answers to a problem share a reward."""
    found = []
    for seed, p, sample in itertools.product(seeds, range(PROBLEMS), range(ANSWERS)):
        rng = np.random.default_rng([7, POLICIES.index(run), seed, p, sample])
        correct = bool(rng.random() < {"base": 0.25, "dpo": 0.5, "spl": 1.1}[run])
        reward = float(rng.integers(3)) if rewarded else None
        key = {"run": run, "seed": seed, "prompt_id": f"problem{p}", "sample": sample}
        found.append({**key, "correct": correct, "reward": reward})
    return found


def write_measure(out: Path, measure: str, run: str) -> None:
    """What the stage of a measure leaves."""
    if measure == "calibration":
        of_run = answers(run)
        tables.write_table(out / "answers.parquet", of_run, tables.ANSWERS)
        metric_rows = [
            {**row, "metric": f"made/{row['metric']}"}
            for seed in SEEDS
            for row in question_rows(Answers.of_rows([r for r in of_run if r["seed"] == seed]), run=run, seed=seed)
        ]
    elif measure == "best_of_n":
        tables.write_table(out / "outcomes.parquet", outcomes(run), tables.OUTCOMES)
        tables.write_table(out / "split.parquet", outcomes("base", (9,), rewarded=False), tables.OUTCOMES)
        metric_rows = rows(run, ["pass_at_1", "answer_length", "answer_unfinished"])
    elif measure == "repeats":
        contexts = itertools.product(("repeats", "random", "text"), (0, 4))
        names = [f"{spec.key}/{filling}/{k}" for filling, k in contexts for spec in REPEATS[:2]]
        metric_rows = rows(run, names)
        fit = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.875, "lambda_low": None, "lambda_high": None}
        cells = [
            {"seed": seed, "filling": filling, "k": k, **fit, "lambda": None if run == "dpo_hot" else 0.25}
            for seed, filling, k in itertools.product(SEEDS, ("repeats", "random", "text"), (0, 4))
        ]
        (out / "fits.json").write_text(json.dumps(cells))
    elif measure == "shift":
        metric_rows = rows(run, [spec.key for spec in SHIFT if run != "base" or spec.key != "tpm_reward_tilted"])
        rejected = {"n": 8, "n_not_finite": 0, "minimum": -70.5, "quantiles": {"0.5": -60.25}}
        found: list[Row] = [{"seed": seed, "reward": "none", "rejected": rejected} for seed in SEEDS]
        if run != "base":
            slope = {"prompts": 16, "value": 0.5, "low": 0.25, "high": 0.75, "r_squared": 0.125}
            found += [{"seed": seed, "reward": who, **slope} for seed in SEEDS for who in ("own", "judge", "known")]
        (out / "slopes.json").write_text(json.dumps(found))
    else:
        diversity = [spec.key for spec in DIVERSITY]
        every = {"diversity": diversity, "tax": ["text_nll"], "benchmarks": ["arc_easy/acc,none"]}
        metric_rows = rows(run, every[measure])
        (out / "tasks.json").write_text('[{"seed": 0, "versions": {"arc_easy": 1.0}}]')
    tables.write_table(out / "metrics.parquet", metric_rows, tables.METRICS)


def made(folder: Path, stage: str, write: Callable[[Path], object], **identity: Any) -> Path:
    """An artefact below the current folder, where manifests name it."""
    key = {"stage": stage, "name": folder.name, "digest": "d", "code": "c", "spec": {}, **identity}
    artefacts.make(folder, identity=key, inputs=identity.get("inputs", {}), run=write)
    return folder


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    """Of the slow statistic; no test here reads its intervals."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RESAMPLES", 20)
        yield


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("artefacts")
    found = {"text": made(root / "text" / "made", "text", lambda out: (out / "card.md").write_text("# Card\n"))}
    for measure, runs in SPEC["measured"].items():
        for run in runs:
            folder = root / measure / run
            found[f"{measure}/{run}"] = made(folder, measure, lambda out, m=measure, r=run: write_measure(out, m, r))  # type: ignore[misc]
    for run, seed in itertools.product(("dpo", "spl"), SEEDS):

        def trained(out: Path) -> None:
            (out / "log.jsonl").write_text('{"tokens": 10}\n{"tokens": 14}\n')
            (out / "timings.json").write_text("[1.5, 2]")

        found[f"policy/{run}/{seed}"] = made(root / "train" / f"{run}-seed{seed}", "train", trained)
    return found


@pytest.fixture(scope="module")
def results(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the stage makes, with its provenance."""
    folder = tmp_path_factory.mktemp("checkout") / "results" / "made" / "v1"
    folder.parent.mkdir(parents=True)
    return made(folder, "spl_results", lambda out: behaviour.run(SPEC, inputs, out, out), spec=SPEC)


def cell(folder: Path, run: str, metric: str, table: str = "table") -> Cell:
    (found,) = (c for c in read_csv(folder / f"{table}.csv") if (c["run"], c["metric"]) == (run, metric))
    return found


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


LOOK = Look(SPEC["families"], SPEC["sweeps"])


def of_measure(results: Path, measure: str) -> list[Cell]:
    return [found for found in read_csv(results / "table.csv") if measure_of(found["metric"]) == measure]


def texts(figure: Figure) -> str:
    """All that is written in a figure."""
    axes = [text for one in figure.axes for text in (one.xaxis.label, one.yaxis.label, *one.texts)]
    ticks = [tick for one in figure.axes for tick in (*one.get_xticklabels(), *one.get_yticklabels())]
    legends = [text for legend in figure.legends for text in legend.get_texts()]
    titles = [one.get_title(loc="left") for one in figure.axes]
    return "\n".join([*titles, *(text.get_text() for text in [*axes, *ticks, *legends, *figure.texts])])


def test_quality_and_diversity_point_to_better(results: Path, tmp_path: Path) -> None:
    cells = of_measure(results, "diversity")
    figure = quality_diversity(cells, LOOK, tmp_path / "figure")
    assert len(figure.axes) == 3 * 5 + 1
    by_label = {(one.get_ylabel(), one.get_xlabel()): one for one in figure.axes}
    assert by_label["", "self-BLEU ↓"].xaxis_inverted() and not by_label["", "EAD ↑"].xaxis_inverted()
    shown = texts(figure)
    assert "dpo → dpo_hot" in shown and "SPL: spl" in shown and "6 prompts × 2 seeds" in shown
    first = figure.axes[0]
    places = {str(c.get_label()): c[0].get_xydata()[0] for c in first.containers}
    for run in POLICIES:
        ends = [cell(results, run, metric)["estimate"] for metric in ("embedding_distance", "win_rate_base")]
        assert places[run] == pytest.approx(ends)
    main = main_quality_diversity(cells, LOOK, tmp_path / "main")
    assert {text.get_text() for text in main.axes[0].texts} == set(POLICIES)
    # The stage drew it from unrounded cells, so bytes are compared with a second drawing.
    quality_diversity(cells, LOOK, tmp_path / "again")
    assert (tmp_path / "again.svg").read_bytes() == (tmp_path / "figure.svg").read_bytes()


def test_the_front_is_what_nothing_beats_in_both() -> None:
    points = np.random.default_rng(0).normal(size=(40, 2))
    best = {tuple(p) for p in points if not any((q >= p).all() and (q > p).any() for q in points)}
    assert {tuple(p) for p in front(points)} == best and len(best) > 1
    tied = np.array([[1.0, 0.0], [1.0, 2.0], [0.0, 2.0]])
    assert front(tied).tolist() == [[1.0, 2.0]]


def test_shift_and_repeats_are_labelled(results: Path, tmp_path: Path) -> None:
    slopes, fits = (read_rows(results / f"{name}.csv") for name in ("slopes", "fits"))
    figure = shift(of_measure(results, "shift"), slopes, tmp_path / "shift")
    shown = texts(figure)
    assert len(figure.axes) == 5 and all(name in shown for name in MODELS)
    assert "TPM by r̂ (D3) (%)" in shown and "slope on judge's r̂" in shown and "6 prompts × 2 seeds" in shown
    slopes_drawn = [c for c in figure.axes[-1].containers]
    assert len(slopes_drawn) == len(slopes)
    without = shift(of_measure(results, "shift"), [], tmp_path / "without")
    assert len(without.axes) == 4
    figure = repeats(of_measure(results, "repeats"), fits, tmp_path / "repeats")
    shown = texts(figure)
    assert len(figure.axes) == 2 * 4 and "repeats of one token" in shown and "KL(π‖π₀), first token (nats)" in shown
    assert shown.count("π and π₀ do not differ") == 1  # λ of dpo_hot


def test_answers_are_drawn(results: Path, tmp_path: Path) -> None:
    found = grouped_answers([row for run in MODELS for row in answers(run)])
    figure = reliabilities(
        {run: of_seeds for (run, _), of_seeds in found.items()}, dict.fromkeys(MODELS, 0.125), 4, tmp_path / "r"
    )
    shown = texts(figure)
    assert "dpo\nECE 0.125" in shown and "12 questions × 2 seeds; 4 bins" in shown
    first = found["base", "made"]
    weights = [bar.get_height() for bar in figure.axes[1].patches]
    confidence = np.concatenate([one.confidence for one in first])
    assert weights == pytest.approx(np.histogram(confidence, bins=4, range=(0, 1))[0] / len(confidence))
    cells = read_csv(results / "coverage.csv")
    figure = coverage(cells, LOOK, tmp_path / "coverage")
    shown = texts(figure)
    assert all(name in shown for name in MODELS) and "all problems (n = 5)" in shown and "best of k by r̂ (%)" in shown
    line = next(line for line in figure.axes[0].lines if line.get_label() == "dpo")
    expected = [cell(results, "dpo", f"pass/all/{k}", "coverage")["estimate"] for k in (1, 2, 4)]
    assert np.asarray(line.get_xydata()).T.tolist() == [[1, 2, 4], expected]


def test_policies_that_differ_in_one_number_are_one_line() -> None:
    suite = load_suite("spl_smoke", Path(__file__).resolve().parents[1])
    assert isinstance(suite, SplSuite)
    assert sweeps(suite) == [["dpo", "dpo_warm"]]
    (run,) = (run for name, run in suite.runs.items() if name == "spl")
    others = {
        name: run.model_copy(update={"parameters": {"alpha": alpha, "beta": beta}})
        for name, alpha, beta in [("far", 1.1, 0.1), ("near", 0.11, 0.1), ("small", 0.11, 0.01)]
    }
    longer = {"longer": run.model_copy(update={"optimisation": run.optimisation.model_copy(update={"steps": 5})})}
    more = suite.model_copy(update={"runs": suite.runs | others | longer})
    assert sweeps(more) == [["dpo", "dpo_warm"], ["near", "spl", "far"]]
