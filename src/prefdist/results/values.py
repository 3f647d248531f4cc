"""What of a folder of results is a value: the cells of its tables and its metric rows. Timings, memory, dates and the
bytes of figures are not.
"""

import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq

ROWS = "metrics.parquet"
COST = "cost.csv"
"""Seconds and memory: of the machine that made the tables."""


def value_tables(folder: Path) -> list[Path]:
    """The tables that hold values, by name."""
    return [file for file in sorted(folder.glob("*.csv")) if file.name != COST]


def values_digest(folder: Path) -> str:
    """12 hex digits over the bytes of the tables and over the metric rows, however Parquet stores these."""
    digests = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in value_tables(folder)}
    if (folder / ROWS).is_file():
        rows = json.dumps(pq.read_table(folder / ROWS).to_pydict())
        digests[ROWS] = hashlib.sha256(rows.encode()).hexdigest()
    return hashlib.sha256(json.dumps(digests, sort_keys=True).encode()).hexdigest()[:12]
