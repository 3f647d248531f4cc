"""The stage `adl_results`: rows, tables, a figure, costs and the manifest of a suite of ADL at the paper's scale."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results.ablation import measured_rows
from prefdist.results.alignment_tables import MEASURE, of_set, write_alignment
from prefdist.results.costs import write_costs
from prefdist.results.figures_alignment import frontier
from prefdist.results.judged import judged_rows
from prefdist.results.manifest import write_manifest
from prefdist.results.metrics_behaviour import specs


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Everything that results/<suite>/<version> holds."""
    folders = {name: inputs[f"{MEASURE}/{name}"] for name in spec["measured"][MEASURE]}
    rows = measured_rows(folders, "metrics", tables.METRICS) + judged_rows(inputs)
    tables.write_table(out / "metrics.parquet", rows, tables.METRICS)
    cells = write_alignment(spec, out, out)
    every = specs((cell["metric"] for cell in cells), MEASURE)
    for name in spec["sets"]:
        frontier(cells, of_set(every, name), spec["bases"], spec["families"], out / f"frontier-{name}")
    write_costs(inputs, out / "cost.csv")
    write_manifest(spec, inputs, out / "manifest.json")
