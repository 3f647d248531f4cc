"""Rows of JSON-lines files, plain or gzipped, and of the Parquet files that a local copy of a hub dataset holds.

Every row knows its file and number, so that whoever finds fault with one can name it. Left out: downloading (hub.py), and
what the columns mean (the readers of each dataset).
"""

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefdist.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".parquet")
ARRAY = ".json"
"""A list of rows, read where the file itself is named: in a folder, such files are mostly about other things."""


@dataclass(frozen=True)
class Row:
    """One row: `number` counts the rows of `file` from 0."""

    file: Path
    number: int
    values: dict[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}: row {self.number}"

    def text(self, key: str) -> str:
        """A text. UserError if the key is missing or holds something else."""
        return str(self._of_type(key, str, "a text"))

    def integer(self, key: str) -> int:
        """A whole number; true and false are none. UserError otherwise."""
        if isinstance(self.values.get(key), bool):
            raise self.error(key, "is not a whole number")
        return int(self._of_type(key, int, "a whole number"))

    def texts(self, key: str) -> list[str]:
        """A list of texts. UserError otherwise."""
        found = self._of_type(key, list, "a list of texts")
        if not all(isinstance(item, str) for item in found):
            raise self.error(key, "is not a list of texts")
        return list(found)

    def mapping(self, key: str) -> dict[str, Any]:
        """A mapping. UserError otherwise."""
        return dict(self._of_type(key, dict, "a mapping"))

    def error(self, key: str, problem: str) -> UserError:
        """An error that names file, row and key, with the value where there is one; for the caller to raise."""
        value = f" (value {self.values[key]!r:.80})" if key in self.values else ""
        return UserError(f"{self.where}: {key!r} {problem}{value}; mend the row or take it out")

    def _of_type(self, key: str, kind: type, name: str) -> Any:
        if key not in self.values:
            raise UserError(f"{self.where}: no key {key!r}; its keys are {', '.join(self.values) or 'none'}")
        if not isinstance(self.values[key], kind):
            raise self.error(key, f"is not {name}")
        return self.values[key]


def read_rows(source: Path, split: str | None = None) -> list[Row]:
    """All rows of a file, or of the files of a folder in the order of their paths.

    Args:
        source: a file named *.jsonl, *.jsonl.gz, *.parquet or *.json, or a folder with such files (but *.json) at any depth.
        split: of a folder, only files named <split>.… or <split>-….…, as hub datasets name them.

    Raises:
        UserError: there is no such file, a line is not a JSON object (with its row), or a file cannot be read.
    """
    return [row for file in _files(source, split) for row in _rows(file)]


def _files(source: Path, split: str | None) -> list[Path]:
    if source.is_file():
        if not source.name.endswith((*SUFFIXES, ARRAY)):
            raise UserError(f"{source}: not a file of rows; its name must end in {', '.join((*SUFFIXES, ARRAY))}")
        return [source]
    files = sorted(f for f in source.rglob("*") if f.is_file() and f.name.endswith(SUFFIXES) and _is_of_split(f, split))
    if not files:
        wanted = f"{split}{SUFFIXES[0]}" if split else f"*{SUFFIXES[0]}"
        raise UserError(f"{source}: no such file, and no folder with {wanted} (or {', '.join(SUFFIXES[1:])}) in it")
    return files


def _is_of_split(file: Path, split: str | None) -> bool:
    return split is None or file.name.split(".")[0].split("-")[0] == split


def _rows(file: Path) -> Iterator[Row]:
    if file.suffix == ".parquet":
        yield from _parquet_rows(file)
        return
    if file.suffix == ARRAY:
        yield from _array_rows(file)
        return
    number = -1  # for a file whose first line cannot be decoded
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines):
                yield Row(file, number, _object(file, number, line))
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: not readable after row {number}: {error}; fetch the file again") from error


def _object(file: Path, number: int, line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except ValueError as error:
        raise UserError(f"{file}: row {number} is not JSON: {error}; its line is {line.strip()!r:.80}") from error
    if not isinstance(found, dict):
        raise UserError(f"{file}: row {number} is not a JSON object, found {line.strip()!r:.80}")
    return found


def _array_rows(file: Path) -> Iterator[Row]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: not readable as JSON: {error}; fetch the file again") from error
    if not isinstance(found, list) or not all(isinstance(values, dict) for values in found):
        raise UserError(f"{file}: not a list of JSON objects; name a file of rows")
    yield from (Row(file, number, values) for number, values in enumerate(found))


def _parquet_rows(file: Path) -> Iterator[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(file).to_pylist()
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"{file}: not a readable Parquet file: {error}; fetch the file again") from error
    yield from (Row(file, number, values) for number, values in enumerate(rows))
