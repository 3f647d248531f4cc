"""The stage `student`: what a student became, on held-out prompts. A row of metrics is one prompt, a mean over what it has.

On its samples: win_rate_start, win_rate_teacher = the known probability that one of its samples beats one of the untrained
student's, or the teacher's (only where preferences are known); length in bytes; longer_than_start = that length over the
untrained student's, less one; unfinished; distinct_2.
On candidates (lists of the untrained student), with its scores s = β·mean log-probability: kendall_tau (tau-b) and
jsd_teacher = JSD of the laws of rankings, against the teacher's reward; prefers_longer = share of pairs of unequal length in
which it prefers the longer; agrees_known = share of pairs in which it prefers the more probable; above_teacher = the same
where the teacher is clearly wrong: it prefers the other, and the known probability is at least `clearly`.
"""

from pathlib import Path
from typing import Any

import torch
from scipy.stats import kendalltau
from torch import Tensor

from prefdist.data import tables
from prefdist.data.selection import held_out
from prefdist.evaluation.baselines import grouped
from prefdist.evaluation.candidates import Candidates, load, margins, mean_where, table
from prefdist.evaluation.diversity import distinct_ngrams
from prefdist.evaluation.held_out import Judge, sample
from prefdist.models import load_frozen
from prefdist.objectives import plackett_luce
from prefdist.scoring.rewards import list_rewards
from prefdist.scoring.sequences import response_logps
from prefdist.tokens import TextCodec

Metrics = dict[str, dict[str, float | None]]
"""prompt_id -> metric -> value."""


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes responses-seed<s>.parquet and metrics.parquet."""
    prompts = held_out(inputs["text"], "test", spec["prompts"])
    candidates = load(inputs, spec["n"], spec["gamma"])
    rewards = list_rewards(inputs.get("scores"), inputs.get("questions"), n=spec["n"], **spec["reward"])
    teacher = table(rewards, candidates.ids, spec["n"])
    judge = Judge.load(inputs["target"]) if "target" in inputs else None
    rows = []
    for seed in spec["seeds"]:
        policy = inputs[f"policy/{seed}"]
        responses = sample(policy, prompts, "held_out", spec)
        tables.write_table(out / f"responses-seed{seed}.parquet", responses, tables.RESPONSES)
        found = _of_samples(responses, inputs["start"])
        if judge is not None:
            _merge(found, _win_rates(judge.scores(prompts, responses), inputs, spec["gamma"]))
        _merge(found, _of_rankings(policy, candidates, teacher, spec))
        rows += [
            {"run": spec["run"], "seed": seed, "prompt_id": name, "metric": metric, "value": value}
            for name, metrics in found.items()
            for metric, value in metrics.items()
        ]
    tables.write_table(out / "metrics.parquet", rows, tables.METRICS)


def _merge(into: Metrics, more: Metrics) -> None:
    for name, metrics in more.items():
        into.setdefault(name, {}).update(metrics)


def _of_samples(responses: list[dict[str, Any]], start: Path) -> Metrics:
    untrained = grouped(tables.read_table(start / "responses.parquet", tables.RESPONSES), "text")
    texts, ids, reasons = (grouped(responses, column) for column in ("text", "token_ids", "finish_reason"))
    found: Metrics = {}
    for name, written in texts.items():
        length, before = _mean_bytes(written), _mean_bytes(untrained[name])
        found[name] = {
            "length": length,
            "longer_than_start": length / before - 1 if before else None,
            "unfinished": sum(reason == "length" for reason in reasons[name]) / len(reasons[name]),
            "distinct_2": distinct_ngrams(ids[name], 2),
        }
    return found


def _mean_bytes(texts: list[str]) -> float:
    return sum(len(text.encode()) for text in texts) / len(texts)


def _win_rates(scores: list[dict[str, Any]], inputs: dict[str, Path], gamma: float) -> Metrics:
    own = grouped(scores, "logp")
    found: Metrics = {name: {} for name in own}
    for metric, role in {"win_rate_start": "start", "win_rate_teacher": "held_out_teacher"}.items():
        others = grouped(tables.read_table(inputs[role] / "oracle.parquet", tables.SCORES), "logp")
        for name, logps in own.items():
            difference = torch.tensor(logps).unsqueeze(1) - torch.tensor(others[name]).unsqueeze(0)
            found[name][metric] = float((gamma * difference.double()).sigmoid().mean())
    return found


def _of_rankings(policy: Path, candidates: Candidates, teacher: Tensor, spec: dict[str, Any]) -> Metrics:
    codec = TextCodec(policy)
    prompts = [codec.prompt(text) for text in candidates.prompts]
    logps = response_logps(load_frozen(policy), prompts, candidates.token_ids, pad_id=codec.pad_id)
    scores = spec["beta"] * torch.stack(logps).double() / candidates.n_tokens
    measured = {
        "kendall_tau": _kendall_tau(scores, teacher),
        "jsd_teacher": plackett_luce.jsd(spec["beta_teacher"] * teacher, scores).tolist(),
    } | _of_pairs(scores, teacher, candidates, spec["clearly"])
    return {name: {metric: values[i] for metric, values in measured.items()} for i, name in enumerate(candidates.ids)}


def _kendall_tau(a: Tensor, b: Tensor) -> list[float | None]:
    """tau-b of each row; None where one side ties throughout."""
    found = [float(kendalltau(x, y).statistic) for x, y in zip(a.numpy(), b.numpy(), strict=True)]
    return [None if value != value else value for value in found]


def _of_pairs(scores: Tensor, teacher: Tensor, candidates: Candidates, clearly: float) -> dict[str, list[float | None]]:
    longer, own = margins(candidates.n_bytes), margins(scores)
    found = {"prefers_longer": mean_where((own * longer > 0).double(), longer != 0)}
    if candidates.oracle is None:
        return found
    known = margins(candidates.oracle)
    right = (own * known > 0).double()
    wrong = (margins(teacher) * known < 0) & (known.abs().sigmoid() >= clearly)
    return found | {"agrees_known": mean_where(right, known != 0), "above_teacher": mean_where(right, wrong)}
