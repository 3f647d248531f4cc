"""The length-controlled win rate of AlpacaEval 2 (Dubois et al. 2024, arXiv 2404.04475): what if both answers were as long?

A logistic regression explains a judge's soft preferences of one model, and is asked again at no difference in length:

    P(model wins) = σ( w₁·tanh(Δ/sd(Δ)) + w₂·difficulty + w₃·own ),      Δ = len(baseline) − len(model), in characters

`difficulty` of an instruction comes from a joint fit of many models; `own` is 1 of the model and 0 of the rows that two gamed
versions of the baseline add (weight 0.2/2 each), which pull w₁ and w₂ towards the baseline's. Both come with AlpacaEval in one
file, df_gamed.csv. L1 penalty, no intercept; its strength among ten of 10⁻⁴ … 10⁴ by five-fold cross-validation of the log
loss, an instruction in one fold. Source: tatsu-lab/alpaca_eval, metrics/glm_winrate.py, `length_controlled_v1`.

Without that file the model is σ(w₁·tanh(Δ/sd(Δ)) + w₃), which is another number: it is never called by the same name.
Left out: the joint fit of difficulties, predicted win rates between two models.
"""

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold

from prefdist.errors import UserError

FloatArray = npt.NDArray[np.float64]

STRENGTHS = np.logspace(-4, 4, 10)
"""C of the regression: the inverse of the penalty's weight."""
FOLDS = 5
SEED = 123
"""Of liblinear's order of coordinates: strengths that are alike to its tolerance are told apart by it."""
GAMED_WEIGHT = 0.2 / 2
_COLUMNS = ("index", "preference", "std_delta_len", "instruction_difficulty")


@dataclass(frozen=True)
class Gamed:
    """AlpacaEval's rows of gamed baselines: preference in [0, 1] [m], Δ/sd(Δ) [m], difficulty [m], and that of each "
    "instruction."""

    preference: FloatArray
    delta: FloatArray
    difficulty: FloatArray
    of_instruction: dict[int, float]


@dataclass(frozen=True)
class LengthControlled:
    """win_rate in percent; preferences [n] in [0, 1], predicted at equal lengths; weights w₁, w₂ (None without a file), w₃."""

    win_rate: float
    preferences: FloatArray
    length: float
    difficulty: float | None
    constant: float


def read_gamed(file: Path) -> Gamed:
    """df_gamed.csv of AlpacaEval's dataset. UserError if columns or numbers are not there."""
    if not file.is_file():
        raise UserError(f"{file}: no such file; it is part of the dataset tatsu-lab/alpaca_eval")
    with file.open(newline="", encoding="utf-8") as lines:
        reader = csv.DictReader(lines)
        if not set(_COLUMNS) <= set(reader.fieldnames or ()):
            raise UserError(f"{file}: its columns are {', '.join(reader.fieldnames or ())}; {', '.join(_COLUMNS)} are needed")
        try:
            rows = [[float(row[name] or "nan") for name in _COLUMNS] for row in reader]
        except ValueError as error:
            raise UserError(f"{file}: a value is no number: {error}; fetch the file again") from error
    values = np.array(rows).reshape(-1, len(_COLUMNS))
    known: dict[int, float] = {}
    for index, _, _, difficulty in rows:
        known.setdefault(int(index), difficulty)
    kept = values[~np.isnan(values[:, 1])]
    return Gamed(kept[:, 1], kept[:, 2], kept[:, 3], known)


def length_controlled(
    preferences: Sequence[float | None],
    length_baseline: Sequence[float],
    length_answer: Sequence[float],
    *,
    instructions: Sequence[int] | None = None,
    gamed: Gamed | None = None,
) -> LengthControlled:
    """Fit the regression to one model's judgements, one a row, and predict every row at no difference in length.

    Args:
        preferences: [n] in AlpacaEval's coding (1 baseline, 2 model, 0 a draw); None or NaN is left out of the fit, not of the
            prediction.
        length_baseline, length_answer: [n] characters.
        instructions: [n] numbers of the instructions in AlpacaEval's set, needed with `gamed`.

    Raises:
        UserError: fewer than FOLDS preferences, lengths without any variation, or an instruction that `gamed` does not know.
        ValueError: arguments differ in length, or instructions and gamed do not go together.
    """
    if (instructions is None) != (gamed is None):
        raise ValueError("instructions and gamed go together")
    wanted = np.array([math.nan if p is None else p for p in preferences], dtype=np.float64)
    wanted = np.where(wanted == 0.0, 1.5, wanted) - 1.0
    difference = np.array(length_baseline, dtype=np.float64) - np.array(length_answer, dtype=np.float64)
    if wanted.shape != difference.shape or (instructions is not None and len(instructions) != len(wanted)):
        raise ValueError("one preference, two lengths and one instruction a row")
    present = ~np.isnan(wanted)
    if present.sum() < FOLDS:
        raise UserError(f"a length-controlled win rate needs {FOLDS} preferences or more, found {present.sum()}")
    spread = difference.std(ddof=1)
    if spread == 0.0:
        raise UserError(
            "a length-controlled win rate needs lengths that differ; all answers differ by the same number of characters"
        )
    features = np.column_stack([np.tanh(difference / spread), np.ones(len(wanted))])
    targets, weights = wanted[present], np.ones(int(present.sum()))
    if gamed is not None and instructions is not None:
        features = np.column_stack([features[:, 0], _difficulties(gamed, instructions), features[:, 1]])
        extra = np.column_stack([np.tanh(gamed.delta), gamed.difficulty, np.zeros(len(gamed.delta))])
        rows = np.vstack([extra, features[present]])
        targets = np.concatenate([gamed.preference, targets])
        weights = np.concatenate([np.full(len(extra), GAMED_WEIGHT), weights])
    else:
        rows = features[present]
    found = fit(rows, targets, weights)
    equal = features.copy()
    equal[:, 0] = 0.0
    predicted: FloatArray = 1.0 / (1.0 + np.exp(-equal @ found))
    difficulty = float(found[1]) if gamed is not None else None
    return LengthControlled(100.0 * float(predicted.mean()), predicted, float(found[0]), difficulty, float(found[-1]))


def _difficulties(gamed: Gamed, instructions: Sequence[int]) -> FloatArray:
    unknown = [index for index in instructions if index not in gamed.of_instruction]
    if unknown:
        raise UserError(f"AlpacaEval's file has no difficulty of instruction {unknown[0]} (and {len(unknown) - 1} more)")
    return np.array([gamed.of_instruction[index] for index in instructions])


def fit(features: FloatArray, targets: FloatArray, weights: FloatArray) -> FloatArray:
    """Weights [k] of a logistic regression with soft targets [n] in [0, 1] and weights [n] of the rows, features [n, k].

    L1 penalty, no intercept, its strength by cross-validation, as above.
    """
    groups = np.arange(len(targets))
    losses = np.zeros(len(STRENGTHS))
    for train, test in GroupKFold(FOLDS).split(np.concatenate([features, features]), groups=np.concatenate([groups, groups])):
        train, test = (np.unique(part % len(targets)) for part in (train, test))
        rng = np.random.RandomState(SEED)  # one for all strengths of a fold, as in scikit-learn's LogisticRegressionCV
        for k, strength in enumerate(STRENGTHS):
            found = _fit(features[train], targets[train], weights[train], strength, rng)
            losses[k] += np.mean(weights[test] * _log_loss(targets[test], features[test] @ found))
    return _fit(features, targets, weights, float(STRENGTHS[int(losses.argmin())]), np.random.RandomState(SEED))


def _fit(
    features: FloatArray, targets: FloatArray, weights: FloatArray, strength: float, rng: np.random.RandomState
) -> FloatArray:
    """Each row stands twice, as a win and as a loss, weighted by its target: so a soft target enters a regression of labels."""
    labels = np.concatenate([np.ones(len(targets)), np.zeros(len(targets))])
    model = LogisticRegression(C=strength, l1_ratio=1.0, solver="liblinear", fit_intercept=False, random_state=rng)
    doubled = np.concatenate([targets * weights, (1.0 - targets) * weights])
    model.fit(np.concatenate([features, features]), labels, sample_weight=doubled)
    found: FloatArray = model.coef_[0]
    return found


def _log_loss(targets: FloatArray, logits: FloatArray) -> FloatArray:
    """[n] cross-entropies in nats: −t·log σ(z) − (1 − t)·log σ(−z)."""
    loss: FloatArray = np.logaddexp(0.0, -logits) + (1.0 - targets) * logits
    return loss
