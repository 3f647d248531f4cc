"""How the bench writes numbers: rows as CSV, rounds as median and range, the machine's processor."""

import csv
import platform
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any


def write_csv(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """One line a row, six digits of each float; the first row's keys are the head."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(
            {key: f"{value:.6g}" if isinstance(value, float) else value for key, value in row.items()} for row in rows
        )


def spread(values: Sequence[float]) -> str:
    """Median [smallest, largest], three digits that count."""
    return "{} [{}, {}]".format(*(f"{x:.0f}" if x >= 100 else f"{x:.3g}" for x in (median(values), min(values), max(values))))


def processor() -> str:
    """Its model name where the system tells."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())
