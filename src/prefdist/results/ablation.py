"""The stage `ablation`: the table and figure of runs that differ in one thing."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results import figures_distillation
from prefdist.results.manifest import write_manifest
from prefdist.results.metrics import STUDENT
from prefdist.results.tables import main_table, present, write_csv, write_markdown


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """A row of the table is a value of what differs. Two values may share a run: the one that other ablations vary."""
    rows = metric_rows({name: inputs[f"student/{name}"] for name in spec["runs"].values()})
    metrics = present(STUDENT, rows)
    named = [{**row, "run": value} for value, run in spec["runs"].items() for row in rows if row["run"] == run]
    cells = main_table(named, list(spec["runs"]), metrics)
    write_csv(cells, out / "table.csv")
    write_markdown(cells, metrics, out / "table.md")
    figures_distillation.panels(cells, out / "figure", title=spec["title"])
    write_manifest(spec, inputs, out / "manifest.json")


def metric_rows(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Metric rows of runs, by the folders of their evaluations."""
    return [
        {**row, "run": name}
        for name, folder in folders.items()
        for row in tables.read_table(folder / "metrics.parquet", tables.METRICS)
    ]
