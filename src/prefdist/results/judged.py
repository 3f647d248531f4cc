"""What judges say of answers to sets of prompts: its rows and tables among the results of a suite."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results.metrics_behaviour import JUDGED_METRICS, bare, specs
from prefdist.results.tables import Cell, MetricSpec, main_table, write_markdown

JUDGED = "judged"
Row = dict[str, Any]


def judged_rows(inputs: dict[str, Path]) -> list[Row]:
    """A row a prompt, named as what else is measured of its set, <set>/<metric>; counts of battles are left out."""
    rows = []
    for role, folder in inputs.items():
        kind, _, which = role.partition("/")
        if kind == JUDGED:
            _, name, _ = which.split("/")
            found = tables.read_table(folder / "metrics.parquet", tables.METRICS)
            rows += [{**row, "metric": f"{name}/{row['metric']}"} for row in found if row["metric"] in JUDGED_METRICS]
    return rows


def judged_specs(rows: Sequence[Row] | Sequence[Cell]) -> list[MetricSpec]:
    """The metrics of judges that occur."""
    return specs(row["metric"] for row in rows if row["metric"].rpartition("/")[2] in JUDGED_METRICS)


def write_judged(rows: Sequence[Row], sets: Sequence[str], out: Path) -> list[Cell]:
    """judged-<set>.md of each set: a row a policy, of models as of runs. Returns all cells."""
    metrics = judged_specs(rows)
    keys = {spec.key for spec in metrics}
    cells = main_table(rows, list(dict.fromkeys(row["run"] for row in rows if row["metric"] in keys)), metrics)
    for name in sets:
        of_set = [spec for spec in metrics if spec.key.rpartition("/")[0] == name]
        of_cells = [cell for cell in cells if cell["metric"].rpartition("/")[0] == name]
        write_markdown(of_cells, [bare(spec) for spec in of_set], out / f"judged-{name}.md")
    return cells
