"""Long row-wise work that can be stopped: it is cut into shards, each a Parquet file that is written once."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa

from prefdist.data import tables
from prefdist.progress import Progress

Item = TypeVar("Item")
Row = dict[str, Any]


def sharded(
    items: Sequence[Item],
    lengths: Sequence[int],
    compute: Callable[[list[Item]], list[Row]],
    *,
    per_shard: int,
    schema: pa.Schema,
    scratch: Path,
    what: str,
) -> list[Row]:
    """The rows of all items, in their order. `compute` gives each of its items equally many rows, in their order.

    Shards hold items of similar length. Those found in `scratch` are read: it must belong to these items and this code,
    and is the caller's to remove. `what` names the items on stderr.
    """
    order = sorted(range(len(items)), key=lambda i: lengths[i])
    parts = [order[start : start + per_shard] for start in range(0, len(order), per_shard)]
    files = [scratch / f"{number:05d}.parquet" for number in range(len(parts))]
    scratch.mkdir(parents=True, exist_ok=True)
    done = sum(len(part) for part, file in zip(parts, files, strict=True) if file.is_file())
    progress = Progress(what, len(items), done)
    results: list[list[Row]] = [[] for _ in items]
    for part, file in zip(parts, files, strict=True):
        if not file.is_file():
            tables.write_table(file, compute([items[i] for i in part]), schema)
            done += len(part)
            progress.show(done)
        rows = tables.read_table(file, schema)
        each = len(rows) // len(part)
        for k, i in enumerate(part):
            results[i] = rows[k * each : (k + 1) * each]
    return [row for rows in results for row in rows]
