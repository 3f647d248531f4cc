"""A diverse choice of texts."""

from collections.abc import Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist


def max_min_subset(texts: Sequence[str], size: int) -> list[int]:
    """Indices [size] of texts far apart in edit distance: text 0, then always the one whose nearest chosen text is farthest.

    Ties go to the lowest index, so the first k of the answer are the answer for size k. This greedy choice is that of
    PAD's code (EganGu/PAD). ValueError if there are fewer texts.
    """
    if not 0 < size <= len(texts):
        raise ValueError(f"size is {size}, but there are {len(texts)} texts")
    chosen = [0]
    nearest = np.full(len(texts), np.iinfo(np.int32).max)
    while len(chosen) < size:
        latest = chosen[-1]
        nearest = np.minimum(nearest, cdist([texts[latest]], texts, scorer=Levenshtein.distance, dtype=np.int32)[0])
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen
