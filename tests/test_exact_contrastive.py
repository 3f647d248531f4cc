"""Contrastive decoding on enumerated worlds: against powers of probabilities, response by response and token by token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from prefdist.exact.closed_forms import tilt
from prefdist.exact.contrastive import contrast, contrasted_tilt, token_contrast, token_gap, token_logits
from prefdist.exact.temperatures import at_global_temperature, at_token_temperature
from prefdist.exact.worlds import Space, enumerate_space

ROUNDING = 1e-11
"""Of float64 probabilities of at most a few hundred responses, weighed by factors of e^±20 at most."""


def world(space: Space, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Logits of a reference [n_prefixes, V], its law of responses [Y], and rewards [Y]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(space.n_prefixes, space.vocabulary, generator=generator, dtype=torch.float64)
    reward = torch.randn(len(space.tokens), generator=generator, dtype=torch.float64)
    return logits, space.token_logps(logits).sum(-1), reward


def responses(space: Space) -> list[tuple[int, ...]]:
    return [tuple(row[kept].tolist()) for row, kept in zip(space.tokens, space.mask, strict=True)]


@settings(deadline=None, max_examples=25)
@given(a=st.floats(-2, 3), b=st.floats(-2, 3), beta=st.floats(0.2, 5), seed=st.integers(0, 1000))
def test_powers_of_a_tilt(a: float, b: float, beta: float, seed: int) -> None:
    """p_θ^a·p_ref^{−b} ∝ p_ref^{a−b}·e^{a·r/β}, the first written with products of plain numbers."""
    _, log_ref, reward = world(enumerate_space(3, 2), seed)
    p = log_ref.exp().tolist()
    theta = [x * math.exp(r / beta) for x, r in zip(p, reward.tolist(), strict=True)]
    total = sum(theta)
    powers = [(t / total) ** a * x**-b for t, x in zip(theta, p, strict=True)]
    expected = torch.tensor([x / sum(powers) for x in powers], dtype=torch.float64)
    log_theta = tilt(log_ref, reward, temperature=beta, ref_power=1)
    torch.testing.assert_close(contrast(log_theta, log_ref, a=a, b=b).exp(), expected, rtol=0, atol=ROUNDING)
    torch.testing.assert_close(contrasted_tilt(log_ref, reward, beta=beta, a=a, b=b).exp(), expected, rtol=0, atol=ROUNDING)


@pytest.mark.parametrize("c", [-1.0, -0.5, 0.0, 0.5, 1.0, 3.0])
def test_a_contrast_is_another_temperature(c: float) -> None:
    """a = 1 + c, b = c: the tilt at β/(1 + c); c = −1 is the reference."""
    _, log_ref, reward = world(enumerate_space(2, 3), 0)
    found = contrast(tilt(log_ref, reward, temperature=0.7, ref_power=1), log_ref, a=1 + c, b=c)
    expected = log_ref if c == -1 else tilt(log_ref, reward, temperature=0.7 / (1 + c), ref_power=1)
    torch.testing.assert_close(found, expected, rtol=0, atol=ROUNDING)


def test_equal_weights_leave_the_reward_alone() -> None:
    _, log_ref, reward = world(enumerate_space(3, 2), 0)
    found = contrast(tilt(log_ref, reward, temperature=0.5, ref_power=1), log_ref, a=2, b=2)
    torch.testing.assert_close(found, (2 * reward / 0.5).log_softmax(-1), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("vocabulary", "length"), [(2, 1), (2, 3), (3, 2), (4, 3)])
def test_conditionals_of_a_law(vocabulary: int, length: int) -> None:
    """They give the law back; of a tilted law they are ratios of sums over responses that begin alike."""
    space = enumerate_space(vocabulary, length)
    logits, log_ref, reward = world(space, 1)
    torch.testing.assert_close(token_logits(space, log_ref), logits.log_softmax(-1), rtol=0, atol=ROUNDING)
    law = tilt(log_ref, reward, temperature=0.5, ref_power=1)
    table = token_logits(space, law)
    torch.testing.assert_close(space.token_logps(table).sum(-1), law, rtol=0, atol=ROUNDING)
    written = dict(zip(responses(space), law.exp().tolist(), strict=True))

    def mass(beginning: tuple[int, ...]) -> float:
        return sum(p for y, p in written.items() if y[: len(beginning)] == beginning)

    for row, y in enumerate(responses(space)):
        for t, token in enumerate(y):
            expected = mass(y[: t + 1]) / mass(y[:t])
            assert float(table[space.prefixes[row, t], token].exp()) == pytest.approx(expected, abs=ROUNDING)


def test_two_tokens_by_hand() -> None:
    """V = 3, T = 2, worked out in fractions of powers: a = 2, b = 1 squares θ and divides by the reference."""
    space = enumerate_space(3, 2)
    # First token: end, 1 or 2; then, behind 1 and 2, end, 1 or 2.
    theta = torch.tensor([[0.5, 0.3, 0.2], [0.6, 0.2, 0.2], [0.1, 0.1, 0.8]], dtype=torch.float64)
    reference = torch.tensor([[0.4, 0.4, 0.2], [0.3, 0.3, 0.4], [0.2, 0.5, 0.3]], dtype=torch.float64)
    squares = [[p * p / q for p, q in zip(*rows, strict=True)] for rows in zip(theta.tolist(), reference.tolist(), strict=True)]
    local = [[weight / sum(row) for weight in row] for row in squares]
    # Whole responses are weighed by products without the sums in between.
    whole, by_token = {(0,): squares[0][0]}, {(0,): local[0][0]}
    for first in (1, 2):
        for second in (0, 1, 2):
            whole[first, second] = squares[0][first] * squares[first][second]
            by_token[first, second] = local[0][first] * local[first][second]
    total = sum(whole.values())
    log_theta, log_ref = (space.token_logps(p.log()).sum(-1) for p in (theta, reference))
    found = contrast(log_theta, log_ref, a=2, b=1).exp().tolist()
    assert found == pytest.approx([whole[y] / total for y in responses(space)], abs=1e-14)
    found = token_contrast(space, theta.log(), reference.log(), a=2, b=1).exp().tolist()
    assert found == pytest.approx([by_token[y] for y in responses(space)], abs=1e-14)
    gap = sum(w / total * math.log(w / total / by_token[y]) for y, w in whole.items())
    assert gap > 0.01
    assert float(token_gap(space, log_theta, log_ref, a=2, b=1)) == pytest.approx(gap, abs=1e-13)


def test_where_the_gap_vanishes() -> None:
    """With one token, and at the ends of the line: a = 1, b = 0 is θ, a = 0, b = −1 the reference."""
    for vocabulary, length, weights in [(4, 1, [(2.0, 1.0), (0.5, -0.5)]), (3, 2, [(1.0, 0.0), (0.0, -1.0)])]:
        space = enumerate_space(vocabulary, length)
        _, log_ref, reward = world(space, 2)
        log_theta = tilt(log_ref, reward, temperature=0.5, ref_power=1)
        for a, b in weights:
            assert float(token_gap(space, log_theta, log_ref, a=a, b=b)) == pytest.approx(0, abs=ROUNDING)
    assert float(token_gap(space, log_theta, log_ref, a=2, b=1)) > 0.01


def test_without_a_reference_it_is_a_temperature() -> None:
    """b = 0: both kinds are the temperature 1/a of temperatures.py."""
    space = enumerate_space(3, 2)
    logits, log_p, _ = world(space, 3)
    tau = 0.4
    torch.testing.assert_close(contrast(log_p, log_p, a=1 / tau, b=0), at_global_temperature(log_p, tau), rtol=0, atol=ROUNDING)
    torch.testing.assert_close(
        token_contrast(space, logits, logits, a=1 / tau, b=0), at_token_temperature(space, logits, tau), rtol=0, atol=ROUNDING
    )


def test_worlds_side_by_side() -> None:
    """Leading axes: [S, Y] gives the gap of each world."""
    space = enumerate_space(3, 2)
    laws = [world(space, seed)[1] for seed in range(4)]
    stacked = token_gap(space, torch.stack(laws[:2]), torch.stack(laws[2:]), a=1.5, b=0.5)
    alone = [float(token_gap(space, laws[i], laws[i + 2], a=1.5, b=0.5)) for i in range(2)]
    assert stacked.tolist() == pytest.approx(alone, abs=ROUNDING)


def test_refused() -> None:
    even = torch.tensor([0.5, 0.5], dtype=torch.float64).log()
    with pytest.raises(ValueError, match="log_policy must sum to one"):
        contrast(even - 1, even, a=1, b=0)
    with pytest.raises(ValueError, match="log_ref has zero support"):
        contrast(even, torch.tensor([1.0, 0.0]).double().log(), a=1, b=1)
    with pytest.raises(ValueError, match="log_p must sum to one"):
        token_logits(enumerate_space(2, 1), even - 1)
