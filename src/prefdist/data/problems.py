"""The stage `problems`: GSM8K's or MATH's problems as rows of the prompts table; the reference is the worked solution.

An instruction may stand behind each problem, after an empty line: where a model is to put its answer, say. Left out: the
problems of an arithmetic world, whose text is such a table already.
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.data.word_problems import WordProblem, read_gsm8k, read_math, without_annotations


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes prompts.parquet, all rows of split test; `module` is source and level."""
    read = {"gsm8k": read_gsm8k, "math": read_math}[spec["source"]]
    rows = [_row(spec, problem) for problem in read(inputs["dataset"] / spec["path"], spec["split"])]
    tables.write_table(out / "prompts.parquet", rows, tables.PROMPTS)


def _row(spec: dict[str, Any], problem: WordProblem) -> dict[str, str]:
    level = "" if problem.level is None else f" {problem.level}"
    parts = [problem.prompt, *([spec["instruction"]] if spec["instruction"] else [])]
    return {
        "prompt_id": problem.problem_id,
        "module": f"{spec['source']}{level}",
        "split": "test",
        "prompt": "\n\n".join(parts),
        "reference": without_annotations(problem.solution),
    }
