"""A classifier two-sample test: can a classifier tell two models' responses apart? (Lopez-Paz & Oquab 2016, arXiv 1610.06545)

Logistic regression on counts of token n-grams, tested on prompts that it was not trained on. An accuracy of ½ means that these
features do not tell them apart; a classifier of texts might. Left out: neural classifiers, and features of the prompt.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MaxAbsScaler

from prefdist.evaluation.bootstrap import Estimate, paired_bootstrap

Responses = Sequence[Sequence[Sequence[int]]]
"""Token ids of each prompt's responses."""


@dataclass(frozen=True)
class NGrams:
    """All n-grams of 1 to `longest` tokens, as words: the analyser of a CountVectorizer."""

    longest: int

    def __call__(self, ids: Sequence[int]) -> Iterator[str]:
        for n in range(1, self.longest + 1):
            for start in range(len(ids) - n + 1):
                yield " ".join(map(str, ids[start : start + n]))


def classifier_test(
    first: Responses, second: Responses, *, longest_ngram: int = 2, folds: int = 5, seed: int = 0, confidence: float = 0.95
) -> Estimate:
    """Balanced accuracy of telling `first` from `second`, cross-validated, with a bootstrap interval over prompts.

    Args:
        first, second: samples of two models on the same prompts, in one order; at least one of each a prompt. End tokens count
            as any other: leave them out of both if only one model can have them.
        longest_ngram: features are counts of n-grams of 1 to this many tokens.
        folds: of the prompts; all responses to a prompt are in one fold, so that what a prompt suggests is not learnt.
        seed: of the folds and the bootstrap.
        confidence: of the interval, which is over prompts; it does not know that folds share training data.

    A prompt's value is the mean of its accuracies on either side, so that unequal numbers of samples keep ½ as chance. Features
    are scaled to [0, 1] and penalised as by default in scikit-learn (C = 1).

    Raises:
        ValueError: other numbers of prompts, fewer prompts than folds, or a prompt without a response on one side.
    """
    if len(first) != len(second):
        raise ValueError(f"samples of {len(first)} prompts cannot be told from samples of {len(second)} others")
    if not 2 <= folds <= len(first):
        raise ValueError(f"folds must be 2 to the number of prompts, {len(first)}; got {folds}")
    for i, (of_first, of_second) in enumerate(zip(first, second, strict=True)):
        if not (len(of_first) and len(of_second)):
            raise ValueError(f"prompt {i} has no response on one side: leave it out")
    cells = [(i, side, y) for side, groups in enumerate((first, second)) for i, ys in enumerate(groups) for y in ys]
    prompts, sides = (np.array(column) for column in zip(*((i, side) for i, side, _ in cells), strict=True))
    classifier = make_pipeline(
        CountVectorizer(analyzer=NGrams(longest_ngram)),
        MaxAbsScaler(),
        LogisticRegression(class_weight="balanced", max_iter=1000),
    )
    by_prompt = GroupKFold(folds, shuffle=True, random_state=seed)
    predicted = cross_val_predict(classifier, [y for *_, y in cells], sides, groups=prompts, cv=by_prompt)
    right = predicted == sides
    values = [np.mean([right[(prompts == i) & (sides == side)].mean() for side in (0, 1)]) for i in range(len(first))]
    return paired_bootstrap(np.array([values]), confidence=confidence, seed=seed)
