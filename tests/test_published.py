"""Published numbers: what the files may say, the rule of the combined interval, and which of ours stand beside them."""

import math
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from checkouts import ROOT

from prefdist.cli import main
from prefdist.data import tables
from prefdist.errors import UserError
from prefdist.paths import PUBLISHED, RESULTS, SUITES
from prefdist.published.comparison import Comparison, compare, half_width
from prefdist.published.document import DOCUMENT, document, page
from prefdist.published.ours import Releases
from prefdist.published.records import Metric, load_works
from prefdist.results.tables import MetricSpec, main_table, write_csv

MODEL = "some/model"
WORK: dict[str, Any] = {
    "work": "made_up",
    "title": "A made-up paper",
    "arxiv": "0000.00000",
    "version": "v1",
    "known": "All of it was made up.",
    "tables": [
        {
            "table": "Table 1",
            "title": "made up",
            "evidence": "paper",
            "source": "nowhere",
            "protocol": "None.",
            "settings": {"small": [MODEL]},
            "metrics": {
                "wins": {
                    "title": "wins",
                    "unit": "%",
                    "spread": "sd_over_seeds",
                    "seeds": 3,
                    "prompts": 600,
                    "proportion": True,
                    "ours": "win_rate_reference",
                },
                "kl": {"title": "KL", "spread": "sd_over_seeds", "seeds": 3, "prompts": 600, "ours": "kl_to_prior"},
                "score": {"title": "score", "apart": "its own scale"},
            },
            "rows": [
                {
                    "setting": "small",
                    "method": "A",
                    "ours": {"suite": "paper_suite", "run": "a"},
                    "values": {"wins": [50.0, 1.0], "kl": [3.0, 0.1], "score": 2.0},
                },
                {
                    "setting": "small",
                    "method": "B",
                    "ours": {"suite": "paper_suite", "run": "b"},
                    "values": {"wins": [80.0, 1.0]},
                },
            ],
        }
    ],
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A checkout with one work, and a suite of the work's model that has not run."""
    for folder in (PUBLISHED, SUITES):
        (tmp_path / folder).mkdir(parents=True)
    write(tmp_path, WORK)
    suite = {"suite": "paper_suite", "kind": "of a later time", "version": "v7", "models": {"policy": {"hub": MODEL}}}
    (tmp_path / SUITES / "paper_suite.yaml").write_text(yaml.safe_dump(suite))
    return tmp_path


def write(root: Path, work: dict[str, Any]) -> None:
    (root / PUBLISHED / "made_up.yaml").write_text(yaml.safe_dump(work))


def changed(path: str, value: Any) -> dict[str, Any]:
    """WORK with one value replaced, or removed by None."""
    work = yaml.safe_load(yaml.safe_dump(WORK))
    place, keys = work, path.split("/")
    for key in keys[:-1]:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[keys[-1]]
    else:
        place[keys[-1]] = value
    return work


def run_it(root: Path, wins: float, seeds: int = 2, prompts: int = 200) -> None:
    """A release of the suite from metric rows: run `a` wins on this share of the prompts in every seed."""
    count = round(wins * prompts)
    rows = [
        {"run": "a", "seed": seed, "prompt_id": str(i), "metric": metric, "value": value}
        for seed in range(seeds)
        for i in range(prompts)
        for metric, value in (("win_rate_reference", float(i < count)), ("kl_to_prior", 2.5 + (i % 2)))
    ]
    release = root / RESULTS / "paper_suite/v7"
    release.mkdir(parents=True)
    tables.write_table(release / "metrics.parquet", rows, tables.METRICS)
    specs = [MetricSpec("win_rate_reference", "wins", "%", scale=100), MetricSpec("kl_to_prior", "KL")]
    write_csv(main_table(tables.read_table(release / "metrics.parquet", tables.METRICS), ["a"], specs), release / "table.csv")


def comparisons(root: Path, suite: str | None = None) -> dict[tuple[str, str], Comparison]:
    (work,) = load_works(root)
    return {(one.row.method, one.metric.title): one for one in compare(work, Releases(root), suite)}


def test_the_half_width_is_that_of_simulated_evaluations() -> None:
    """Seeds differ by sd 1 point around a model of 50 %; all three are measured on the same 600 prompts."""
    metric = Metric(title="", spread="sd_over_seeds", seeds=3, prompts=600, proportion=True, ours="x")
    generator = np.random.default_rng(0)
    covered, n = 0, 2000
    for _ in range(n):
        easy = generator.random(600) < 0.5  # of these prompts every seed wins those that are easy, up to its own deviation
        seeds = 100 * easy.mean() + generator.normal(0, 1.0, 3)
        half = half_width(metric, float(seeds.mean()), float(seeds.std(ddof=1)))
        assert half is not None
        covered += abs(seeds.mean() - 50) <= half
    # Binomial s.e. of the coverage is 0.5 points; the sum of a t and a normal part is wider than 95 %, but not by much.
    assert 0.935 < covered / n < 0.985


def test_the_half_width_by_hand() -> None:
    metric = Metric(title="", spread="sd_over_seeds", seeds=3, prompts=600, proportion=True, ours="x")
    seeds = 4.302653 * 1.01 / math.sqrt(3)  # Student's t with two degrees of freedom, from a table
    prompts = 1.959964 * 100 * math.sqrt(0.473 * 0.527 / 600)
    assert half_width(metric, 47.3, 1.01) == pytest.approx(math.sqrt(seeds**2 + prompts**2), rel=1e-6)


@pytest.mark.parametrize(
    "metric",
    [
        Metric(title="", spread="sd_over_seeds", seeds=3, prompts=600, ours="x"),  # a mean whose error over prompts is unknown
        Metric(title="", spread="sd_over_seeds", seeds=3, proportion=True, ours="x"),  # of an unknown number of prompts
    ],
)
def test_what_was_not_published_gives_no_half_width(metric: Metric) -> None:
    assert half_width(metric, 50.0, 1.0) is None


def test_a_single_run_has_no_half_width() -> None:
    assert half_width(Metric(title="", prompts=600, proportion=True, ours="x"), 50.0, None) is None


def test_a_suite_that_did_not_run_says_so(checkout: Path) -> None:
    found = comparisons(checkout)
    assert found["A", "wins"].ours == "not run"
    assert found["A", "score"].ours == "none: its own scale"
    assert [one.difference for one in found.values()] == [None] * 4
    assert {one.verdict for one in found.values()} == {""}


def test_a_suite_that_is_not_there_yet_says_so(checkout: Path) -> None:
    (checkout / SUITES / "paper_suite.yaml").unlink()
    assert comparisons(checkout)["A", "wins"].ours == "no suite paper_suite"


# Ours: 200 prompts; published: 50 ± 4.7 by the formula. 53 % is inside of ± 8.4, 70 % outside.
@pytest.mark.parametrize(("wins", "verdict"), [(0.53, "inside"), (0.70, "outside")])
def test_difference_and_verdict_of_real_rows(wins: float, verdict: str, checkout: Path) -> None:
    run_it(checkout, wins)
    found = comparisons(checkout)
    one = found["A", "wins"]
    assert not isinstance(one.ours, str)
    assert one.difference == pytest.approx(100 * wins - 50)
    # Seeds are equal, so the bootstrap's interval is that of the prompts: ± 1.96·√(p(1−p)/200) up to its noise.
    expected = 196 * math.sqrt(wins * (1 - wins) / 200)
    assert (one.ours["high"] - one.ours["low"]) / 2 == pytest.approx(expected, rel=0.1)
    assert one.verdict == verdict
    assert found["A", "KL"].difference == pytest.approx(0.0, abs=1e-6)
    assert found["A", "KL"].verdict == "no interval"
    assert found["B", "wins"].ours == "results/paper_suite/v7/table.csv has no run b"


def test_a_metric_that_the_table_lacks_is_named(checkout: Path) -> None:
    run_it(checkout, 0.5)
    write(checkout, changed("tables/0/metrics/kl/ours", "kl_at_0.1"))
    assert comparisons(checkout)["A", "KL"].ours == "results/paper_suite/v7/table.csv has no metric kl_at_0.1"


def test_other_models_do_not_stand_beside_published_numbers(checkout: Path) -> None:
    run_it(checkout, 0.5)
    suite = {"suite": "paper_suite", "kind": "testbed", "version": "v7", "architecture": {"model_type": "llama"}}
    (checkout / SUITES / "paper_suite.yaml").write_text(yaml.safe_dump(suite))
    with pytest.raises(UserError, match=r"made_up.yaml: Table 1: small, A: ours.suite: paper_suite does not use some/model;"):
        comparisons(checkout)


@pytest.mark.parametrize("suite", [path.stem for path in sorted((ROOT / SUITES).glob("*.yaml"))])
def test_no_testbed_passes_as_a_papers_model(suite: str, checkout: Path) -> None:
    """Every suite of the project stands for the made-up paper's: all are of other models."""
    mapping = yaml.safe_load((ROOT / SUITES / f"{suite}.yaml").read_text())
    (checkout / SUITES / "paper_suite.yaml").write_text(yaml.safe_dump(mapping))
    with pytest.raises(UserError, match="numbers of other models do not stand beside published ones"):
        comparisons(checkout)


NO_HOURS = {"methods": ["A"], "devices": 2, "device": "x", "evidence": "paper", "source": "x", "suite": "x"}
REFUSED: list[tuple[str, Any, str]] = [
    ("wrong", 1, "wrong: Extra inputs are not permitted"),
    ("tables/0/rows/0/wrong", 1, r"tables.0.rows.0.wrong: Extra inputs"),
    ("tables/0/evidence", "rumour", "tables.0.evidence"),
    ("version", "", "work"),
    ("tables/0/metrics/kl/seeds", None, "spread sd_over_seeds and seeds go together"),
    ("tables/0/metrics/score/apart", None, "give ours, or say in apart"),
    ("tables/0/rows/0/values/wins", 50.0, r"small, A: wins: \[value, spread\]"),
    ("tables/0/rows/0/values/score", [2.0, 0.1], r"small, A: score: \[value, spread\]"),
    ("tables/0/rows/0/values/other", 1.0, "small, A: other is not one of kl, score, wins"),
    ("tables/0/rows/1/method", "A", "small, A: twice"),
    ("tables/0/rows/1/setting", "large", "large, B: setting is not one of small"),
    ("tables/0/settings/small", [], "setting small names no model of the hub"),
    (
        "costs",
        [{"methods": ["A"], "devices": 2, "device": "x", "evidence": "paper", "source": "x", "suite": "x"}],
        "give hours or",
    ),
]


@pytest.mark.parametrize(("path", "value", "wanted"), REFUSED)
def test_mistakes_are_named(path: str, value: Any, wanted: str, checkout: Path) -> None:
    work = changed(path, value) if path != "version" else {**WORK, "work": "another"}
    write(checkout, work)
    with pytest.raises(UserError, match=wanted):
        load_works(checkout)


def test_the_papers_tag_needs_the_text_that_was_read(checkout: Path) -> None:
    write(checkout, {**WORK, "version": None})
    with pytest.raises(UserError, match="the tag `paper` needs the version"):
        load_works(checkout)


def test_a_page_has_the_suites_rows_alone(checkout: Path) -> None:
    run_it(checkout, 0.53)
    text = page(checkout, "paper_suite")
    assert text is not None
    assert "| small | A | wins (%) | 50.00 ± 1.00 (s.d. of 3 seeds), 95 %: ± 4.71 | paper | 53.00 [" in text
    assert text.count("| inside |") == 1
    assert page(checkout, "another") is None


def test_a_page_reads_tables_that_are_not_released_yet(checkout: Path, tmp_path: Path) -> None:
    run_it(checkout, 0.53)
    (checkout / RESULTS / "paper_suite/v7").rename(tmp_path / "content")
    assert "| not run |" in str(page(checkout, "paper_suite"))
    assert "| 53.00 [" in str(page(checkout, "paper_suite", tmp_path / "content"))


def test_second_hand_numbers_are_never_shown_as_the_papers(checkout: Path) -> None:
    write(checkout, changed("tables/0/evidence", "second_hand"))
    text = document(checkout)
    assert "**Second-hand and unverified" in text
    assert "| paper |" not in text
    assert text.count("| second hand |") == 4


def test_the_committed_document_is_the_generated_one() -> None:
    assert (ROOT / DOCUMENT).read_text() == document(ROOT), "run: prefdist published --write"


def test_published_gaps_are_within_the_noise_that_the_paper_has() -> None:
    """An independent figure of the paper's win rates: the mean gap in a pair is about one binomial standard error."""
    (adl,) = (work for work in load_works(ROOT) if work.work == "adl")
    values = {(row.setting, row.method): row.values["win_rate"] for row in adl.tables[0].rows}
    pairs = [("DPO", "PMLE"), ("REBEL", "preference distillation"), ("RLHF (PPO)", "reverse KL")]
    gaps = {
        (size, a): values[f"Pythia {size}", b][0] - values[f"Pythia {size}", a][0]  # type: ignore[index]
        for size in ("2.8B", "6.9B")
        for a, b in pairs
    }
    assert {key: round(gap, 1) for key, gap in gaps.items()} == {
        ("2.8B", "DPO"): 1.8,
        ("2.8B", "REBEL"): 2.8,
        ("2.8B", "RLHF (PPO)"): 1.0,
        ("6.9B", "DPO"): 3.4,
        ("6.9B", "REBEL"): 1.4,
        ("6.9B", "RLHF (PPO)"): 2.0,
    }
    assert statistics.mean(gaps.values()) == pytest.approx(2.07, abs=0.01)


def test_the_command_prints_a_suite_and_refuses_what_has_nothing(checkout: Path, monkeypatch: Any, capsys: Any) -> None:
    (checkout / "Snakefile").touch()
    monkeypatch.chdir(checkout)
    assert main(["published", "paper_suite"]) == 0
    assert "| small | A | KL | 3.00 ± 0.10 (s.d. of 3 seeds) | paper | not run | – | – |" in capsys.readouterr().out
    assert main(["published", "another"]) == 2
    said = capsys.readouterr().err
    assert "another: no number in workflow/published/*.yaml stands beside this suite; of paper_suite some do" in said
    (checkout / "docs").mkdir()
    assert main(["published", "--write"]) == 0
    assert (checkout / DOCUMENT).read_text() == document(checkout)
