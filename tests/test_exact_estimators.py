"""prefdist.exact.estimators: the table's verdicts, and its exact gradients against differences and sampling."""

import pytest
import torch

from prefdist.exact.estimators import TARGETS, _mean, _point, estimators_table
from prefdist.exact.worlds import enumerate_space, random_worlds
from prefdist.objectives.policy_gradient import kl_surrogate


@pytest.fixture(scope="module")
def rows() -> dict[tuple[str, str], dict[str, float | str]]:
    return {(row["quantity"], row["estimator"]): row for row in estimators_table(worlds=5)}


def test_every_verdict_is_the_expected_one(rows: dict[tuple[str, str], dict[str, float | str]]) -> None:
    assert len(rows) == 18
    assert [key for key, row in rows.items() if row["verdict"] != row["expected"]] == []


@pytest.mark.parametrize(
    "name", ["score function, same-t reward only", "k2 per token as a loss", "per-token categorical KL as a loss"]
)
def test_estimators_that_ignore_prefixes_are_one(rows: dict[tuple[str, str], dict[str, float | str]], name: str) -> None:
    """Their expected gradients are the same: each leaves out what a token does to the tokens after it."""
    same = rows["KL", "k2 per token as a loss"]
    assert rows["KL", name]["error_mean"] == pytest.approx(same["error_mean"], rel=1e-9)  # float64 sums of 15 terms


def test_small_policies_differences_give_the_order_of_the_notes() -> None:
    """Near π₀ = π the errors of the KL are ordered: prefixes ignored < k3 per token < k3 per sequence."""
    errors = {row["estimator"]: row["error_mean"] for row in estimators_table(worlds=20, spread=0.5)}
    assert errors["k2 per token as a loss"] < errors["k3 per token as a loss"] < errors["k3 per sequence as a loss"]


@pytest.mark.parametrize("quantity", list(TARGETS))
def test_exact_gradients_are_those_of_differences(quantity: str) -> None:
    space = enumerate_space(3, 3)
    drawn = random_worlds(space, contexts=2, seeds=[0], gamma=1.0, spread=1.0)
    logits = drawn.reference[1].clone().requires_grad_()
    assert torch.autograd.gradcheck(
        lambda x: TARGETS[quantity](_point(space, x, drawn.reference[0], drawn.reward[0])), (logits,)
    )


def test_enumerated_expectation_is_what_sampling_finds() -> None:
    """20,000 prompts with two samples each: the mean gradient of kl_surrogate lies within its sampling error."""
    space = enumerate_space(3, 3)
    drawn = random_worlds(space, contexts=2, seeds=[0], gamma=1.0, spread=1.0)
    logits = drawn.reference[1].clone().requires_grad_()
    point = _point(space, logits, drawn.reference[0], drawn.reward[0])
    (true,) = torch.autograd.grad(TARGETS["KL"](point), logits, retain_graph=True)
    generator = torch.Generator().manual_seed(0)
    samples = torch.multinomial(point.weights, 40_000, replacement=True, generator=generator).view(-1, 2)
    losses = kl_surrogate(point.policy[samples], point.reference[samples], space.mask[samples])
    (found,) = torch.autograd.grad(losses.mean(), logits)
    # Single gradients have entries of order one: 5 standard errors of 20,000 of them.
    assert float((found - true).abs().max()) < 5 / 20_000**0.5


def test_k1_has_no_gradient_though_its_value_is_the_kl() -> None:
    space = enumerate_space(3, 3)
    drawn = random_worlds(space, contexts=2, seeds=[0], gamma=1.0, spread=1.0)
    logits = drawn.reference[1].clone().requires_grad_()
    point = _point(space, logits, drawn.reference[0], drawn.reward[0])
    k1 = _mean(point, point.log_ratio.sum(-1))
    assert k1.item() == pytest.approx(point.exact_kl().item(), abs=1e-12)
    (gradient,) = torch.autograd.grad(k1, logits)
    assert float(gradient.abs().max()) < 1e-14  # rounding of probabilities that sum to one
