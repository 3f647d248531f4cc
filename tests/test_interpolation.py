"""λ between two models: recovered from samples, against a grid, against enumeration and against binomial arithmetic."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from prefdist.evaluation import interpolation
from prefdist.evaluation.interpolation import fit_token_level


def laws(steps: int, vocabulary: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tuned, base = torch.randn(2, steps, vocabulary, generator=generator).log_softmax(-1)
    return tuned, base


def drawn(tuned: Tensor, base: Tensor, weight: float, seed: int = 1) -> Tensor:
    law = ((1 - weight) * tuned + weight * base).softmax(-1)
    return torch.multinomial(law, 1, generator=torch.Generator().manual_seed(seed)).squeeze(-1)


@pytest.mark.parametrize("weight", [0.1, 0.35, 0.7, 0.95])
def test_recovered_from_samples(weight: float) -> None:
    """Within 4 standard errors, which 4000 steps make small enough to tell 0.1 from 0.2."""
    tuned, base = laws(4000)
    found = fit_token_level(tuned, base, drawn(tuned, base, weight))
    assert not found.at_bound
    assert found.standard_error < 0.025
    assert abs(found.value - weight) < 4 * found.standard_error


def test_standard_error_is_the_spread_of_the_estimates() -> None:
    """200 data sets: their standard deviation, itself known to 5 %, against the reported standard error; and no bias."""
    tuned, base = laws(150)
    found = [fit_token_level(tuned, base, drawn(tuned, base, 0.4, seed), bounds=(-2, 3)) for seed in range(200)]
    values, errors = np.array([f.value for f in found]), np.array([f.standard_error for f in found])
    assert values.std(ddof=1) == pytest.approx(errors.mean(), rel=0.2)
    assert values.mean() == pytest.approx(0.4, abs=4 * values.std() / math.sqrt(200))


def test_the_maximum_of_the_likelihood() -> None:
    """Against a grid of plain log-likelihoods, to the grid's step."""
    tuned, base = laws(300)
    tokens = drawn(tuned, base, 0.5)
    grid = np.linspace(0, 1, 1001)
    steps = torch.arange(300)
    likelihood = [float((((1 - x) * tuned + x * base).double().log_softmax(-1))[steps, tokens].sum()) for x in grid]
    best = float(grid[int(np.argmax(likelihood))])
    assert fit_token_level(tuned, base, tokens).value == pytest.approx(best, abs=1e-3)


def test_two_tokens_by_arithmetic() -> None:
    """θ0 = (.5, .5), base = (.8, .2): p_λ has odds 4^λ, so 2 of 3 give λ = log 2/log 4 = ½; information n·p(1−p)·log²4."""
    tuned, base = torch.tensor([[0.5, 0.5]] * 3).log(), torch.tensor([[0.8, 0.2]] * 3).log()
    found = fit_token_level(tuned, base, torch.tensor([0, 1, 0]))
    assert found.value == pytest.approx(0.5, abs=1e-6)  # float32 logarithms
    assert found.standard_error == pytest.approx(1 / math.sqrt(3 * 2 / 9 * math.log(4) ** 2), rel=1e-6)


def test_bounds() -> None:
    """Beyond them the bound is reported as such; wider ones hold the estimate."""
    tuned, base = laws(2000)
    tokens = drawn(tuned, base, 1.5)
    at_base = fit_token_level(tuned, base, tokens)
    assert (at_base.value, at_base.at_bound) == (1.0, True)
    assert math.isnan(at_base.standard_error)
    tuned_again = fit_token_level(base, tuned, tokens)  # 1 − 1.5
    assert (tuned_again.value, tuned_again.at_bound) == (0.0, True)
    wide, mirrored = fit_token_level(tuned, base, tokens, bounds=(-2, 3)), fit_token_level(base, tuned, tokens, bounds=(-2, 3))
    assert wide.value == pytest.approx(1.5, abs=4 * wide.standard_error)
    assert mirrored.value == pytest.approx(1 - wide.value, abs=1e-6)


def test_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    tuned, base = laws(101)
    tokens = drawn(tuned, base, 0.5)
    whole = fit_token_level(tuned, base, tokens).value
    monkeypatch.setattr(interpolation, "CHUNK_ELEMENTS", 12 * 10)
    assert fit_token_level(tuned, base, tokens).value == pytest.approx(whole, abs=1e-9)


def test_refused() -> None:
    tuned, base = laws(5)
    tokens = torch.zeros(5, dtype=torch.long)
    with pytest.raises(ValueError, match=r"must be \[N, V\] twice and tokens \[N\], got \[\(5, 12\), \(5, 12\), \(4,\)\]"):
        fit_token_level(tuned, base, tokens[:4])
    with pytest.raises(ValueError, match="must be finite"):
        fit_token_level(tuned, base.masked_fill(base > -1, -torch.inf), tokens)
    with pytest.raises(ValueError, match="does not vary"):
        fit_token_level(tuned, tuned, tokens)
    with pytest.raises(ValueError, match="bounds must be a range"):
        fit_token_level(tuned, base, tokens, bounds=(1, 0))
