"""How different the responses to one prompt are from one another."""

from collections.abc import Sequence


def distinct_ngrams(responses: Sequence[Sequence[int]], n: int) -> float | None:
    """Distinct n-grams over all n-grams of the responses together, in (0, 1]; None where there is no n-gram.

    Falls with length whatever the diversity is: read it beside the lengths.
    """
    grams = [tuple(y[i : i + n]) for y in responses for i in range(len(y) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None
