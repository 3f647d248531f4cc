"""The stage `problems`: GSM8K's or MATH's problems as rows of the prompts table; the reference is the worked solution.

Left out: the problems of an arithmetic world, whose text is such a table already.
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.word_problems import WordProblem, read_gsm8k, read_math, without_annotations


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes prompts.parquet, all rows of split test; `module` is source and level."""
    read = {"gsm8k": read_gsm8k, "math": read_math}[spec["source"]]
    rows = [_row(spec["source"], problem) for problem in read(inputs["dataset"] / spec["path"], spec["split"])]
    tables.write_table(out / "prompts.parquet", rows, tables.PROMPTS)


def _row(source: str, problem: WordProblem) -> dict[str, str]:
    level = "" if problem.level is None else f" {problem.level}"
    return {
        "prompt_id": problem.problem_id,
        "module": f"{source}{level}",
        "split": "test",
        "prompt": problem.prompt,
        "reference": without_annotations(problem.solution),
    }
