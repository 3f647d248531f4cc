"""Are the committed numbers reproduced? The tables of a suite as they are now against those of the last commit."""

import subprocess
import tempfile
from pathlib import Path

from prefdist.errors import UserError
from prefdist.paths import project_root
from prefdist.plan import plan
from prefdist.results.tables import compare
from prefdist.suites import load_suite


def check_results(suite: str) -> int:
    """0 when every interval overlaps the committed one, 1 otherwise, with a sentence on each cell that does not."""
    root = project_root()
    folder = plan(load_suite(suite, root), root).results
    problems = []
    with tempfile.TemporaryDirectory() as temporary:
        for file in sorted((root / folder).glob("*.csv")):
            if file.name == "cost.csv":  # seconds and memory are the machine's
                continue
            shown = subprocess.run(
                ["git", "show", f"HEAD:{folder / file.name}"], cwd=root, capture_output=True, text=True, check=False
            )
            if shown.returncode:
                raise UserError(f"{folder / file.name}: not in the last commit; commit the tables to compare with")
            committed = Path(temporary) / file.name
            committed.write_text(shown.stdout)
            problems += compare(committed, file)
    for problem in problems:
        print(problem)
    print(f"{folder}: {'differs from' if problems else 'reproduces'} the committed tables")
    return int(bool(problems))
