"""The stage `ablation`: the metric rows, table and figure of runs or policies that differ in one thing."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from prefdist.data import tables
from prefdist.results import figures_distillation
from prefdist.results.from_rows import write_ablation
from prefdist.results.manifest import write_manifest
from prefdist.results.metrics_behaviour import panel_metrics


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    measure = spec.get("measure", "student")
    folders = {name: inputs[f"{measure}/{name}"] for name in spec["runs"].values()}
    tables.write_table(out / "metrics.parquet", measured_rows(folders, "metrics", tables.METRICS), tables.METRICS)
    if measure == "calibration":
        answers = measured_rows(folders, "answers", tables.ANSWERS)
        tables.write_table(out / "answers.parquet", answers, tables.ANSWERS)
    cells = write_ablation(spec, out, out)
    shown = figures_distillation.shown(cells) if measure == "student" else panel_metrics(cells, measure, spec.get("bins"))
    figures_distillation.panels(cells, out / "figure", title=spec["title"], metrics=shown)
    write_manifest(spec, inputs, out / "manifest.json")


def measured_rows(folders: dict[str, Path], name: str, schema: pa.Schema) -> list[dict[str, Any]]:
    """Rows of a table of runs, by the folders of what was measured of them."""
    return [
        {**row, "run": run} for run, folder in folders.items() for row in tables.read_table(folder / f"{name}.parquet", schema)
    ]
