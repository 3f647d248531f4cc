"""The exact suite's last stage: the files of all studies side by side, and every claim with its verdict in one table."""

import csv
import shutil
from pathlib import Path
from typing import Any

from prefdist.exact.study import CLAIMS, Row, write_csv, write_markdown

_SUFFIXES = {".csv", ".md", ".svg", ".png"}


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """`inputs` are the studies' folders by their names; writes their files, and claims.csv and claims.md."""
    claims: list[Row] = []
    for study, folder in inputs.items():
        for file in sorted(folder.iterdir()):
            if file.suffix in _SUFFIXES and file.stem != CLAIMS:
                shutil.copyfile(file, out / file.name)
        with (folder / f"{CLAIMS}.csv").open(newline="") as handle:
            claims += [{"study": study, **row} for row in csv.DictReader(handle)]
    write_csv(claims, out / f"{CLAIMS}.csv")
    write_markdown(claims, out / f"{CLAIMS}.md")
