"""Multiple-choice answers of a language model: accuracy, proper scores, calibration, each with its interval.

An answer is the log-probability of each option's letter as the next token; it is renormalised over the options that the
question has, and the mass that the letters held before is a metric of its own: it tells a model that does not follow the
format from one that is unsure. Left out: asking the questions, few-shot prompts, recalibration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp
from scipy.stats import rankdata

from prefdist.evaluation.calibration import (
    FloatArray,
    ReliabilityBins,
    Scheme,
    brier_scores,
    expected_calibration_error,
    reliability_bins,
)
from prefdist.evaluation.resampling import IndexArray, Interval, bootstrap

BINS = (10, 15, 20)
"""Papers differ, and SPL (arXiv 2511.08594) does not say: so three numbers of bins are reported."""


@dataclass(frozen=True)
class Answers:
    """Answers to Q questions of up to K options.

    logps: [Q, K], natural log-probability of each option before renormalising, −inf where a question lacks the option. Of
    probabilities take the logarithm, 0 for an absent option. gold: [Q], index of the right option. question_ids: [Q], each
    once, since questions are what is resampled: several orders of one question are separate `Answers`, or averaged.

    Raises:
        ValueError: shapes do not fit, an id comes twice, a log-probability is NaN or above 0, or a right option is absent.
    """

    logps: FloatArray
    gold: IndexArray
    question_ids: Sequence[str]

    def __post_init__(self) -> None:
        n = len(self.question_ids)
        if self.logps.ndim != 2 or not n or self.logps.shape[0] != n or self.gold.shape != (n,):
            shapes = f"{self.logps.shape}, {self.gold.shape} and {n}"
            raise ValueError(f"logps must be [Q, K], gold [Q] and question_ids [Q] with Q >= 1, got {shapes}")
        if len(set(self.question_ids)) != n:
            raise ValueError("a question id comes twice; evaluate each order of the options apart, or average them first")
        if not (self.logps <= 1e-6).all():
            raise ValueError("log-probabilities must be at most 0, or −inf; are these logits or probabilities?")
        if self.gold.min() < 0 or self.gold.max() >= self.logps.shape[1]:
            raise ValueError(f"gold has indices from {self.gold.min()} to {self.gold.max()}, options are {self.logps.shape[1]}")
        absent = np.flatnonzero(np.isneginf(self.logps[np.arange(n), self.gold]))
        if absent.size:
            raise ValueError(f"the right option of question {self.question_ids[absent[0]]!r} is absent or has probability 0")

    @classmethod
    def of_rows(cls, rows: Sequence[dict[str, Any]]) -> "Answers":
        """Of rows of `data.tables.ANSWERS` of one model, set of questions and seed."""
        logps = np.full((len(rows), max(len(row["logp_options"]) for row in rows)), -np.inf)
        for i, row in enumerate(rows):
            logps[i, : len(row["logp_options"])] = row["logp_options"]
        return cls(logps, np.array([row["gold"] for row in rows]), [row["question_id"] for row in rows])

    @cached_property
    def probabilities(self) -> FloatArray:
        """[Q, K], renormalised over the options: each row sums to 1."""
        return np.exp(self._normalised)

    @cached_property
    def mass(self) -> FloatArray:
        """[Q], probability of all options together before renormalising."""
        return np.exp(logsumexp(self.logps, axis=1))

    @cached_property
    def confidence(self) -> FloatArray:
        """[Q], probability of the answer, the most probable option."""
        return self.probabilities.max(axis=1)

    @cached_property
    def correct(self) -> npt.NDArray[np.bool_]:
        """[Q], whether the answer is right. Of options that tie, the first is the answer, as in lm-evaluation-harness."""
        return self.logps.argmax(axis=1) == self.gold

    @cached_property
    def per_question(self) -> dict[str, FloatArray]:
        """What is measured of each question alone, [Q] each; means over questions are metrics. nll in nats.

        tied is 1 where the most probable options tie, which half-precision logits often do: such answers favour letter A.
        """
        top = self.logps.max(axis=1, keepdims=True)
        return {
            "accuracy": self.correct.astype(np.float64),
            "nll": -self._normalised[np.arange(len(self.gold)), self.gold],
            "brier": brier_scores(self.probabilities, self.gold),
            "confidence": self.confidence,
            "mass": self.mass,
            "tied": ((self.logps == top).sum(axis=1) > 1).astype(np.float64),
        }

    @cached_property
    def _normalised(self) -> FloatArray:
        normalised: FloatArray = log_softmax(self.logps, axis=1)
        return normalised


def metrics(
    answers: Answers | Sequence[Answers],
    *,
    bins: Sequence[int] = BINS,
    resamples: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Every metric of the answers, a number with its interval over questions; all share the resamples.

    Keys: the means of `Answers.per_question`; ece_width_<bins> and ece_mass_<bins>, the calibration error of the answer's
    probability in bins of equal width and of equal mass; auroc, the probability that a right answer has more confidence
    than a wrong one (ties one half), NaN where all answers are right or all are wrong. brier is the multiclass sum, in [0, 2].

    Of several `Answers` to the same questions, one a training seed, each key is the mean over them: a resample takes the same
    questions of all, and the seeds are not resampled, so intervals are of these models and not of new seeds.

    A resample repeats questions, so its calibration error is larger than that of as many new ones: intervals of ece lie too
    high, and the value can be below them.

    Raises:
        ValueError: the seeds have answers to different questions.
    """
    of_seeds = [answers] if isinstance(answers, Answers) else list(answers)
    if any(list(other.question_ids) != list(of_seeds[0].question_ids) for other in of_seeds[1:]):
        raise ValueError("seeds must have answers to the same questions, in the same order")
    schemes: tuple[Scheme, ...] = ("width", "mass")
    names = [*of_seeds[0].per_question, *(f"ece_{scheme}_{number}" for scheme in schemes for number in bins), "auroc"]
    means = [np.stack(list(one.per_question.values()), axis=1) for one in of_seeds]

    def of_seed(one: Answers, per_question: FloatArray, questions: IndexArray) -> FloatArray:
        p, hit = one.confidence[questions], one.correct[questions]
        errors = [expected_calibration_error(p, hit, bins=number, scheme=scheme) for scheme in schemes for number in bins]
        return np.array([*per_question[questions].mean(axis=0), *errors, _auroc(p, hit)])

    def statistic(questions: IndexArray) -> FloatArray:
        of_all = [of_seed(one, per_question, questions) for one, per_question in zip(of_seeds, means, strict=True)]
        return np.asarray(np.mean(of_all, axis=0), dtype=np.float64)

    found = bootstrap(statistic, len(of_seeds[0].gold), resamples=resamples, confidence=confidence, seed=seed)
    ends = zip(names, found.value, found.low, found.high, strict=True)
    return {name: Interval(value, low, high, found.units) for name, value, low, high in ends}


def question_rows(answers: Answers, *, run: str, seed: int) -> list[dict[str, Any]]:
    """Rows of the metrics table (`data.tables.METRICS`), one a question and measurement of `Answers.per_question`."""
    return [
        {"run": run, "seed": seed, "prompt_id": question_id, "metric": metric, "value": float(value)}
        for metric, values in answers.per_question.items()
        for question_id, value in zip(answers.question_ids, values, strict=True)
    ]


def reliability(answers: Answers, *, bins: int = 15, scheme: Scheme = "width") -> ReliabilityBins:
    """Confidence against accuracy, for a reliability diagram."""
    return reliability_bins(answers.confidence, answers.correct, bins=bins, scheme=scheme)


def _auroc(confidence: FloatArray, correct: npt.NDArray[np.bool_]) -> float:
    """By ranks (Mann-Whitney): scikit-learn's roc_auc_score is the same number, too slow for thousands of resamples."""
    right = int(correct.sum())
    wrong = correct.size - right
    if right == 0 or wrong == 0:
        return math.nan
    return float((rankdata(confidence)[correct].sum() - right * (right + 1) / 2) / (right * wrong))
