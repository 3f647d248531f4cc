"""The tables of a suite of ADL at the paper's scale, from the metric rows that lie beside them. Left out: figures, costs."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.results.comparisons import HEAD, compared_lines
from prefdist.results.metrics_behaviour import ALIGNMENT, JUDGED_METRICS, OWN, bare, main_metrics, specs
from prefdist.results.tables import CAPTION, Cell, MetricSpec, main_table, markdown_table, write_csv

MEASURE = "alignment"
_ABOUT = (
    "KL and entropy: of answers at one temperature, common to all methods. Own decoding: by the run's own law, for policy and "
    "π₀ alike; such columns do not compare between runs of different laws. r̂ is the run's reward model, whose zero is "
    "arbitrary; the reference is the dataset's own answer to the prompt. A judge compares answers of the own decoding, in both "
    "orders where it says so; replies that cannot be read are missing and counted."
)


def write_alignment(spec: dict[str, Any], rows: Path, out: Path) -> list[Cell]:
    """table.csv, a table a set of prompts with a section a base, and comparisons.md. Returns all cells."""
    measured = tables.read_table(rows / "metrics.parquet", tables.METRICS)
    names = list(dict.fromkeys(row["metric"] for row in measured))
    cells = main_table(measured, spec["measured"][MEASURE], specs(names, MEASURE))
    write_csv(cells, out / "table.csv")
    for name in spec["sets"]:
        _write_set(spec["bases"], cells, of_set(specs(names, MEASURE), name), out / f"{name}.md")
    lines = [HEAD, ""]
    for against in dict.fromkeys(spec["compared"].values()):
        policies = {against, *(policy for policy, other in spec["compared"].items() if other == against)}
        of_pair = [row for row in measured if row["run"] in policies]
        lines += compared_lines(of_pair, MEASURE, against, main_metrics(names, MEASURE))
    (out / "comparisons.md").write_text("\n".join(lines), encoding="utf-8")
    return cells


def of_set(every: Sequence[MetricSpec], name: str) -> list[MetricSpec]:
    """The metrics of a set of prompts."""
    return [spec for spec in every if spec.key.rpartition("/")[0] == name]


def _groups(metrics: Sequence[MetricSpec]) -> dict[str, list[MetricSpec]]:
    """The tables of a set, each with its metrics in their order; they are headed without what the table's title says."""
    found: dict[str, list[MetricSpec]] = {"The judge": [], "At one temperature": [], OWN.capitalize(): []}
    titles = list(found)
    for known in ALIGNMENT:
        for spec in metrics:
            if spec.key.rpartition("/")[2] == known.key:
                title = titles[0] if known.key in JUDGED_METRICS else titles[2 if known.title.endswith(OWN) else 1]
                found[title].append(replace(spec, title=bare(spec).title.removesuffix(f", {OWN}")))
    return found


def _write_set(bases: dict[str, list[str]], cells: Sequence[Cell], metrics: Sequence[MetricSpec], file: Path) -> None:
    """Under each base what a judge says, then both kinds of decoding: a row a method."""
    lines = [CAPTION, "", _ABOUT, ""]
    for base, policies in bases.items():
        lines += [f"## {base}", ""]
        for title, group in _groups(metrics).items():
            keys = {spec.key for spec in group}
            of_group = [cell for cell in cells if cell["run"] in policies and cell["metric"] in keys]
            shown = [{**cell, "run": cell["run"].removeprefix(f"{base}-")} for cell in of_group]
            lines += [f"### {title}", "", *markdown_table(shown, group), ""] if shown else []
    file.write_text("\n".join(lines), encoding="utf-8")
