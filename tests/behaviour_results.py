"""Made-up measures of behaviour, whose values other ways can tell, and the results that the stage makes of them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefdist import artefacts
from prefdist.data import tables
from prefdist.evaluation.multiple_choice import Answers, question_rows
from prefdist.results import behaviour, calibration
from prefdist.results.metrics_behaviour import DIVERSITY, REPEATS, SHIFT
from prefdist.results.tables import Cell, read_csv

RESAMPLES = 20
"""Of the intervals of calibration errors; no test reads them."""
SEEDS = (0, 1)
POLICIES = ("base", "dpo", "spl", "dpo_hot")
MODELS = POLICIES[:3]
SPEC: dict[str, Any] = {
    "suite": "made",
    "seeds": list(SEEDS),
    "measured": {
        "diversity": list(POLICIES),
        "shift": list(MODELS),
        "repeats": ["dpo", "dpo_hot"],
        "calibration": list(MODELS),
        "best_of_n": list(MODELS),
        "tax": list(MODELS),
        "benchmarks": list(MODELS),
    },
    "families": {"base": "π₀", "dpo": "DPO", "spl": "SPL", "dpo_hot": "temperature"},
    "sweeps": [["dpo", "dpo_hot"]],
    "bins": 4,
    "easy": 1,
    "medium": 2,
}
PROMPTS, QUESTIONS, PROBLEMS, ANSWERS = 6, 12, 5, 4
Row = dict[str, Any]


def value(run: str, seed: int, prompt: int, name: str) -> float:
    """Of a prompt and seed, the same for all runs, plus 0.01 for each place of the run in POLICIES."""
    noise = np.random.default_rng([seed, prompt, len(name)]).normal(0.5, 0.1)
    return float(noise + 0.01 * POLICIES.index(run))


def rows(run: str, names: list[str], prompts: int = PROMPTS) -> list[Row]:
    return [
        {"run": run, "seed": seed, "prompt_id": f"p{p}", "metric": name, "value": value(run, seed, p, name)}
        for name, seed, p in itertools.product(names, SEEDS, range(prompts))
    ]


def answers(run: str) -> list[Row]:
    found = []
    for seed, q in itertools.product(SEEDS, range(QUESTIONS)):
        rng = np.random.default_rng([POLICIES.index(run), seed, q])
        logps = np.log(0.9 * rng.dirichlet(np.ones(3)))
        key = {"run": run, "choices": "made", "seed": seed, "question_id": f"q{q}"}
        found.append({**key, "gold": int(rng.integers(3)), "logp_options": logps.tolist()})
    return found


def outcomes(run: str, seeds: tuple[int, ...] = SEEDS, *, rewarded: bool = True) -> list[Row]:
    """π₀ is right by chance, `dpo` more often, `spl` always; two answers to a problem share a reward."""
    found = []
    for seed, p, sample in itertools.product(seeds, range(PROBLEMS), range(ANSWERS)):
        rng = np.random.default_rng([7, POLICIES.index(run), seed, p, sample])
        correct = bool(rng.random() < {"base": 0.25, "dpo": 0.5, "spl": 1.1}[run])
        reward = float(rng.integers(3)) if rewarded else None
        key = {"run": run, "seed": seed, "prompt_id": f"problem{p}", "sample": sample}
        found.append({**key, "correct": correct, "reward": reward})
    return found


def write_measure(out: Path, measure: str, run: str) -> None:
    """What the stage of a measure leaves."""
    if measure == "calibration":
        of_run = answers(run)
        tables.write_table(out / "answers.parquet", of_run, tables.ANSWERS)
        metric_rows = [
            {**row, "metric": f"made/{row['metric']}"}
            for seed in SEEDS
            for row in question_rows(Answers.of_rows([r for r in of_run if r["seed"] == seed]), run=run, seed=seed)
        ]
    elif measure == "best_of_n":
        tables.write_table(out / "outcomes.parquet", outcomes(run), tables.OUTCOMES)
        tables.write_table(out / "split.parquet", outcomes("base", (9,), rewarded=False), tables.OUTCOMES)
        metric_rows = rows(run, ["pass_at_1", "answer_length", "answer_unfinished"])
    elif measure == "repeats":
        contexts = itertools.product(("repeats", "random", "text"), (0, 4))
        names = [f"{spec.key}/{filling}/{k}" for filling, k in contexts for spec in REPEATS[:2]]
        metric_rows = rows(run, names)
        fit = {"accuracy": 0.75, "accuracy_low": 0.5, "accuracy_high": 0.875, "lambda_low": None, "lambda_high": None}
        cells = [
            {"seed": seed, "filling": filling, "k": k, **fit, "lambda": None if run == "dpo_hot" else 0.25}
            for seed, filling, k in itertools.product(SEEDS, ("repeats", "random", "text"), (0, 4))
        ]
        (out / "fits.json").write_text(json.dumps(cells))
    elif measure == "shift":
        metric_rows = rows(run, [spec.key for spec in SHIFT if run != "base" or spec.key != "tpm_reward_tilted"])
        rejected = {"n": 8, "n_not_finite": 0, "minimum": -70.5, "quantiles": {"0.5": -60.25}}
        found: list[Row] = [{"seed": seed, "reward": "none", "rejected": rejected} for seed in SEEDS]
        if run != "base":
            slope = {"prompts": 16, "value": 0.5, "low": 0.25, "high": 0.75, "r_squared": 0.125}
            found += [{"seed": seed, "reward": who, **slope} for seed in SEEDS for who in ("own", "judge", "known")]
        (out / "slopes.json").write_text(json.dumps(found))
    else:
        diversity = [spec.key for spec in DIVERSITY]
        every = {"diversity": diversity, "tax": ["text_nll"], "benchmarks": ["arc_easy/acc,none"]}
        metric_rows = rows(run, every[measure])
        (out / "tasks.json").write_text('[{"seed": 0, "versions": {"arc_easy": 1.0}}]')
    tables.write_table(out / "metrics.parquet", metric_rows, tables.METRICS)


def made(folder: Path, stage: str, write: Callable[[Path], object], **identity: Any) -> Path:
    """An artefact below the current folder, where manifests name it."""
    key = {"stage": stage, "name": folder.name, "digest": "d", "code": "c", "spec": {}, **identity}
    artefacts.make(folder, identity=key, inputs=identity.get("inputs", {}), run=write)
    return folder


def write_inputs(root: Path) -> dict[str, Path]:
    """All that the stage takes, as artefacts below `root`."""
    found = {"text": made(root / "text" / "made", "text", lambda out: (out / "card.md").write_text("# Card\n"))}
    for measure, runs in SPEC["measured"].items():
        for run in runs:
            folder = root / measure / run
            found[f"{measure}/{run}"] = made(folder, measure, lambda out, m=measure, r=run: write_measure(out, m, r))  # type: ignore[misc]
    for run, seed in itertools.product(("dpo", "spl"), SEEDS):

        def trained(out: Path) -> None:
            (out / "log.jsonl").write_text('{"tokens": 10}\n{"tokens": 14}\n')
            (out / "timings.json").write_text("[1.5, 2]")

        found[f"policy/{run}/{seed}"] = made(root / "train" / f"{run}-seed{seed}", "train", trained)
    return found


def write_results(inputs: dict[str, Path], checkout: Path) -> Path:
    """The folder that the stage makes of them in a checkout, with its provenance; its slow statistic has few resamples."""
    folder = checkout / "results" / "made" / "v1"
    folder.parent.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibration, "RESAMPLES", RESAMPLES)
        return made(folder, "spl_results", lambda out: behaviour.run(SPEC, inputs, out, out), spec=SPEC)


def cell(folder: Path, run: str, metric: str, table: str = "table") -> Cell:
    (found,) = (c for c in read_csv(folder / f"{table}.csv") if (c["run"], c["metric"]) == (run, metric))
    return found
