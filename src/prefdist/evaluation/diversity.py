"""How different the N responses to one prompt are from one another. Each function gives one prompt's value.

On words or tokens: distinct n-grams and their expectation-adjusted form (EAD). On texts: self-BLEU. On embeddings
(embeddings.py): mean cosine distance and the Vendi score. A metric that compares responses is None for one response, and
one that counts n-grams where there is none: such a prompt has no value, neither 0 nor 1.
Left out: means over prompts (tables are made from rows of prompts), and what a judge has to say of diversity.
"""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt
from sacrebleu.metrics import BLEU
from scipy.spatial.distance import pdist
from scipy.special import entr

FloatArray = npt.NDArray[np.float64]
Tokens = Sequence[Hashable]
"""One response as words or as token ids."""

EAD_ORDERS = (1, 2, 3, 4, 5)


def distinct_ngrams(responses: Sequence[Tokens], n: int) -> float | None:
    """Distinct n-grams over all n-grams of the responses together, in (0, 1]; None where there is no n-gram.

    Falls with length whatever the diversity is: read it beside the lengths. Source: Li et al. 2016 (arXiv 1510.03055),
    who divide by the number of words instead of that of n-grams.
    """
    grams = _ngrams(responses, n)
    return len(set(grams)) / len(grams) if grams else None


def expectation_adjusted_distinct(
    responses: Sequence[Tokens], *, vocabulary: int, orders: Sequence[int] = EAD_ORDERS
) -> float | None:
    """EAD of the N responses to one prompt ("per input"): mean over n in `orders` of D/(V·(1 − ((V−1)/V)^C)).

    D distinct and C n-grams of all responses together; the denominator is the expected D if each of the C had been drawn
    uniformly out of V. Higher is more diverse; it can exceed 1, by 2 % where 2000 words all differ and V = 50 257.
    Source: Liu et al. 2022 (arXiv 2202.13587), there for words; the mean over n = 1..5 is that of Kirk et al. 2024
    (arXiv 2310.06452), who count a missing order as 0.

    Args:
        vocabulary: V, one number for all n, though n-grams of n ≥ 2 have a larger space. EAD depends on V, on `orders`
            and on the tokeniser: compare values only where all three are the same, and state them.

    None where the responses have no n-gram of some order: the mean over the other orders is another metric.

    Raises:
        ValueError: no order, or more distinct words than `vocabulary`.
    """
    if not orders:
        raise ValueError("orders is empty; EAD averages over one n or more")
    words = len(set(_ngrams(responses, 1)))
    if words > vocabulary:
        raise ValueError(f"vocabulary is {vocabulary}, and the responses alone have {words} distinct words")
    values = []
    for n in orders:
        grams = _ngrams(responses, n)
        if not grams:
            return None
        expected = vocabulary * (1.0 - ((vocabulary - 1) / vocabulary) ** len(grams))
        values.append(len(set(grams)) / expected)
    return sum(values) / len(values)


def self_bleu(texts: Sequence[str]) -> float | None:
    """Mean over i of BLEU(text i; references = all other texts), 0 to 100; lower is more diverse. None for one text.

    sacreBLEU's sentence BLEU (up to 4-grams, 13a tokens, exponential smoothing, effective order), as named by
    `self_bleu_signature`. A blank text scores 0, but 100 where another one is blank too, as any text does that occurs
    twice; sacreBLEU itself gives 0 there. Depends on N: more references match more. Source: Zhu et al. 2018
    (arXiv 1802.01886), whose Texygen uses other n-grams and smoothing; values do not compare with it.
    """
    if len(texts) < 2:
        return None
    bleu, scores = _bleu(), []
    for i, text in enumerate(texts):
        others = [*texts[:i], *texts[i + 1 :]]
        if text.strip():
            scores.append(bleu.sentence_score(text, others).score)
        else:
            scores.append(0.0 if all(other.strip() for other in others) else 100.0)
    return sum(scores) / len(scores)


def self_bleu_signature(n_texts: int) -> str:
    """sacreBLEU's signature of `self_bleu` over that many texts (2 or more), for reports."""
    bleu = _bleu()
    bleu.sentence_score("", [""] * (n_texts - 1))  # it knows its number of references only once it has scored
    return str(bleu.get_signature())


def mean_cosine_distance(embeddings: npt.ArrayLike) -> float | None:
    """Mean over i < j of 1 − cos(φ_i, φ_j), in [0, 2]; None for one response.

    SPL (arXiv 2511.08594) takes (1/N²) Σ over all i and j, with i = j among them: its value is this times (N−1)/N,
    15/16 for its N = 16.

    Args:
        embeddings: φ [N, d], rows of length 1.

    Raises:
        ValueError: not [N, d] with N ≥ 1, or a row's length is not 1.
    """
    unit = _unit_rows(embeddings)
    if len(unit) < 2:
        return None
    # |a − b|²/2 is 1 − cos for unit vectors, exactly 0 for equal ones and never below.
    return float(pdist(unit, "sqeuclidean").mean()) / 2.0


def vendi_score(embeddings: npt.ArrayLike) -> float:
    """exp(−Σ λ log λ), λ the eigenvalues of K/N and K the cosine similarities: the effective number of responses.

    From 1 (all alike) to N (all orthogonal); 1 for one response. Source: Friedman & Dieng 2022 (arXiv 2210.02410),
    order q = 1. Depends on the kernel: name the embedder. Arguments and errors: `mean_cosine_distance`.
    """
    unit = _unit_rows(embeddings)
    eigenvalues = np.linalg.eigvalsh(unit @ unit.T / len(unit))
    return float(np.exp(entr(eigenvalues.clip(min=0.0)).sum()))  # rounding makes zeros slightly negative


def _ngrams(responses: Sequence[Tokens], n: int) -> list[tuple[Hashable, ...]]:
    """All n-grams; none spans two responses."""
    return [tuple(y[i : i + n]) for y in responses for i in range(len(y) - n + 1)]


def _bleu() -> BLEU:
    """What `sacrebleu.sentence_bleu` uses."""
    return BLEU(effective_order=True)


def _unit_rows(embeddings: npt.ArrayLike) -> FloatArray:
    """In float64 and of length 1 to its rounding; embedders compute in float32 or less."""
    rows = np.asarray(embeddings, dtype=np.float64)
    if rows.ndim != 2 or len(rows) == 0:
        raise ValueError(f"embeddings must be [N, d] with N >= 1, got {rows.shape}")
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.allclose(lengths, 1.0, atol=1e-2):
        raise ValueError(f"embeddings must be unit vectors; row {int(np.abs(lengths - 1.0).argmax())} is not")
    unit: FloatArray = rows / lengths
    return unit
