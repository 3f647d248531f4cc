"""The stage `calibration`: how probable a policy finds each option of multiple-choice questions (SPL, section 4.3).

An option's probability is that of its letter as the next token, with or without a space before it, as in scoring/mcq.py.
Left out: what the probabilities are worth together (results), the questions (data/choices.py).
"""

from pathlib import Path
from typing import Any

from prefdist.data import tables
from prefdist.evaluation.multiple_choice import Answers, question_rows
from prefdist.models import load_frozen
from prefdist.scoring.questions import letter_ids
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec

Row = dict[str, Any]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes answers.parquet, and metrics.parquet: a row a seed, question and metric, named <choices>/<metric>."""
    answers, metrics = [], []
    for seed in spec["seeds"]:
        codec, model = TextCodec(inputs[f"policy/{seed}"]), load_frozen(inputs[f"policy/{seed}"])
        for name in spec["choices"]:
            questions = tables.read_table(inputs[f"choices/{name}"] / "choices.parquet", tables.CHOICES)
            key = {"run": spec["run"], "choices": name, "seed": seed}
            found = [{**key, **row} for row in ask(model, codec, questions)]
            answers += found
            metrics += [
                {**row, "metric": f"{name}/{row['metric']}"}
                for row in question_rows(Answers.of_rows(found), run=spec["run"], seed=seed)
            ]
    tables.write_table(out / "answers.parquet", answers, tables.ANSWERS)
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


def ask(model: Any, codec: TextCodec, questions: list[Row]) -> list[Row]:
    """Rows of ANSWERS without what names the model. UserError if a letter is not one token of the tokenizer."""
    letters = letter_ids(codec, max(question["options"] for question in questions))
    # Each token is a response of its own, so that one pass over a question gives all of them.
    tokens = [[[i] for ids in letters[: question["options"]] for i in ids] for question in questions]
    logps = response_logps(model, [codec.prompt(q["prompt"]) for q in questions], tokens, pad_id=codec.pad_id)
    rows = []
    for question, of_tokens in zip(questions, logps, strict=True):
        parts = of_tokens.double().split([len(ids) for ids in letters[: question["options"]]])
        of_letters = [float(part.logsumexp(0)) for part in parts]
        rows.append({"question_id": question["question_id"], "gold": question["gold"], "logp_options": of_letters})
    return rows
