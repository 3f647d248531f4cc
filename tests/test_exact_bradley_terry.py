"""prefdist.exact.bradley_terry: scores against their definition, SciPy's minimiser and two responses by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from prefdist.exact.bradley_terry import fit


def test_two_responses_by_hand() -> None:
    # 3 of 4 won: the margin is the log odds, ln 3, and scores are centred.
    scores = fit(torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=torch.float64))
    torch.testing.assert_close(scores, torch.tensor([math.log(3) / 2, -math.log(3) / 2], dtype=torch.float64))


def test_probabilities_give_the_scores_they_were_made_of() -> None:
    scores = torch.randn(50, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    scores -= scores.mean(-1, keepdim=True)
    law = torch.rand(50, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.1
    wins = (law + law.mT) * torch.sigmoid(scores.unsqueeze(-1) - scores.unsqueeze(-2))
    torch.testing.assert_close(fit(wins), scores, atol=1e-9, rtol=0)  # the last step is below 1e-10


@pytest.mark.parametrize("ridge", [1e-3, 0.5])
def test_separable_wins_with_a_ridge_against_scipy(ridge: float) -> None:
    wins = np.triu(np.random.default_rng(0).integers(0, 4, (5, 5)), 1).astype(float)  # a lower number always wins

    def loss(scores: np.ndarray) -> float:
        return float((wins * np.logaddexp(0, -(scores[:, None] - scores[None]))).sum() + ridge / 2 * (scores**2).sum())

    found = minimize(loss, np.zeros(5), method="BFGS", options={"gtol": 1e-9}).x
    # The minimiser's differences of the loss are exact to 1e-8; its curvature may be as small as the ridge.
    np.testing.assert_allclose(fit(torch.from_numpy(wins), ridge).numpy(), found, atol=1e-7 / ridge)


def test_separable_wins_without_a_ridge_are_refused() -> None:
    with pytest.raises(RuntimeError, match=r"no finite optimum.*use a ridge > 0"):
        fit(torch.tensor([[0.0, 2.0], [0.0, 0.0]], dtype=torch.float64))


def test_what_is_no_count_is_refused() -> None:
    with pytest.raises(ValueError, match="finite and ≥ 0"):
        fit(torch.tensor([[0.0, -1.0], [1.0, 0.0]]))
