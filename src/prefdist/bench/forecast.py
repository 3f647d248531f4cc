"""`prefdist bench --only forecast`: forecasts beside what suites used, to results/bench/forecast.{csv,md}.

Nothing is run: the artefacts' provenance is read. Each is forecast three times, without its own measurement: from the
committed rates alone, from what other suites measured, and from everything but itself.
"""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefdist.bench.tables import processor, spread, write_csv
from prefdist.errors import UserError
from prefdist.forecast.forecast import Forecaster
from prefdist.forecast.stages import work_of
from prefdist.forecast.throughput import Measured
from prefdist.forecast.work import UnknownWork
from prefdist.paths import RESULTS, SUITES, project_root
from prefdist.plan import STAGES, plan
from prefdist.suites import load_suite

Row = dict[str, Any]

METHODS = ("rates", "other_suites", "all_but_itself")


def bench() -> None:
    """Write the tables. UserError if nothing was made."""
    root = project_root()
    rows = measure(root)
    if not rows:
        raise UserError("artefacts/: no suite was run in this checkout; run one first: snakemake --cores all smoke")
    out = root / RESULTS / "bench"
    write_csv(out / "forecast.csv", rows)
    (out / "forecast.md").write_text(report(rows))
    print((out / "forecast.md").read_text())


def measure(root: Path) -> list[Row]:
    """A row for each artefact of each suite that lies in artefacts/, in the order of the workflow."""
    forecaster = Forecaster(root)
    known = {one.path: one for one in forecaster.measured}
    rows = []
    for file in sorted((root / SUITES).glob("*.yaml")):
        planned = plan(load_suite(file.stem, root), root)
        made = [path for path, artefact in planned.artefacts.items() if forecaster.records.is_complete(artefact)]
        for path in sorted(set(made) & known.keys(), key=lambda path: list(STAGES).index(planned.artefacts[path].stage)):
            rows.append(_row(file.stem, known[path], set(planned.artefacts), forecaster))
    return rows


def _row(suite: str, one: Measured, own: set[str], forecaster: Forecaster) -> Row:
    artefact = one.made.artefact
    left_out: dict[str, Callable[[Measured], bool]] = {
        "rates": lambda _: True,
        "other_suites": lambda other: other.path in own,
        "all_but_itself": lambda other: other.path == one.path,
    }
    found: Row = {"suite": suite, "stage": artefact.stage, "name": artefact.name, "device": one.made.device}
    found |= {"flops": one.work.total_flops, "used_seconds": one.made.seconds}
    for method in METHODS:
        try:
            seconds = forecaster.throughput.seconds(artefact, one.work, one.kind, without=left_out[method])
        except UnknownWork:
            seconds = None
        measured = seconds is not None and (method == "rates" or seconds.measured > 0)
        found[f"{method}_seconds"] = seconds.middle if seconds is not None and measured else None
    return found | {"disk_forecast": work_of(artefact, forecaster.facts).disk, "disk_used": one.made.disk}


def report(rows: Sequence[Row]) -> str:
    """Ratios of forecast and use by suite and stage."""
    lines = [
        "# Forecasts beside what was used\n",
        "Again: run a suite (`snakemake --cores all smoke pad_smoke`), then `prefdist bench --only forecast`. An artefact's",
        "seconds are forecast without its own measurement: from the committed rates alone, from what other suites measured",
        "here, and from all but itself. A ratio is forecast over used, the median [smallest, largest] of n artefacts; 1 is",
        "right, below 1 too little; – is where nothing of that stage was measured.",
        f"Processor: {processor()}, {os.cpu_count()} cores; load average over 15 minutes when this was written: "
        f"{os.getloadavg()[2]:.0f}.",
        "Wall times hold the start of Python, and their waiting for whatever else ran on the machine.\n",
        "| suite | stage | n | used s | from the rates | from other suites | from all but itself | disk |",
        "|---|---|---:|---:|---|---|---|---|",
    ]
    for suite in dict.fromkeys(row["suite"] for row in rows):
        of_suite = [row for row in rows if row["suite"] == suite]
        for stage in dict.fromkeys(row["stage"] for row in of_suite):
            lines.append(_line(suite, stage, [row for row in of_suite if row["stage"] == stage]))
        lines.append(_line(suite, "**all**", of_suite))
    return "\n".join(lines) + "\n"


def _line(suite: str, stage: str, rows: Sequence[Row]) -> str:
    cells = [_ratios(rows, f"{method}_seconds", "used_seconds") for method in METHODS]
    cells.append(_ratios([row for row in rows if row["disk_forecast"]], "disk_forecast", "disk_used"))
    return f"| {suite} | {stage} | {len(rows)} | {sum(row['used_seconds'] for row in rows):.0f} | {' | '.join(cells)} |"


def _ratios(rows: Sequence[Row], forecast: str, used: str) -> str:
    found = [row[forecast] / row[used] for row in rows if row[forecast] is not None and row[used]]
    return spread(found) if found else "–"
