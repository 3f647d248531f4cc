"""prefdist.exact: closed forms, enumerated worlds, and the optimum that each objective is trained to."""

import csv
import math
from fractions import Fraction
from itertools import product
from pathlib import Path

import pytest
import torch
from torch import Tensor

from prefdist.exact import tilt, tpm
from prefdist.exact.closed_forms import optimum
from prefdist.exact.optima import EQUAL, optima_table, rows_with_an_optimum, solve_directly, train
from prefdist.exact.studies.optima import run
from prefdist.exact.worlds import Space, Worlds, enumerate_space, random_worlds
from prefdist.objectives import load

GAMMA = 0.2  # of P*


def total_variation(log_p: Tensor, log_q: Tensor) -> float:
    return float((log_p.exp() - log_q.exp()).abs().sum(-1).max() / 2)


@pytest.fixture(scope="module", params=["table", "sequences"])
def worlds(request: pytest.FixtureRequest) -> Worlds:
    space = enumerate_space(6, 1) if request.param == "table" else enumerate_space(3, 3)
    return random_worlds(space, contexts=3, seeds=[1, 2], gamma=GAMMA, spread=1.0)


# ---- tilt and tpm ----------------------------------------------------------------------------------------------------


def test_tilt_by_hand() -> None:
    log_ref = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log()
    reward = torch.tensor([0.0, math.log(2), math.log(4)], dtype=torch.float64)
    # 0.5·1, 0.25·2, 0.25·4 over 2; at temperature 2 and power 2: 1/4·1, 1/16·√2, 1/16·2.
    torch.testing.assert_close(
        tilt(log_ref, reward, temperature=1, ref_power=1).exp(), torch.tensor([1, 1, 2.0], dtype=torch.float64) / 4
    )
    raw = torch.tensor([1 / 4, math.sqrt(2) / 16, 2 / 16], dtype=torch.float64)
    torch.testing.assert_close(tilt(log_ref, reward, temperature=2, ref_power=2).exp(), raw / raw.sum())


def test_tilt_keeps_zero_support_and_gradients() -> None:
    log_ref = torch.tensor([0.5, 0.5, 0.0]).log()
    reward = torch.zeros(2, 3, requires_grad=True)
    log_p = tilt(log_ref, reward, temperature=1, ref_power=0.5)
    torch.testing.assert_close(log_p.exp(), torch.tensor([[0.5, 0.5, 0.0]]).expand(2, 3))
    log_p[:, 0].sum().backward()
    assert reward.grad is not None
    assert reward.grad.isfinite().all()


@pytest.mark.parametrize(
    ("log_ref", "reward", "temperature", "ref_power", "message"),
    [
        ([0.5, 0.4], [0.0, 0.0], 1.0, 1.0, r"log_ref must sum to one.*0\.1.*limit 1e-05"),
        ([0.5, 0.5], [0.0, 0.0], 0.0, 1.0, "temperature must be > 0, got 0"),
        ([0.5, 0.5], [0.0, 0.0], math.nan, 1.0, "temperature must be > 0, got nan"),
        ([0.5, 0.5], [0.0, math.inf], 1.0, 1.0, "reward must be finite"),
        ([1.0, 0.0], [0.0, 0.0], 1.0, 0.0, r"zero support.*ref_power 0"),
        ([math.nan, 0.5], [0.0, 0.0], 1.0, 1.0, "log_ref must sum to one"),
    ],
)
def test_tilt_refuses(log_ref: list[float], reward: list[float], temperature: float, ref_power: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tilt(torch.tensor(log_ref).log(), torch.tensor(reward), temperature=temperature, ref_power=ref_power)


def test_tpm_of_huangs_counterexample() -> None:
    """A counterexample with three responses: the hypotheses of Theorem 2 hold and mass still leaves the aligned component."""
    p_aligned, p_unaligned = (
        torch.tensor([0, 0.9, 0.1], dtype=torch.float64),
        torch.tensor([0.7, 0, 0.3], dtype=torch.float64),
    )
    reference = (p_aligned + p_unaligned) / 2
    responsibility = p_aligned / 2 / reference
    policy = tilt(
        reference.log(),
        torch.tensor([0.0, 2.0, 3.0], dtype=torch.float64),
        temperature=1 / (4 * math.log(2)),
        ref_power=1,
    )
    assert float(tpm(policy, reference.log(), responsibility)) == pytest.approx(float(Fraction(1280, 3739)), abs=1e-14)
    assert float(tpm(reference.log(), reference.log(), responsibility)) == pytest.approx(0.5, abs=1e-15)


def test_tpm_refuses() -> None:
    even, one = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    with pytest.raises(ValueError, match=r"responsibility must lie in \[0, 1\]"):
        tpm(even, even, torch.tensor([0.5, 1.5]))
    with pytest.raises(ValueError, match="zero support"):
        tpm(even, one, torch.tensor([0.5, 0.5]))
    with pytest.raises(ValueError, match="log_policy must sum to one"):
        tpm(even - 1, even, torch.tensor([0.5, 0.5]))
    assert float(tpm(one, even, torch.tensor([0.25, 0.5]))) == 0.25


# ---- worlds ----------------------------------------------------------------------------------------------------------


def responses(space: Space) -> list[tuple[int, ...]]:
    return [tuple(t[m].tolist()) for t, m in zip(space.tokens, space.mask, strict=True)]


def test_space_holds_every_response_once() -> None:
    found = responses(enumerate_space(3, 2))
    assert sorted(found) == [(0,), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert len(responses(enumerate_space(3, 3))) == 1 + 2 + 4 * 3
    assert responses(enumerate_space(4, 1)) == [(0,), (1,), (2,), (3,)]


def test_response_probabilities_are_products_and_sum_to_one() -> None:
    space = enumerate_space(3, 3)
    logits = torch.randn(space.n_prefixes, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p = space.token_logps(logits).sum(-1).exp()
    assert float(p.sum()) == pytest.approx(1, abs=1e-14)
    tables = dict(zip([(), (1,), (2,), (1, 1), (1, 2), (2, 1), (2, 2)], logits.softmax(-1), strict=True))
    for response, probability in zip(responses(space), p, strict=True):
        product = math.prod(float(tables[response[:t]][token]) for t, token in enumerate(response))
        assert float(probability) == pytest.approx(product, abs=1e-15)


def test_a_seed_is_a_world_whatever_stands_beside_it() -> None:
    space = enumerate_space(3, 2)
    both = random_worlds(space, contexts=2, seeds=[3, 4], gamma=0.2, spread=1.0)
    alone = random_worlds(space, contexts=2, seeds=[4], gamma=0.2, spread=1.0)
    torch.testing.assert_close(both.log_target[2:], alone.log_target, rtol=0, atol=0)
    torch.testing.assert_close(both.preference + both.preference.mT, torch.ones_like(both.preference))


@pytest.mark.parametrize(("vocabulary", "length"), [(2, 1), (3, 3), (10, 2)])
def test_a_space_has_every_response_once(vocabulary: int, length: int) -> None:
    space = enumerate_space(vocabulary, length)
    found = {tuple(row[mask].tolist()) for row, mask in zip(space.tokens, space.mask, strict=True)}
    words = (word for size in range(length + 1) for word in product(range(vocabulary), repeat=size))
    ended = {word for word in words if 0 not in word[:-1] and word and (word[-1] == 0 or len(word) == length)}
    assert found == ended
    assert len(found) == len(space.tokens)


def test_a_space_too_large_to_enumerate_is_refused() -> None:
    with pytest.raises(ValueError, match="11 tokens and a length of 4 make 11111 responses, and 10000 are the limit"):
        enumerate_space(11, 4)


# ---- trained optima, against formulas written here by hand --------------------------------------


def normalised(log_p: Tensor) -> Tensor:
    return log_p - log_p.logsumexp(-1, keepdim=True)


@pytest.mark.parametrize(
    ("name", "parameters", "powers"),
    [
        # Powers of π₀ and π*; r = γ·ln π* with γ = 0.2.
        ("pmle", {"gamma": 0.2, "beta": 0.0}, (0, 1)),
        ("pmle", {"gamma": 0.1, "beta": 0.0}, (0, 2)),
        ("distill_kl_loss", {"gamma": 0.2, "beta": 0.0}, (0, 1)),
        ("dpo", {"beta": 0.2}, (1, 1)),
        ("dpo", {"beta": 0.1}, (1, 2)),
        ("spl", {"alpha": 0.4, "beta": 0.1}, (1 / 4, 1 / 2)),
        ("rlhf_rloo", {"beta": 0.4}, (1, 1 / 2)),
        ("reverse_kl_rloo", {"gamma": 0.2, "beta": 0.3}, (3 / 5, 2 / 5)),
        ("reverse_kl_rloo", {"gamma": 0.2, "beta": 0.0}, (0, 1)),
        ("distill_kl_reward", {"gamma": 0.2, "beta": 0.3}, (3 / 5, 2 / 5)),
        ("rebel", {"eta": 0.7, "beta": 0.4}, (1, 1 / 2)),
        ("reward_model", {}, (0, 1 / 5)),
    ],
)
def test_trained_optimum(worlds: Worlds, name: str, parameters: dict[str, float], powers: tuple[float, float]) -> None:
    objective = load(name, parameters)
    expected = normalised(powers[0] * worlds.log_reference + powers[1] * worlds.log_target)
    assert total_variation(train(objective, worlds), expected) <= EQUAL
    equation = optimum(objective.row)
    assert equation is not None
    assert total_variation(equation.solve(worlds), expected) <= 1e-12  # two float64 formulas


def test_ipo_tilts_the_reference_by_its_win_rate(worlds: Worlds) -> None:
    """arXiv 2310.12036, Theorem 1: π ∝ π₀·exp(P*(y ≻ μ)/τ) with the margin 1/(2τ)."""
    win_rate = torch.einsum("nab,nb->na", worlds.preference, worlds.log_mu.exp())
    expected = normalised(worlds.log_reference + win_rate / 0.25)
    assert total_variation(train(load("ipo", {"margin": 2.0}), worlds), expected) <= EQUAL


def test_simpo_without_margin_matches_means_over_tokens(worlds: Worlds) -> None:
    """β·ln π(y)/|y| = r(y) + c: with responses of one length, π ∝ exp(|y|·r/β)."""
    trained = train(load("simpo", {"beta": 2.0, "gamma": 0.0}), worlds)
    rest = 2.0 * trained / worlds.space.n_tokens - worlds.reward
    assert float((rest.amax(-1) - rest.amin(-1)).max()) <= 1e-8  # SMALLEST_STEP of training, in nats, times β
    if worlds.space.mask.shape[1] == 1:
        assert total_variation(trained, normalised(worlds.reward / 2.0)) <= EQUAL


@pytest.mark.parametrize(
    ("name", "changed"), [("pmle", {"beta": 0.02}), ("distill_kl_loss", {"beta": 0.02}), ("simpo", {"gamma": 0.5})]
)
def test_rows_without_a_closed_form_agree_with_a_direct_solution(worlds: Worlds, name: str, changed: dict[str, float]) -> None:
    objective = load(name, changed)
    assert optimum(objective.row) is None
    assert total_variation(train(objective, worlds), solve_directly(objective.row, worlds)) <= EQUAL


def test_direct_solution_agrees_with_a_closed_form_where_there_is_one(worlds: Worlds) -> None:
    row = load("spl", {"alpha": 0.3, "beta": 0.2}).row
    equation = optimum(row)
    assert equation is not None
    assert total_variation(solve_directly(row, worlds), equation.solve(worlds)) <= EQUAL


def test_kl_in_the_loss_is_not_kl_in_the_reward(worlds: Worlds) -> None:
    parameters = {"gamma": 0.2, "beta": 0.02}
    in_loss, in_reward = (train(load(name, parameters), worlds) for name in ("distill_kl_loss", "distill_kl_reward"))
    assert total_variation(in_loss, in_reward) > 0.1


def test_pmle_with_kl_minimises_the_loss_of_equation_5() -> None:
    """Autograd of the exact loss, written down anew, vanishes where training ends, and moving away raises it."""
    worlds = random_worlds(enumerate_space(5, 1), contexts=1, seeds=[0], gamma=GAMMA, spread=1.0)
    mu, p_star, log_reference = worlds.log_mu[0].exp(), worlds.preference[0], worlds.log_reference[0]

    def loss(logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1)
        wins = torch.nn.functional.logsigmoid(0.2 * (log_p[:, None] - log_p[None]))
        likelihood = -(mu[:, None] * mu[None] * (p_star * wins + p_star.T * wins.T)).sum()
        return likelihood + 0.02 * (log_p.exp() * (log_p - log_reference)).sum()

    trained = train(load("pmle", {"gamma": 0.2, "beta": 0.02}), worlds)[0]
    gradient = torch.autograd.functional.jacobian(loss, trained)
    assert float(gradient.abs().max()) <= 1e-10  # curvatures are of order 1e-3, so logits are right to 1e-7
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        moved = trained + 0.1 * torch.randn(5, generator=generator, dtype=torch.float64)
        assert float(loss(moved)) > float(loss(trained))


# ---- the table and the stage -----------------------------------------------------------------------------------------


def test_every_row_of_the_table_has_the_expected_verdict() -> None:
    rows = optima_table(worlds=2, contexts=2, actions=4, sequence_contexts=1, length=2)
    assert {row["objective"] for row in rows} == set(rows_with_an_optimum())
    assert [row for row in rows if row["verdict"] != row["expected"]] == []
    assert {row["expected"] for row in rows} == {"equal", "different"}


def test_a_new_row_is_judged_like_the_others() -> None:
    row = load("spl").row.model_dump() | {"target": {"of": "scores", "scale": 2.0}, "divergence": "jsd"}
    worlds = random_worlds(enumerate_space(4, 1), contexts=2, seeds=[0], gamma=GAMMA, spread=1.0)
    objective = load(row | {"responses": "policy"})
    equation = optimum(objective.row)
    assert equation is not None
    assert total_variation(train(objective, worlds), equation.solve(worlds)) <= EQUAL


def test_stage_writes_tables_and_figures(tmp_path: Path) -> None:
    spec = {"worlds": 1, "contexts": 1, "actions": 3, "sequence_contexts": 1, "vocabulary": 2, "length": 2}
    run(spec | {"objectives": ["dpo"], "variants": []}, {}, tmp_path, tmp_path)
    written = {"claims.csv", *(f"optima{suffix}" for suffix in (".csv", ".md", ".svg", ".png"))}
    assert {file.name for file in tmp_path.iterdir()} == written
    with (tmp_path / "optima.csv").open() as handle:
        rows = list(csv.DictReader(handle))
    assert [(row["objective"], row["world"], row["n"], row["verdict"]) for row in rows] == [
        ("dpo", "table", "1", "equal"),
        ("dpo", "sequences", "1", "equal"),
    ]
