"""The stage `best_of_n`: which of a policy's answers to problems are right, and what a reward model makes of each.

An answer is what follows `#### ` or else the last number (GSM8K, arithmetic), or what is boxed (MATH); see data/extraction.py.
Left out: curves and intervals, which compare policies problem by problem (results).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from prefdist.behaviour.draws import Row, read_draws
from prefdist.data import tables
from prefdist.data.extraction import boxed_answer, last_number, marked_answer, same_math, same_number
from prefdist.models import load_scorer
from prefdist.scoring.sequences import response_rewards
from prefdist.tokens import TextCodec


def is_right(source: str) -> Callable[[str, str], bool]:
    """Whether a text ends in the answer that a worked solution has: of problems of an arithmetic world, GSM8K or MATH."""
    if source == "math":
        return lambda text, solution: same_math(boxed_answer(text), boxed_answer(solution))
    return lambda text, solution: same_number(marked_answer(text) or last_number(text), marked_answer(solution))


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes outcomes.parquet, split.parquet (of π₀'s other answers, without rewards) and metrics.parquet.

    Metrics: pass_at_1 = share of right answers; length in tokens; unfinished = share that filled its budget.
    """
    rows = tables.read_table(inputs["problems"] / "prompts.parquet", tables.PROMPTS)
    problems = {row["prompt_id"]: row for row in rows}
    right = is_right(spec["source"])
    outcomes, metrics = [], []
    for seed in spec["seeds"]:
        draws = read_draws(inputs[f"draws/{seed}"])
        rewards = _rewards(inputs[f"judge/{seed}"], draws, problems)
        for (prompt_id, answers), of_prompt in zip(draws.items(), rewards, strict=True):
            found = _outcomes(spec["run"], seed, answers, problems[prompt_id]["reference"], right, of_prompt)
            outcomes += found
            values = {
                "pass_at_1": sum(row["correct"] for row in found) / len(found),
                "answer_length": sum(row["n_tokens"] for row in answers) / len(answers),
                "answer_unfinished": sum(row["finish_reason"] == "length" for row in answers) / len(answers),
            }
            key = {"run": spec["run"], "seed": seed, "prompt_id": prompt_id}
            metrics += [{**key, "metric": name, "value": value} for name, value in values.items()]
    split = [
        row
        for prompt_id, answers in read_draws(inputs["split"]).items()
        for row in _outcomes("base", spec["seeds"][0], answers, problems[prompt_id]["reference"], right, None)
    ]
    tables.write_table(out / "outcomes.parquet", outcomes, tables.OUTCOMES)
    tables.write_table(out / "split.parquet", split, tables.OUTCOMES)
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)


def _rewards(scorer: Path, draws: dict[str, list[Row]], problems: dict[str, Row]) -> list[list[float]]:
    """r̂ of each answer."""
    codec = TextCodec(scorer)
    model = load_scorer(scorer, "cuda" if torch.cuda.is_available() else "cpu")
    prompts = [codec.prompt(problems[name]["prompt"]) for name in draws]
    ids = [[row["token_ids"] for row in rows] for rows in draws.values()]
    return [found.tolist() for found in response_rewards(model, prompts, ids, pad_id=codec.pad_id)]


def _outcomes(
    run: str, seed: int, answers: list[Row], solution: str, right: Callable[[str, str], bool], rewards: list[float] | None
) -> list[Row]:
    return [
        {
            "run": run,
            "seed": seed,
            "prompt_id": row["prompt_id"],
            "sample": row["sample"],
            "correct": right(row["text"], solution),
            "reward": None if rewards is None else rewards[i],
        }
        for i, row in enumerate(answers)
    ]
