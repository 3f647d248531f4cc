"""The stage `ablation`: the metric rows, table and figure of runs that differ in one thing."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results import figures_distillation
from prefdist.results.from_rows import write_ablation
from prefdist.results.manifest import write_manifest


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    rows = metric_rows({name: inputs[f"student/{name}"] for name in spec["runs"].values()})
    tables.write_table(out / "metrics.parquet", rows, tables.METRICS)
    cells = write_ablation(spec, out, out)
    figures_distillation.panels(cells, out / "figure", title=spec["title"])
    write_manifest(spec, inputs, out / "manifest.json")


def metric_rows(folders: dict[str, Path]) -> list[dict[str, Any]]:
    """Metric rows of runs, by the folders of their evaluations."""
    return [
        {**row, "run": name}
        for name, folder in folders.items()
        for row in tables.read_table(folder / "metrics.parquet", tables.METRICS)
    ]
