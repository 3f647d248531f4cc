"""Plackett-Luce laws: log-probabilities, exact divergences against independent sums, estimators, the best response alone."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from prefdist.objectives import bradley_terry, first_choice, load, plackett_luce, subsets
from prefdist.objectives.plackett_luce_estimators import jsd_estimates

EXACT = {"rtol": 0.0, "atol": 1e-12}  # float64: values of order one, tens of operations
QUADRATURE = {"rtol": 0.0, "atol": 1e-10}  # the stated error of jsd above 5 items, and of ag
SCALES = (0.05, 0.3, 1.0, 3.0, 10.0, 30.0)
DIVERGENCES = (plackett_luce.kl, plackett_luce.jsd, plackett_luce.ag, first_choice.kl, first_choice.jsd)
Divergence = Callable[[Tensor, Tensor], Tensor]


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def brute_log_probs(scores: Tensor) -> Tensor:
    """Of all rankings, one choice after the other: [B, n] -> [B, n!]."""
    ordered = scores[:, torch.tensor(list(itertools.permutations(range(scores.shape[1]))))]
    return sum(ordered[..., k] - ordered[..., k:].logsumexp(-1) for k in range(scores.shape[1]))


def brute(p_scores: Tensor, q_scores: Tensor) -> dict[str, Tensor]:
    return divergences(brute_log_probs(p_scores), brute_log_probs(q_scores))


def divergences(log_p: Tensor, log_q: Tensor) -> dict[str, Tensor]:
    """From the log-probabilities of all outcomes, [B, outcomes]."""
    p, q = log_p.exp(), log_q.exp()
    log_m = torch.logaddexp(log_p, log_q) - math.log(2)
    return {
        "entropy": -(p * log_p).sum(-1),
        "kl": (p * (log_p - log_q)).sum(-1),
        "jsd": ((p * (log_p - log_m)).sum(-1) + (q * (log_q - log_m)).sum(-1)) / 2,
        "ag": (log_m.exp() * (log_m - (log_p + log_q) / 2)).sum(-1),
    }


def pairs(n: int, scale: float, size: int = 12) -> tuple[Tensor, Tensor]:
    """Two laws a row: of the scale, the second also of each smaller one, shifted, and equal to the first."""
    p, q = scale * drawn(size, n, seed=n), drawn(size, n, seed=n + 100)
    q = q * torch.tensor([s for s in SCALES if s <= scale] * size)[:size].unsqueeze(-1).double() + 100
    q[-2:] = p[-2:]
    return p, q


# ---- the law ---------------------------------------------------------------------------------------------------------


def test_plackett_luce_of_two_is_bradley_terry() -> None:
    scores = drawn(20, 2)
    ranking = torch.tensor([[1, 0]]).expand(20, 2)
    expected = bradley_terry.log_prob(scores[:, 1], scores[:, 0])
    torch.testing.assert_close(plackett_luce.log_prob(scores, ranking), expected, **EXACT)
    row = {"title": "", "source": "", "family": "preference", "score": {"a": 0.7}, "divergence": "nll"}
    row |= {"target": {"of": "label", "margin": 0.3}, "responses": "dataset"}
    losses = [load(row | {"model": model})({"policy": scores}, {}) for model in ("bradley_terry", "plackett_luce")]
    torch.testing.assert_close(*losses, **EXACT)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_plackett_luce_rankings_sum_to_one(n: int) -> None:
    scores = 3 * drawn(1, n)
    rankings = torch.tensor(list(itertools.permutations(range(n))))
    total = plackett_luce.log_prob(scores.expand(len(rankings), n), rankings).exp().sum()
    assert total.item() == pytest.approx(1, abs=1e-12)


def test_plackett_luce_log_prob_is_the_product_of_choices() -> None:
    weights = torch.tensor([[1.0, 2.0, 4.0]], dtype=torch.float64)
    found = plackett_luce.log_prob(weights.log(), torch.tensor([[2, 0, 1]]))
    assert found.exp().item() == pytest.approx(4 / 7 * 1 / 3, abs=1e-12)


def test_plackett_luce_samples_have_their_probabilities() -> None:
    scores = torch.tensor([[0.5, -0.5, 1.0]], dtype=torch.float64)
    draws = 40_000
    rankings = plackett_luce.sample(scores, draws, torch.Generator().manual_seed(0))[0]
    for permutation in itertools.permutations(range(3)):
        p = plackett_luce.log_prob(scores, torch.tensor([permutation])).exp().item()
        frequency = (rankings == torch.tensor(permutation)).all(-1).double().mean().item()
        # Four standard errors: six comparisons of a correct sampler fail once in 2,600 seeds, and the seed is fixed.
        assert abs(frequency - p) < 4 * math.sqrt(p * (1 - p) / draws)


# ---- exact divergences -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7])
def test_divergences_are_the_sums_over_all_rankings(n: int, scale: float) -> None:
    p, q = pairs(n, scale)
    expected = brute(p, q)
    torch.testing.assert_close(plackett_luce.entropy(p), expected["entropy"], **QUADRATURE)
    for name in ("kl", "jsd", "ag"):
        torch.testing.assert_close(getattr(plackett_luce, name)(p, q), expected[name], **QUADRATURE)
    torch.testing.assert_close(subsets.spectral_jsd(p, q), expected["jsd"], **QUADRATURE)
    assert (plackett_luce.jsd(p, q) >= -1e-10).all()
    assert (plackett_luce.jsd(p, q) <= math.log(2) + 1e-10).all()


@pytest.mark.parametrize("n", [10, 12])
@pytest.mark.parametrize("scale", [0.3, 3.0])
def test_divergences_of_two_independent_halves(n: int, scale: float) -> None:
    p, q = scale * drawn(2, n), scale * drawn(2, n, seed=1)
    # Every second item is out of the others' reach: the ranking is one of the first half, then one of the second.
    reach = torch.tensor([1000.0, 0.0], dtype=torch.float64).repeat(n // 2)
    halves = [[brute_log_probs(scores[:, start::2]) for start in (0, 1)] for scores in (p, q)]
    log_p, log_q = ((first.unsqueeze(-1) + second.unsqueeze(-2)).flatten(1) for first, second in halves)
    expected = divergences(log_p, log_q)
    torch.testing.assert_close(plackett_luce.entropy(p + reach), expected["entropy"], **QUADRATURE)
    for name in ("kl", "jsd", "ag"):
        torch.testing.assert_close(getattr(plackett_luce, name)(p + reach, q + reach), expected[name], **QUADRATURE)


@pytest.mark.parametrize("n", [8, 12, 14])
def test_kl_is_an_integral_over_exponential_races(n: int) -> None:
    s, t = 0.8 * drawn(n, seed=2), 0.8 * drawn(n, seed=3)
    expected = (s - t).sum() + expected_log_sums(s, t) - expected_log_sums(s, s)
    torch.testing.assert_close(plackett_luce.kl(s.unsqueeze(0), t.unsqueeze(0))[0], expected, rtol=0, atol=1e-11)


def expected_log_sums(s: Tensor, t: Tensor) -> Tensor:
    """E_P Σ_k log Σ_{j left at k} v_j of items that leave at rates w = e^s, weights v = e^t; scalar.

    log V = ∫ (e^{−z} − e^{−zV}) dz/z, and an item leaves at time τ with density w·e^{−wτ}; trapezoid in log z and log τ.
    """
    w, v = s.exp(), t.exp()
    step = 0.2
    z = torch.arange(-45, 6, step, dtype=torch.float64).exp().view(-1, 1, 1)
    tau = torch.arange(-40, 6, step, dtype=torch.float64).exp().view(1, -1, 1)
    gone = -torch.expm1(-w * tau)
    factors = (gone + torch.exp(-w * tau - z * v)).log()
    others = factors.sum(-1, keepdim=True) - factors
    leaving = (w * torch.exp(-w * tau - z * v + others)).sum(-1)
    inner = len(s) * torch.exp(-z[:, 0, 0]) - (leaving * tau[..., 0]).sum(-1) * step
    return inner.sum() * step


@pytest.mark.parametrize("n", [8, 12])
def test_jsd_lies_in_the_interval_of_its_estimates(n: int) -> None:
    p, q = 0.5 * drawn(1, n, seed=4), 0.5 * drawn(1, n, seed=5)
    generator = torch.Generator().manual_seed(0)
    rankings = [plackett_luce.sample(scores, 40_000, generator) for scores in (p, q)]
    found = jsd_estimates(p, q, rankings[0], rankings[1], "mixture")
    error = found.std() / math.sqrt(found.numel())
    assert error < 1e-3
    assert abs(found.mean() - plackett_luce.jsd(p, q)[0]) < 4 * error


@pytest.mark.parametrize("name", ["kl", "jsd"])
def test_two_items_are_bradley_terry(name: str) -> None:
    p, q = 3 * drawn(20, 2), 3 * drawn(20, 2, seed=1)
    expected = getattr(bradley_terry, name)(p[:, 0] - p[:, 1], q[:, 0] - q[:, 1])
    torch.testing.assert_close(getattr(plackett_luce, name)(p, q), expected, **EXACT)
    torch.testing.assert_close(getattr(first_choice, name)(p, q), expected, **EXACT)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("n", [4, 6])
def test_shifts_and_the_order_of_items_do_not_matter(divergence: Divergence, n: int) -> None:
    p, q = drawn(3, n), drawn(3, n, seed=1)
    found = divergence(p, q)
    torch.testing.assert_close(divergence(p - 300, q + drawn(3, 1)), found, **EXACT)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(divergence(p[:, order], q[:, order]), found, **EXACT)


@pytest.mark.parametrize("b", [1, 2, 4])
def test_identical_laws_are_apart_only_in_the_pooled_loss(b: int) -> None:
    p = drawn(b, 4)
    for divergence in DIVERGENCES:
        torch.testing.assert_close(divergence(p, p), torch.zeros(b).double(), **EXACT)
    alike = p[:1].expand(b, 4)
    torch.testing.assert_close(plackett_luce.ag_pooled(alike, alike).item(), b * math.log(b), **EXACT)
    # 0, 1.39 and 5.55; prompts that differ add b times their mean distance from their average.
    assert plackett_luce.ag_pooled(p, p) >= b * math.log(b) - 1e-12


@pytest.mark.parametrize("b", [1, 3])
def test_the_pooled_loss_is_the_released_formula(b: int) -> None:
    p, q = 2 * drawn(b, 4), 2 * drawn(b, 4, seed=1)
    log_p, log_q = brute_log_probs(p), brute_log_probs(q)
    m = torch.logsumexp(torch.cat([log_p, log_q], dim=0), dim=0, keepdim=True) + math.log(0.5)
    to_p, to_q = (
        torch.nn.functional.kl_div(x, m.expand(b, -1), log_target=True, reduction="batchmean") for x in (log_p, log_q)
    )
    torch.testing.assert_close(plackett_luce.ag_pooled(p, q), 0.5 * (to_p + to_q), **EXACT)
    if b == 1:
        torch.testing.assert_close(plackett_luce.ag(p, q)[0], 0.5 * (to_p + to_q), **EXACT)


@pytest.mark.parametrize("divergence", [plackett_luce.kl, plackett_luce.jsd])
def test_a_part_of_the_list_tells_the_laws_less_apart(divergence: Divergence) -> None:
    p, q = drawn(40, 8), drawn(40, 8, seed=1)
    whole = divergence(p, q)
    for kept in (slice(0, 7), slice(0, 4), slice(4, 8), slice(2, 4)):
        assert (divergence(p[:, kept], q[:, kept]) <= whole + 1e-10).all()
    best = first_choice.kl if divergence is plackett_luce.kl else first_choice.jsd
    assert (best(p, q) <= whole + 1e-10).all()


# ---- gradients, types, memory ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("divergence", [*DIVERGENCES, lambda p, _: plackett_luce.entropy(p)])
@pytest.mark.parametrize("n", [3, 6])
def test_gradients_are_those_of_the_values(divergence: Divergence, n: int) -> None:
    p, q = (drawn(2, n, seed=seed).requires_grad_() for seed in (0, 1))
    assert torch.autograd.gradcheck(divergence, (p, q))


@pytest.mark.parametrize("scale", [0.05, 1.0, 10.0])
def test_gradient_of_the_quadrature_is_that_of_the_sum(scale: float) -> None:
    p, q = (scale * drawn(4, 6, seed=seed) for seed in (0, 1))
    found, expected = (
        torch.autograd.functional.jacobian(lambda p, q, f=f: f(p, q).sum(), (p, q))
        for f in (plackett_luce.jsd, lambda p, q: brute(p, q)["jsd"])
    )
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)  # the quadrature's error, differentiated


def test_gradient_of_kl_is_the_closed_form() -> None:
    p, q = drawn(1, 5), drawn(1, 5, seed=1).requires_grad_()
    plackett_luce.kl(p, q).sum().backward()
    weights = q.detach()[0].exp()
    # −1 + Σ over the sets S that hold j of Pr[S is left at its size]·q_S(j)
    expected = -torch.ones(5, dtype=torch.float64)
    for ranking, probability in zip(itertools.permutations(range(5)), brute_log_probs(p)[0].exp(), strict=True):
        for place in range(5):
            left = list(ranking[place:])
            expected[left] += probability * weights[left] / weights[left].sum()
    torch.testing.assert_close(q.grad[0], expected, **EXACT)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("n", [4, 6])
@pytest.mark.parametrize("scale", [0.0, 1.0, 300.0])
def test_gradients_are_finite_for_equal_laws_and_ties(divergence: Divergence, n: int, scale: float) -> None:
    p = (scale * drawn(2, n)).requires_grad_()
    q = p.detach().clone().requires_grad_()
    divergence(p, q).sum().backward()
    for gradient in (p.grad, q.grad):
        torch.testing.assert_close(gradient, torch.zeros_like(p), **EXACT)
    far = -p.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(divergence(p.detach(), far).sum(), far)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("n", [4, 6])
def test_a_batch_is_its_rows_and_keeps_its_type(divergence: Divergence, n: int) -> None:
    p, q = drawn(3, n), drawn(3, n, seed=1)
    together = divergence(p, q)
    torch.testing.assert_close(together, torch.cat([divergence(p[i : i + 1], q[i : i + 1]) for i in range(3)]), **EXACT)
    single = divergence(p.float(), q.float())
    assert single.dtype == torch.float32
    torch.testing.assert_close(single, together.float(), rtol=1e-5, atol=1e-6)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p, q = (drawn(5, 6, seed=seed).requires_grad_() for seed in (0, 1))
    whole = plackett_luce.jsd(p, q)
    gradients = torch.autograd.grad(whole.sum(), (p, q))
    monkeypatch.setattr(subsets, "_NUMBERS_AT_ONCE", 2 * subsets.spectral_numbers(6))
    parts = plackett_luce.jsd(p, q)
    torch.testing.assert_close(parts, whole, **EXACT)
    torch.testing.assert_close(torch.autograd.grad(parts.sum(), (p, q)), gradients, **EXACT)


def test_tables_made_in_inference_mode_serve_training() -> None:
    subsets.levels.cache_clear()
    subsets.rankings.cache_clear()
    for n in (4, 6):
        with torch.inference_mode():
            plackett_luce.jsd(drawn(1, n), drawn(1, n, seed=1))
        p = drawn(1, n).requires_grad_()
        plackett_luce.jsd(p, drawn(1, n, seed=1)).sum().backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("n", [4, 10])
def test_divergences_are_the_same_on_a_gpu(n: int) -> None:
    p, q = drawn(3, n), drawn(3, n, seed=1)
    for divergence in DIVERGENCES:
        torch.testing.assert_close(divergence(p.cuda(), q.cuda()).cpu(), divergence(p, q), **EXACT)


def test_too_many_items_are_refused_by_name() -> None:
    for function in (plackett_luce.kl, plackett_luce.jsd, plackett_luce.ag):
        with pytest.raises(ValueError, match=r"15 responses.*at most 14: divide .* smaller lists"):
            function(drawn(1, 15), drawn(1, 15))
    with pytest.raises(ValueError, match=r"15 responses.*at most 14"):
        plackett_luce.entropy(drawn(1, 15))
    with pytest.raises(ValueError, match=r"10 responses.*at most 9"):
        plackett_luce.ag_pooled(drawn(1, 10), drawn(1, 10))
    with pytest.raises(ValueError, match=r"one shape, got \[\(2, 4\), \(1, 4\)\]"):
        plackett_luce.kl(drawn(2, 4), drawn(1, 4))
