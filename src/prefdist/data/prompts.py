"""The stage `prompts`: prompts.parquet from a hub dataset or local files."""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.hub import hub_prompts


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Prompts with their splits and, where the dataset has them, references."""
    tables.write_table(out / "prompts.parquet", hub_prompts(spec), tables.PROMPTS)
