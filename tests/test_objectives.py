"""prefdist.objectives: gradients, values derived by hand, limits, rows that are refused."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from prefdist.objectives import Objective, bradley_terry, load
from prefdist.objectives.policy_gradient import Ppo
from prefdist.objectives.registry import ROWS_FOLDER, read_row
from prefdist.objectives.rows import LikelihoodRow, PolicyGradientRow, TokenDistillationRow

ROWS = sorted(file.stem for file in ROWS_FOLDER.glob("*.yaml"))
EXACT = {"rtol": 0.0, "atol": 1e-12}  # float64: values of order one, tens of operations


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def batch(row: Any, size: int = 3) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Random logps and columns with everything that any row needs; responses of 1 to 4 tokens."""
    if isinstance(row, PolicyGradientRow):
        shape: tuple[int, ...] = (size, 2, 4)
        mask = torch.arange(4) < torch.tensor([[4, 1], [3, 2], [2, 4]])[:size].unsqueeze(-1)
        # Near the old policy, and away from the edges of PPO's clipping where there is no derivative.
        old = -drawn(*shape, seed=1).abs() * mask
        policy = (old + 0.05 * drawn(*shape, seed=2)) * mask
        columns = {"mask": mask, "scores": drawn(size, 2, seed=4), "values": drawn(*shape, seed=5) * mask}
        return {"policy": policy, "old": old, "reference": -drawn(*shape, seed=3).abs() * mask}, columns
    if isinstance(row, TokenDistillationRow):
        mask = (torch.arange(4) < torch.tensor([[4], [3], [2]])[:size]).unsqueeze(1)
        return {}, {"n_tokens": mask.sum(-1), "token_kl": drawn(size, 1, 4, seed=6).square() * mask}
    n = 1 if isinstance(row, LikelihoodRow) else 3 if row.model != "bradley_terry" else 2
    logps = {name: drawn(size, n, seed=k) for k, name in enumerate(("policy", "reward", "reference", "old"))}
    return logps, {"scores": drawn(size, n, seed=4), "n_tokens": torch.tensor([[4, 2, 3], [3, 5, 1], [1, 1, 2]])[:size, :n]}


def prepared(objective: Objective, logps: dict[str, Tensor], columns: dict[str, Tensor]) -> dict[str, Tensor]:
    if not isinstance(objective, Ppo):
        return columns
    return columns | objective.prepare(logps, columns) | {"values": columns["values"] + 0.05}


def learnt(objective: Objective) -> str:
    """What the loss is differentiated by."""
    return next((name for name in ("reward", "token_kl") if name in objective.needs), "policy")


# ---- every row -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", ROWS)
def test_gradient_is_that_of_the_value(row: str) -> None:
    objective = load(row)
    logps, columns = batch(objective.row)
    columns = prepared(objective, logps, columns)
    name = learnt(objective)
    start = (logps | columns)[name].clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: objective(logps | {name: x}, columns | {name: x}), (start,))


@pytest.mark.parametrize("name", ROWS)
def test_losses_are_per_example(name: str) -> None:
    objective = load(name)
    logps, columns = batch(objective.row)
    columns = prepared(objective, logps, columns)
    together = objective(logps, columns)
    assert together.shape == (3,)
    alone = [
        objective({k: v[i : i + 1] for k, v in logps.items()}, {k: v[i : i + 1] for k, v in columns.items()}) for i in range(3)
    ]
    torch.testing.assert_close(together, torch.cat(alone), **EXACT)


@pytest.mark.parametrize("name", ROWS)
def test_needs_is_enough_and_all_of_it_is_needed(name: str) -> None:
    objective = load(name)
    logps, columns = batch(objective.row)
    columns = prepared(objective, logps, columns)
    derived = {"advantages", "returns", "old_values", "weight"}
    base = learnt(objective)
    wanted = objective.needs | {base} | derived
    logps, columns = ({k: v for k, v in part.items() if k in wanted} for part in (logps, columns))
    objective(logps, columns)
    for key in objective.needs - {base}:
        less = tuple({k: v for k, v in part.items() if k != key} for part in (logps, columns))
        with pytest.raises(KeyError, match=key):
            objective(*less) if not isinstance(objective, Ppo) else objective.prepare(*less)


# ---- values by hand --------------------------------------------------------------------------------------------------


def test_dpo_starts_at_ln_2() -> None:
    logp = drawn(4, 2)
    torch.testing.assert_close(
        load("dpo")({"policy": logp, "reference": logp}, {}), torch.full((4,), math.log(2), dtype=torch.float64)
    )


def test_dpo_of_one_pair() -> None:
    logps = {"policy": torch.tensor([[-1.0, -3.0]]), "reference": torch.tensor([[-2.0, -2.5]])}
    # β·[(−1 + 2) − (−3 + 2.5)] = 0.5·1.5
    expected = math.log1p(math.exp(-0.75))
    assert load("dpo", {"beta": 0.5})(logps, {}).item() == pytest.approx(expected, rel=1e-6)  # float32


def test_pmle_starts_at_softplus_of_the_prior_margin() -> None:
    prior = drawn(5, 2)
    expected = softplus(-0.3 * (prior[:, 0] - prior[:, 1]))
    torch.testing.assert_close(load("pmle", {"gamma": 0.3})({"policy": prior}, {}), expected, **EXACT)


def test_simpo_ipo_and_sft_of_one_example() -> None:
    policy, reference = (
        torch.tensor([[-6.0, -4.0]], dtype=torch.float64),
        torch.tensor([[-5.0, -5.0]], dtype=torch.float64),
    )
    n_tokens = torch.tensor([[3, 1]])
    simpo = load("simpo", {"beta": 2.0, "gamma": 0.5})({"policy": policy}, {"n_tokens": n_tokens})
    assert simpo.item() == pytest.approx(math.log1p(math.exp(-(2 * (-2 + 4) - 0.5))), abs=1e-12)
    ipo = load("ipo", {"margin": 2.5})({"policy": policy, "reference": reference}, {})
    assert ipo.item() == pytest.approx((-2 - 2.5) ** 2, abs=1e-12)
    assert load("sft")({"policy": policy[:, :1]}, {}).item() == 6.0


def test_rebel_of_one_pair() -> None:
    logps = {
        "policy": torch.tensor([[-1.0, -2.0]]),
        "old": torch.tensor([[-1.5, -2.0]]),
        "reference": torch.tensor([[-1.0, -3.0]]),
    }
    # 0.5 − 2·[(1 − 0.1·(−0.5)) − (0 − 0.1·1)]
    loss = load("rebel", {"eta": 2.0, "beta": 0.1})(logps, {"scores": torch.tensor([[1.0, 0.0]])})
    assert loss.item() == pytest.approx((0.5 - 2 * 1.15) ** 2, rel=1e-6)  # float32


@pytest.mark.parametrize("name", ["distill_kl_loss", "distill_kl_reward"])
def test_distillation_is_a_divergence(name: str) -> None:
    objective = load(name, {"gamma": 0.2, "beta": 0.0})
    scores = drawn(50, 2)
    logps = {"policy": drawn(50, 2, seed=1), "old": drawn(50, 2, seed=2), "reference": drawn(50, 2, seed=3)}
    assert (objective(logps, {"scores": scores}) > 0).all()
    at_target = objective(logps | {"policy": scores / 0.2 + 7.0}, {"scores": scores})
    torch.testing.assert_close(at_target, torch.zeros(50).double(), **EXACT)


def test_distillation_follows_no_gradient_into_the_target() -> None:
    logps = {key: drawn(3, 2, seed=k).requires_grad_() for k, key in enumerate(("policy", "old", "reference"))}
    scores = drawn(3, 2, seed=9).requires_grad_()
    load("distill_kl_reward")(logps, {"scores": scores}).sum().backward()
    assert [x.grad is None for x in (logps["old"], logps["reference"], scores)] == [True, True, True]


@pytest.mark.parametrize("name", ["dpo", "pmle", "spl", "reward_model"])
def test_swapping_the_label_negates_the_margin(name: str) -> None:
    objective = load(name)
    logps, columns = batch(objective.row)
    swapped = objective({key: value.flip(-1) for key, value in logps.items()}, columns)
    # −ln σ(m) and −ln σ(−m) differ by m.
    margin = -(objective.scores(logps, columns) @ torch.tensor([1.0, -1.0], dtype=torch.float64))  # type: ignore[attr-defined]
    torch.testing.assert_close(objective(logps, columns) - swapped, margin, **EXACT)


@pytest.mark.parametrize("name", ["distill_kl_loss", "distill_kl_reward", "rebel"])
def test_order_of_unlabelled_responses_does_not_matter(name: str) -> None:
    objective = load(name)
    logps, columns = batch(objective.row)
    flipped = [{key: value.flip(-1) for key, value in part.items()} for part in (logps, columns)]
    torch.testing.assert_close(objective(logps, columns), objective(*flipped), **EXACT)


# ---- limits and identities -------------------------------------------------------------------------------------------


def test_pmle_is_distillation_with_certain_targets() -> None:
    logps = {"policy": drawn(6, 2)}
    # The target's probability of the other order, e^−40, is below float64's rounding.
    certain = {"scores": torch.tensor([[40.0, 0.0]], dtype=torch.float64).expand(6, 2)}
    gamma = {"gamma": 0.2}
    pmle, distilled = load("pmle", gamma)(logps, {}), load("distill_kl_loss", gamma)(logps, certain)
    torch.testing.assert_close(pmle, distilled, **EXACT)


def test_spl_with_equal_weights_is_dpo() -> None:
    logps, columns = batch(load("dpo").row)
    spl = load("spl", {"alpha": 0.2, "beta": 0.2})
    torch.testing.assert_close(spl(logps, columns), load("dpo", {"beta": 0.2})(logps, columns), rtol=0, atol=0)


def test_bradley_terry_jsd_is_symmetric_and_bounded() -> None:
    p, q = 20 * drawn(100), 20 * drawn(100, seed=1)
    jsd = bradley_terry.jsd(p, q)
    torch.testing.assert_close(jsd, bradley_terry.jsd(q, p), **EXACT)
    assert (jsd >= -1e-15).all()  # rounding of a difference of terms up to ln 2
    assert (jsd <= math.log(2) + 1e-15).all()
    far = torch.tensor([800.0], dtype=torch.float64)
    torch.testing.assert_close(bradley_terry.jsd(far, -far), torch.full((1,), math.log(2), dtype=torch.float64), **EXACT)
    torch.testing.assert_close(bradley_terry.jsd(p, p), torch.zeros(100).double(), **EXACT)


def test_bradley_terry_kl_is_that_of_two_bernoullis() -> None:
    p, q = drawn(50), drawn(50, seed=1)
    bernoulli = [torch.distributions.Bernoulli(logits=margin) for margin in (p, q)]
    expected = torch.distributions.kl_divergence(*bernoulli)
    torch.testing.assert_close(bradley_terry.kl(p, q), expected, **EXACT)


# ---- rows that are refused -------------------------------------------------------------------------------------------

GOOD: dict[str, Any] = {
    "title": "",
    "source": "",
    "family": "preference",
    "score": {"a": "beta"},
    "target": {"of": "label"},
    "divergence": "nll",
    "responses": "dataset",
    "parameters": {"beta": 0.1},
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"divergances": "nll"}, "divergances"),
        ({"family": "preferences"}, "preferences"),
        ({"score": {"a": "betta"}}, "betta"),
        ({"parameters": {"beta": 0.1, "tau": 1.0}}, "tau"),
        ({"score": {"a": "beta", "b": 0.1}}, "b needs a model"),
        ({"score": {"a": "beta", "lenght": "mean"}}, "lenght"),
        ({"divergence": "kl"}, "divergence kl"),
        ({"target": {"of": "scores"}, "divergence": "kl"}, "responses: policy"),
        ({"target": {"of": "scores"}, "divergence": "ag", "responses": "policy"}, "plackett_luce"),
        ({"target": {"of": "scores", "kl": 1.0}, "divergence": "kl", "responses": "scored"}, "responses: policy"),
        ({"score": {"a": "beta", "b": 1.0, "against": "old"}}, "responses: policy"),
        ({"target": {"of": "constant", "value": "margin"}, "divergence": "squared"}, "margin"),
    ],
)
def test_a_wrong_row_is_refused_by_the_name_of_its_key(changes: dict[str, Any], message: str) -> None:
    load(GOOD)
    with pytest.raises(ValueError, match=message):
        load(GOOD | changes)


def test_an_unknown_parameter_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match=r"'gama'.*'beta', 'gamma'"):
        load("pmle", {"gama": 0.1})


def test_an_unknown_objective_names_the_known_ones() -> None:
    with pytest.raises(FileNotFoundError, match=r"dpoo.*known are.*dpo, ipo"):
        load("dpoo")


def test_bradley_terry_refuses_three_responses() -> None:
    with pytest.raises(ValueError, match="2 responses, got 3"):
        load("pmle")({"policy": drawn(2, 3)}, {})


def test_a_row_read_is_a_row_given_as_mapping() -> None:
    row = read_row("spl", {"alpha": 0.4, "beta": 0.2})
    assert load(row.model_dump()).row == row
    logps, columns = batch(row)
    expected = -logsigmoid(logps["policy"] @ drawn_margin(0.4) - logps["reference"] @ drawn_margin(0.2))
    torch.testing.assert_close(load(row.model_dump())(logps, columns), expected, **EXACT)


def drawn_margin(weight: float) -> Tensor:
    return weight * torch.tensor([1.0, -1.0], dtype=torch.float64)
