"""Estimates of divergences between Plackett-Luce laws, and the law of the best response alone."""

import itertools
import math

import pytest
import torch
from test_plackett_luce import EXACT, SCALES, brute_log_probs, divergences, drawn, pairs
from torch import Tensor

from prefdist.objectives import first_choice, plackett_luce
from prefdist.objectives.plackett_luce_estimators import jsd_estimates, kl_estimates

# ---- estimates -------------------------------------------------------------------------------------------------------

KL_METHODS = ("naive", "stepwise")
JSD_METHODS = ("naive", "mixture", "stepwise", "stepwise_mixture")


def estimates(n: int, scale: float, draws: int = 20_000) -> tuple[dict[str, Tensor], dict[str, Tensor], Tensor, Tensor]:
    """KL and JSD estimates of two pairs of laws, by method, [2, draws], and the scores."""
    p, q = scale * drawn(2, n, seed=11), scale * drawn(2, n, seed=12)
    generator = torch.Generator().manual_seed(0)
    of_p, of_q = (plackett_luce.sample(scores, draws, generator) for scores in (p, q))
    kl = {method: kl_estimates(p, q, of_p, method) for method in KL_METHODS}
    jsd = {method: jsd_estimates(p, q, of_p, of_q, method) for method in JSD_METHODS}
    return kl, jsd, p, q


@pytest.mark.parametrize(("n", "scale"), [(2, 1.0), (4, 0.1), (4, 1.0), (6, 1.0), (7, 3.0)])
def test_estimates_are_unbiased(n: int, scale: float) -> None:
    kl, jsd, p, q = estimates(n, scale)
    cases = [(found, plackett_luce.kl(p, q)) for found in kl.values()]
    cases += [(found, plackett_luce.jsd(p, q)) for found in jsd.values()]
    for found, exact in cases:
        error = found.std(-1) / math.sqrt(found.shape[-1])
        # Four standard errors; the seed is fixed. Step by step, two items leave no variance but rounding.
        assert ((found.mean(-1) - exact).abs() < 4 * error + 1e-14).all()
    assert (jsd["mixture"] >= 0).all() and (jsd["mixture"] <= math.log(2)).all()
    # Rounding of differences of terms up to ln 2.
    assert all((found >= -1e-14).all() for found in (kl["stepwise"], jsd["stepwise"], jsd["stepwise_mixture"]))


def test_step_wise_estimates_win_between_laws_near_each_other() -> None:
    kl, jsd, _, _ = estimates(4, 0.1)
    assert (kl["stepwise"].std(-1) < kl["naive"].std(-1) / 5).all()
    deviation = {method: found.std(-1) for method, found in jsd.items()}
    assert (deviation["stepwise_mixture"] <= deviation["stepwise"]).all()
    assert (deviation["stepwise"] < deviation["mixture"]).all()
    assert (deviation["mixture"] < deviation["naive"] / 5).all()


def test_the_mixture_wins_between_laws_far_apart() -> None:
    _, jsd, _, _ = estimates(7, 3.0)
    deviation = {method: found.std(-1) for method, found in jsd.items()}
    assert (deviation["mixture"] < deviation["stepwise_mixture"]).all()
    assert (deviation["stepwise_mixture"] < deviation["stepwise"]).all()


# ---- the best response alone -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
def test_the_first_choice_is_a_categorical_law(scale: float) -> None:
    p, q = pairs(5, scale)
    log_p, log_q = p - p.logsumexp(-1, keepdim=True), q - q.logsumexp(-1, keepdim=True)
    expected = divergences(log_p, log_q)
    torch.testing.assert_close(first_choice.kl(p, q), expected["kl"], **EXACT)
    torch.testing.assert_close(first_choice.jsd(p, q), expected["jsd"], **EXACT)
    best = torch.arange(len(p)) % 5
    torch.testing.assert_close(first_choice.log_prob(p, best), log_p[torch.arange(len(p)), best], **EXACT)


def test_the_first_choice_sums_the_rankings_that_start_with_it() -> None:
    scores = drawn(1, 4)
    rankings = list(itertools.permutations(range(4)))
    probabilities = brute_log_probs(scores)[0].exp()
    for item in range(4):
        total = sum(p for ranking, p in zip(rankings, probabilities, strict=True) if ranking[0] == item)
        torch.testing.assert_close(first_choice.log_prob(scores, torch.tensor([item])).exp()[0], total, **EXACT)
