"""The stage `adl_results`: rows, tables, a figure, costs and the manifest of a suite of ADL at the paper's scale."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results.ablation import measured_rows
from prefdist.results.alignment_tables import JUDGED, MEASURE, of_set, write_alignment
from prefdist.results.costs import write_costs
from prefdist.results.figures_alignment import frontier
from prefdist.results.manifest import write_manifest
from prefdist.results.metrics_behaviour import JUDGED_METRICS, specs


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Everything that results/<suite>/<version> holds."""
    folders = {name: inputs[f"{MEASURE}/{name}"] for name in spec["measured"][MEASURE]}
    rows = measured_rows(folders, "metrics", tables.METRICS) + _judged(inputs)
    tables.write_table(out / "metrics.parquet", rows, tables.METRICS)
    cells = write_alignment(spec, out, out)
    every = specs((cell["metric"] for cell in cells), MEASURE)
    for name in spec["sets"]:
        frontier(cells, of_set(every, name), spec["bases"], spec["families"], out / f"frontier-{name}")
    write_costs(inputs, out / "cost.csv")
    write_manifest(spec, inputs, out / "manifest.json")


def _judged(inputs: dict[str, Path]) -> list[dict[str, Any]]:
    """What judges say of answers, a row a prompt: named as what else is measured of a set, counts of battles left out."""
    rows = []
    for role, folder in inputs.items():
        kind, _, which = role.partition("/")
        if kind == JUDGED:
            _, name, _ = which.split("/")
            found = tables.read_table(folder / "metrics.parquet", tables.METRICS)
            rows += [{**row, "metric": f"{name}/{row['metric']}"} for row in found if row["metric"] in JUDGED_METRICS]
    return rows
