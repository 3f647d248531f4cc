"""A teacher's examples: references, and multiple-choice questions about which reference belongs to a prompt.

The wrong options are references of nearby functions of the same module, or of any; in some questions the right one is
missing and the answer is None. Left out: questions put to a trained teacher (scoring/mcq.py).
"""

from pathlib import Path
from typing import Any

import numpy as np

from prefdist.data import tables
from prefdist.scoring.questions import LETTERS, NONE, question_text
from prefdist.tokens import TextCodec
from prefdist.training import examples
from prefdist.training.batch import Batch

NEARBY = 8
"""Functions before and after the one in question, in the order of the module, whose references are wrong options."""


def build(data: dict[str, Any], inputs: dict[str, Path], codec: TextCodec, seed: int) -> Batch:
    """References of a fraction of the training prompts, and `repeats` questions about each of these."""
    references = examples.references(inputs["text"], codec, noise=0.0, fraction=data["fraction"], seed=seed)
    rows = [row for row in tables.read_table(inputs["text"] / "prompts.parquet", tables.PROMPTS) if row["split"] == "train"]
    kept = set(references.ids)
    generator = np.random.default_rng([seed, len(rows)])
    ids, prompts, answers = [], [], []
    for repeat in range(data["repeats"]):
        for i, row in enumerate(rows):
            if row["prompt_id"] in kept:
                text, answer = _question(rows, i, data, generator)
                ids.append(f"{row['prompt_id']}/question{repeat}")
                prompts.append(codec.prompt(text))
                answers.append([codec.response(answer)])
    return Batch(references.ids + ids, references.prompts + prompts, references.responses + answers)


def _question(rows: list[dict[str, Any]], i: int, data: dict[str, Any], generator: np.random.Generator) -> tuple[str, str]:
    """The text of a question about row i, and its answer: a letter or None."""
    right = rows[i]["reference"]
    n = int(generator.integers(2, data["max_options"] + 1))
    with_right = generator.random() >= data["none_share"]
    nearby = generator.random() < data["nearby"]
    options = _others(rows, i, nearby, generator)[: n - with_right] + [right] * with_right
    options = [options[k] for k in generator.permutation(len(options))]
    answer = LETTERS[options.index(right)] if with_right else NONE
    return question_text(data["template"], rows[i]["prompt"], options), answer


def _others(rows: list[dict[str, Any]], i: int, nearby: bool, generator: np.random.Generator) -> list[str]:
    """Other references in random order; with `nearby` those of nearby functions first, as far as there are any."""
    near = [row for row in rows[max(0, i - NEARBY) : i + NEARBY + 1] if row["module"] == rows[i]["module"]] if nearby else []
    far = [rows[k] for k in generator.integers(len(rows), size=4 * NEARBY)]
    shuffled = [near[k] for k in generator.permutation(len(near))] + far
    return [text for text in dict.fromkeys(row["reference"] for row in shuffled) if text != rows[i]["reference"]]
