"""The stage `spl_results`: rows, tables, figures, costs and the manifest of a suite of behaviour."""

import csv
import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results import figures_answers, figures_behaviour, figures_distillation, figures_shift
from prefdist.results.ablation import measured_rows
from prefdist.results.behaviour_tables import read_rows, write_behaviour
from prefdist.results.calibration import grouped_answers
from prefdist.results.costs import write_costs
from prefdist.results.manifest import write_manifest
from prefdist.results.metrics_behaviour import bare, measure_of, panel_metrics
from prefdist.results.tables import Cell, read_csv

SLOPES = ("run", "seed", "reward", "slope", "low", "high", "r_squared", "prompts")
TAILS = ("run", "seed", "n", "n_not_finite", "minimum")
FITS = ("run", "seed", "filling", "k", "lambda", "lambda_low", "lambda_high", "accuracy", "accuracy_low", "accuracy_high")

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Everything that results/<suite>/<version> holds."""
    _write_rows(spec["measured"], inputs, out)
    cells = write_behaviour(spec, out, out)
    _draw(spec, cells, out)
    write_costs(inputs, out / "cost.csv")
    card = inputs["text"] / "card.md"
    if card.is_file():
        shutil.copyfile(card, out / "data_card.md")
    write_manifest(spec, inputs, out / "manifest.json")


def _write_rows(measured: dict[str, list[str]], inputs: dict[str, Path], out: Path) -> None:
    """What was measured of all policies, together."""
    folders = {measure: {name: inputs[f"{measure}/{name}"] for name in names} for measure, names in measured.items()}
    metrics = [row for of_measure in folders.values() for row in measured_rows(of_measure, "metrics", tables.METRICS)]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    if "calibration" in folders:
        tables.write_table(
            out / "answers.parquet", measured_rows(folders["calibration"], "answers", tables.ANSWERS), tables.ANSWERS
        )
    if "best_of_n" in folders:
        outcomes = measured_rows(folders["best_of_n"], "outcomes", tables.OUTCOMES)
        tables.write_table(out / "outcomes.parquet", outcomes, tables.OUTCOMES)
        first = next(iter(folders["best_of_n"].values()))
        shutil.copyfile(first / "split.parquet", out / "split.parquet")  # the same of all policies
    if "shift" in folders:
        found = _read(folders["shift"], "slopes.json")
        slopes = [{**row, "slope": row["value"]} for row in found if "value" in row]
        _write_csv(out / "slopes.csv", SLOPES, slopes)
        tails = [{**row, **row["rejected"], **row["rejected"]["quantiles"]} for row in found if "rejected" in row]
        _write_csv(out / "tails.csv", (*TAILS, *tails[0]["rejected"]["quantiles"]), tails)
    if "repeats" in folders:
        _write_csv(out / "fits.csv", FITS, _read(folders["repeats"], "fits.json"))
    if "benchmarks" in folders:
        tasks = _read(folders["benchmarks"], "tasks.json")
        (out / "benchmarks.json").write_text(json.dumps(tasks, indent=1) + "\n")


def _draw(spec: dict[str, Any], cells: list[Cell], out: Path) -> None:
    """The figures of what was measured."""
    look = figures_behaviour.Look(spec["families"], spec["sweeps"])
    of_measure = {name: [cell for cell in cells if measure_of(cell["metric"]) == name] for name in spec["measured"]}
    if "diversity" in of_measure:
        figures_behaviour.quality_diversity(of_measure["diversity"], look, out / "quality_diversity")
        figures_behaviour.main_quality_diversity(of_measure["diversity"], look, out / "quality_diversity_main")
    if "shift" in of_measure:
        figures_shift.shift(of_measure["shift"], read_rows(out / "slopes.csv"), out / "shift")
    if "repeats" in of_measure:
        figures_shift.repeats(of_measure["repeats"], read_rows(out / "fits.csv"), out / "repeats")
    if "best_of_n" in of_measure:
        figures_answers.coverage(read_csv(out / "coverage.csv"), look, out / "coverage")
    if "calibration" in of_measure:
        _draw_calibration(of_measure["calibration"], spec["bins"], out)


def _draw_calibration(cells: list[Cell], bins: int, out: Path) -> None:
    """Of each set of questions, reliability and scores of every run."""
    answers = grouped_answers(tables.read_table(out / "answers.parquet", tables.ANSWERS))
    shown = panel_metrics(cells, "calibration", bins)
    for choices in dict.fromkeys(choices for _, choices in answers):
        of_set = {run: of_seeds for (run, name), of_seeds in answers.items() if name == choices}
        key = f"{choices}/ece_width_{bins}"
        errors = {cell["run"]: cell["estimate"] for cell in cells if cell["metric"] == key}
        figures_answers.reliabilities(of_set, errors, bins, out / f"reliability-{choices}")
        scores = [bare(one) for one in shown if one.key.rpartition("/")[0] == choices]
        title = f"{choices}: estimates with 95 % intervals"
        figures_distillation.panels(cells, out / f"calibration-{choices}", title=title, metrics=scores)


def _read(folders: dict[str, Path], name: str) -> list[Row]:
    return [{"run": run, **row} for run, folder in folders.items() for row in json.loads((folder / name).read_text())]


def _write_csv(file: Path, columns: Sequence[str], rows: Sequence[Row]) -> None:
    """Numbers with six significant digits; nothing where there is no value."""
    with file.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: _text(row[name]) for name in columns} for row in rows)


def _text(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
