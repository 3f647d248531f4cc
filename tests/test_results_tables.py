"""prefdist.results.tables: cells from metric rows, round trips, determinism, and what counts as a changed result."""

import math
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefdist.errors import UserError
from prefdist.evaluation.statistics import paired_bootstrap
from prefdist.results.tables import (
    COLUMNS,
    MetricSpec,
    main_table,
    print_table,
    read_csv,
    write_csv,
    write_markdown,
)

KL = MetricSpec("kl", "Forward KL", "nats", "lower")
WIN = MetricSpec("win", "Win rate", "%", "higher", scale=100.0, decimals=1)


def metric_rows(run: str, metric: str, mean: float, seeds: int = 3, prompts: int = 20) -> list[dict[str, Any]]:
    values = np.random.default_rng(0).normal(mean, 0.1, size=(seeds, prompts))
    return [
        {"run": run, "seed": s, "prompt_id": f"p{p}", "metric": metric, "value": float(values[s, p])}
        for s in range(seeds)
        for p in range(prompts)
    ]


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    return [
        *metric_rows("dpo", "kl", 2.0),
        *metric_rows("dpo", "win", 0.6),
        *metric_rows("sft", "kl", 3.0, seeds=1),
        *metric_rows("other", "kl", 9.0),
    ]


def test_cells_are_scaled_bootstrap_estimates_in_the_given_order(rows: list[dict[str, Any]]) -> None:
    cells = main_table(rows, ["sft", "dpo"], [KL, WIN])
    assert [(cell["run"], cell["metric"]) for cell in cells] == [("sft", "kl"), ("dpo", "kl"), ("dpo", "win")]
    assert all(tuple(cell) == COLUMNS for cell in cells)
    expected = paired_bootstrap([(r["seed"], r["prompt_id"], r["value"]) for r in metric_rows("dpo", "win", 0.6)])
    win = cells[2]
    assert (win["estimate"], win["low"], win["high"]) == pytest.approx(
        (100 * expected.value, 100 * expected.low, 100 * expected.high)
    )
    assert (win["n_prompts"], win["n_seeds"], win["n"], win["n_missing"]) == (20, 3, 60, 0)
    assert cells[0]["n_seeds"] == 1


def test_csv_reads_back_and_is_the_same_bytes_for_rows_in_any_order(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    first, second = tmp_path / "first.csv", tmp_path / "second.csv"
    cells = main_table(rows, ["sft", "dpo"], [KL, WIN])
    write_csv(cells, first)
    random.Random(0).shuffle(rows)
    write_csv(main_table(iter(rows), ["sft", "dpo"], [KL, WIN]), second)
    assert first.read_bytes() == second.read_bytes()
    for written, read in zip(cells, read_csv(first), strict=True):
        assert written["run"] == read["run"]
        assert written["n"] == read["n"]
        assert read["low"] == pytest.approx(written["low"], rel=1e-5)


def test_markdown_text(tmp_path: Path) -> None:
    cell = dict(zip(COLUMNS, ("dpo", "kl", 0.5234, 0.481, 0.5666, 20, 3, 59, 1), strict=True))
    point = dict(zip(COLUMNS, ("sft", "win", -0.001, math.nan, math.nan, 1, 1, 1, 0), strict=True))
    path = tmp_path / "table.md"
    write_markdown([cell, point], [KL, WIN], path)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert lines[2:] == [
        "| run | Forward KL ↓ (nats) | Win rate ↑ (%) | prompts | seeds |",
        "| --- | ---: | ---: | ---: | ---: |",
        "| dpo | 0.52† [0.48, 0.57] | – | 20 | 3 |",
        "| sft | – | 0.0 | 1 | 1 |",
    ]


def test_values_that_are_missing_everywhere_are_counted_not_hidden(tmp_path: Path) -> None:
    rows = [{"run": "a", "seed": 0, "prompt_id": "p", "metric": "kl", "value": None}]
    path = tmp_path / "t.csv"
    write_csv(main_table(rows, ["a"], [KL]), path)
    assert path.read_text().splitlines()[1] == "a,kl,,,,0,0,0,1"


def test_errors_name_run_metric_and_cell(rows: list[dict[str, Any]], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no run ppo"):
        main_table(rows, ["ppo"], [KL])
    with pytest.raises(UserError, match="no metric entropy"):
        main_table(rows, ["dpo"], [MetricSpec("entropy", "Entropy")])
    with pytest.raises(UserError, match=r"run dpo, metric kl: no row for \(seed 0, prompt 'p0'\)"):
        main_table(rows[1:], ["dpo"], [KL])
    with pytest.raises(UserError, match="no such table"):
        read_csv(tmp_path / "absent.csv")
    (tmp_path / "odd.csv").write_text("run,metric\n")
    with pytest.raises(UserError, match="columns"):
        read_csv(tmp_path / "odd.csv")


def test_terminal_table_fits_into_120_columns(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    specs = [MetricSpec(f"m{i}", f"Some longer title {i}", "nats", "lower") for i in range(6)]
    rows = [
        row for run in ("distill_kl_reward", "dpo") for spec in specs for row in metric_rows(run, spec.key, 100.0, prompts=5)
    ]
    path = tmp_path / "t.csv"
    write_csv(main_table(rows, ["distill_kl_reward", "dpo"], specs), path)
    print_table(path, specs)
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 120
    assert sum("100.0" in line or "99.9" in line for line in lines) == 2
    assert all(line.count("±") in (0, 6) for line in lines)
    with pytest.raises(UserError, match="choose 6"):
        print_table(path, [*specs, KL])
