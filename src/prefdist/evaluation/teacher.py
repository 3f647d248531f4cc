"""The stage `teacher`: how far a teacher's preferences can be trusted, before and after its calibration.

One run of metrics a reward: likelihood alone, each kind of question alone (orders averaged, and its first order), and the
calibrated reward. A pair's probability is σ(β·(r̂_i − r̂_j)). Metrics of a prompt: entropy = that of the law of rankings over
ln n! (1 is flat, PAD's sign of failure); with known preferences also accuracy_known, kl_known = KL(known ‖ teacher) and brier,
of labels drawn from the known probabilities. questions.json: position bias and the mass on None, of each kind of question.
answers.parquet, of a teacher that was trained on questions: how often it picks the right reference (answers.py).
"""

import json
import math
from pathlib import Path
from typing import Any

from torch import Tensor

from prefdist.data import tables
from prefdist.evaluation.answers import reference_answers
from prefdist.evaluation.candidates import Candidates, load, margins, table
from prefdist.objectives import bradley_terry, plackett_luce
from prefdist.sampling.engine import uniforms
from prefdist.scoring.rewards import list_rewards, position_bias


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet, pairs.parquet (a row a pair and reward) and questions.json."""
    candidates = load(inputs, spec["n"], spec["gamma"])
    metrics, pairs, bias = [], [], {}
    for name, reward in _rewards(spec, inputs).items():
        scores = spec["beta_teacher"] * table(reward, candidates.ids, spec["n"])
        measured = {"entropy": plackett_luce.entropy(scores) / math.lgamma(spec["n"] + 1)}
        if candidates.oracle is not None:
            known, p_model = margins(candidates.oracle), margins(scores).sigmoid()
            label = _labels(known)
            pairs += _pair_rows(name, candidates, p_model, known.sigmoid(), label)
            measured |= {
                "accuracy_known": ((margins(scores) * known > 0).double()).mean(-1),
                "kl_known": bradley_terry.kl(known, margins(scores)).mean(-1),
                "brier": (p_model - label).square().mean(-1),
            }
        metrics += [
            {"run": name, "seed": 0, "prompt_id": prompt_id, "metric": metric, "value": float(values[i])}
            for metric, values in measured.items()
            for i, prompt_id in enumerate(candidates.ids)
        ]
    for role, folder in inputs.items():
        if role.startswith("questions/"):
            bias[role.removeprefix("questions/")] = position_bias(
                tables.read_table(folder / "questions.parquet", tables.QUESTIONS)
            )
    answers = reference_answers(inputs["text"], inputs["trained"], spec["template"]) if "trained" in inputs else []
    tables.write_table(out / "answers.parquet", answers, tables.METRICS)
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    tables.write_table(out / "pairs.parquet", pairs, tables.TEACHER_PAIRS)
    (out / "questions.json").write_text(json.dumps(bias, indent=1))


def _rewards(spec: dict[str, Any], inputs: dict[str, Path]) -> dict[str, dict[str, list[float]]]:
    """Reward by prompt, of every way to read the teacher."""
    n, chosen = spec["n"], spec["reward"]
    found = {"likelihood": list_rewards(inputs["scores"], None, n=n, **{**chosen, "alpha": 0.0})}
    for role, folder in inputs.items():
        if role.startswith("questions/"):
            for orders in ("fixed", "averaged"):
                alone = {**chosen, "alpha": 1.0, "orders": orders}
                found[f"{role.removeprefix('questions/')}, {orders}"] = list_rewards(None, folder, n=n, **alone)
    if "questions" in inputs:
        found["calibrated"] = list_rewards(inputs["scores"], inputs["questions"], n=n, **chosen)
    return found


def _labels(known: Tensor) -> Tensor:
    """One draw of each pair's known preference: 1 where the first wins."""
    return (uniforms("teacher/labels", known.shape[0], known.shape[1]) < known.sigmoid()).double()


def _pair_rows(name: str, of: Candidates, p_model: Tensor, p_known: Tensor, label: Tensor) -> list[dict[str, Any]]:
    return [
        {
            "reward": name,
            "prompt_id": prompt_id,
            "pair": pair,
            "p_model": float(p_model[i, pair]),
            "p_known": float(p_known[i, pair]),
            "first_wins": bool(label[i, pair]),
        }
        for i, prompt_id in enumerate(of.ids)
        for pair in range(p_model.shape[1])
    ]
