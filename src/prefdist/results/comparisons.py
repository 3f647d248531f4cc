"""Policies against one of them, metric by metric: paired differences, and whether they are more than chance."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefdist.evaluation.significance import Comparison, compare_all
from prefdist.results.tables import MetricSpec, markdown_row

Rows = Sequence[Mapping[str, Any]]


def first_run(policies: Sequence[str]) -> str:
    """What the other policies are compared with: the first trained one."""
    return next((name for name in policies if name != "base"), policies[0])


HEAD = (
    "Difference [95 % interval over prompts × seeds], policy less the one that it is compared with, on the same prompts "
    "and seeds. p: two-sided sign-flip test over prompts, on means over seeds: it is about the policies that were "
    "trained, while the interval covers new seeds too. Holm's correction is over the policies of a metric."
)


def write_comparisons(rows: Rows, wanted: Mapping[str, tuple[str, Sequence[MetricSpec]]], file: Path) -> None:
    """A section a measure, a table a metric. wanted: measure -> what its other policies are compared with, and its metrics."""
    lines = [HEAD, ""]
    for measure, (against, metrics) in wanted.items():
        lines += compared_lines(rows, measure, against, metrics)
    file.write_text("\n".join(lines), encoding="utf-8")


def compared_lines(rows: Rows, section: str, against: str, metrics: Sequence[MetricSpec]) -> list[str]:
    """The tables of a section: the policies of the rows, but one, less that one."""
    lines = []
    for spec in metrics:
        found = _compared(rows, spec, against)
        if found:
            lines += [f"## {section}: {spec.heading}, against `{against}`", ""]
            lines += [markdown_row(["policy", "difference", "p", "p, Holm"]), markdown_row(["---", "---:", "---:", "---:"])]
            lines += [markdown_row([pair.a, _difference(pair, spec), *_p_values(pair)]) for pair in found]
            lines.append("")
    return lines


def _compared(rows: Rows, spec: MetricSpec, against: str) -> list[Comparison]:
    runs: dict[str, list[tuple[int, str, float | None]]] = {}
    for row in rows:
        if row["metric"] == spec.key:
            runs.setdefault(row["run"], []).append((row["seed"], row["prompt_id"], row["value"]))
    return compare_all(runs, against=against) if against in runs and len(runs) > 1 else []


def _difference(pair: Comparison, spec: MetricSpec) -> str:
    value, low, high = (
        f"{end * spec.scale:+.{spec.decimals}f}" for end in (pair.difference.value, pair.difference.low, pair.difference.high)
    )
    return f"{value} [{low}, {high}]"


def _p_values(pair: Comparison) -> list[str]:
    return ["< 0.001" if p < 0.001 else f"{p:.3f}" for p in (pair.p_value, pair.p_corrected)]
