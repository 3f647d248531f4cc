"""Finite classes of policies: their pairs, likelihoods and learners, by enumeration and by hand."""

import itertools
import math

import numpy as np
import pytest
import torch
from studies import SHAPE, logs

from prefdist.exact.coverage import between, coverages
from prefdist.exact.coverage_cells import by_size, policy_classes, reward_classes, simulate
from prefdist.exact.finite_classes import Classes, draw_wins, log_likelihoods, most_likely, random_classes, reverse_kl


def test_drawn_pairs_follow_their_law() -> None:
    log_mu, reward = logs(0.2, 0.3, 0.5).expand(200, 3), torch.tensor([0.0, 1.0, -1.0]).double().expand(200, 3)
    wins = draw_wins(log_mu, reward, 500, np.random.default_rng(0))
    assert wins.sum((1, 2)).tolist() == [500.0] * 200
    total = 200 * 500
    for a, b in itertools.product(range(3), range(3)):
        mu, r = [0.2, 0.3, 0.5], [0.0, 1.0, -1.0]
        # Pairs in either order in which a wins; of a with itself all are "won" by it.
        p = mu[a] ** 2 if a == b else 2 * mu[a] * mu[b] / (1 + math.exp(r[b] - r[a]))
        off = float(wins[:, a, b].sum()) - total * p
        assert abs(off) < 5 * math.sqrt(total * p * (1 - p)), (a, b)  # five standard deviations


def test_likelihood_pair_by_pair() -> None:
    rewards = torch.tensor([[[0.5, -0.2, 1.0], [0.0, 2.0, -3.0]]], dtype=torch.float64)
    pairs = [(0, 1), (0, 1), (1, 0), (2, 0), (2, 1), (1, 2), (2, 2)]
    wins = torch.zeros(1, 3, 3, dtype=torch.float64)
    for winner, loser in pairs:
        wins[0, winner, loser] += 1
    # A pair of a response with itself is a coin whatever the reward, and left out.
    expected = [math.fsum(-math.log1p(math.exp(r[b] - r[a])) for a, b in pairs if a != b) for r in rewards[0].tolist()]
    assert log_likelihoods(wins, rewards)[0].tolist() == pytest.approx(expected, abs=1e-13)  # seven terms of order 1


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_mean_error_by_enumeration_of_the_data(shift: float) -> None:
    """Two responses, three pairs, three policies: all 3-tuples of outcomes (a won, b won, same) against 20 000 draws."""
    gamma, worlds = 2.0, 20_000
    target, far = (0.7, 0.3), (0.4, 0.6)
    policies = [(0.9, 0.1), (0.5, 0.5), target]
    mu = target if shift == 0 else far
    p = 1 / (1 + (target[1] / target[0]) ** gamma)
    outcomes = {"a": 2 * mu[0] * mu[1] * p, "b": 2 * mu[0] * mu[1] * (1 - p), "same": mu[0] ** 2 + mu[1] ** 2}
    expected = 0.0
    for data in itertools.product(outcomes, repeat=3):
        signs = [1 if label == "a" else -1 for label in data if label != "same"]
        scores = [math.fsum(-math.log1p((q[1] / q[0]) ** (gamma * sign)) for sign in signs) for q in policies]
        q = policies[scores.index(max(scores))]
        kl = math.fsum(t * math.log(t / u) for t, u in zip(target, q, strict=True))
        expected += math.prod(outcomes[label] for label in data) * kl
    log_policies = torch.stack([logs(*q) for q in policies])
    directions = (log_policies - logs(*target))[:2]
    classes = Classes(
        logs(*target).expand(worlds, 2),
        logs(*far).expand(worlds, 2),
        directions.expand(worlds, 2, 2),
        log_policies.expand(worlds, 3, 2),
        octaves=1,
    )
    found = simulate(classes, shift, 3, gamma, [1]).pmle["all"].error
    assert float(found.mean()) == pytest.approx(expected, abs=5 * float(found.std()) / math.sqrt(worlds))


def test_reverse_kl_is_the_nearest_policy() -> None:
    """By KL(π‖π̃), π̃ ∝ e^{R̂/γ}, summed in Python; R̂ is no reward of the class, so that the nearest is not π̃ itself."""
    classes = random_classes(worlds=5, **SHAPE)
    reward = torch.randn((5, 5), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    found = reverse_kl(classes, reward, 0.5).tolist()
    for world in range(5):
        aim = (reward[world] / 0.5).log_softmax(-1).tolist()
        distances = [
            math.fsum(math.exp(lp) * (lp - la) for lp, la in zip(log_p, aim, strict=True))
            for log_p in classes.log_policies[world].tolist()
        ]
        assert found[world] == distances.index(min(distances))


def test_reverse_kl_returns_a_policy_whose_reward_it_is_given() -> None:
    """ADL's (A5), P_γ(R) ⊆ Π: the policy of R̂ is in the class, at KL 0."""
    classes = random_classes(worlds=4, **SHAPE)
    for index in (0, 3, 17, 32):
        assert reverse_kl(classes, 0.7 * classes.log_policies[:, index] + 1.5, 0.7).tolist() == [index] * 4


def test_classes_of_one_coverage() -> None:
    classes = random_classes(worlds=7, **SHAPE)
    log_mu = between(classes.log_target, classes.log_far, 1.0)
    ratios = coverages(classes.directions, classes.log_target, log_mu)
    differences = classes.log_policies - classes.log_target.unsqueeze(1)
    of_policies = coverages(differences, classes.log_target, log_mu)
    members = policy_classes(classes, ratios)
    found = {name: of_policies.masked_fill(~inside, 0).amax(-1) for name, inside in members.items()}
    for name in members:  # all hold the worst direction; differences of logarithms lose digits
        torch.testing.assert_close(found[name], found["all"], rtol=1e-10, atol=0)
    sizes = {name: set(inside.sum(-1).tolist()) for name, inside in members.items()}
    assert sizes == {"all": {33}, "well covered near": {21}, "badly covered near": {21}, "worst direction": {5}}
    near = {
        name: (of_policies * inside)[:, 3:32:4].sum(-1) for name, inside in members.items()
    }  # the nearest of each direction
    assert bool((near["well covered near"] < near["badly covered near"]).all())
    rewards = reward_classes(classes, ratios)
    most = {name: of_policies.masked_fill(~inside, 0).amax(-1) for name, inside in rewards.items()}
    torch.testing.assert_close(most["best quarter"], ratios.sort(-1).values[:, 1], rtol=1e-10, atol=0)
    torch.testing.assert_close(most["worst quarter"], found["all"], rtol=1e-10, atol=0)
    torch.testing.assert_close(most["any quarter"], ratios[:, :2].amax(-1), rtol=1e-10, atol=0)


def test_class_of_policies() -> None:
    """Policy m: direction m // octaves, at distance 2·2^{−(m % octaves)}; the last is π*."""
    classes = random_classes(worlds=3, **SHAPE)
    shifted = classes.log_target + 2.0 * 0.25 * classes.directions[:, 5]
    torch.testing.assert_close(classes.log_policies[:, 5 * 4 + 2], shifted.log_softmax(-1), rtol=1e-12, atol=0)
    assert torch.equal(classes.log_policies[:, -1], classes.log_target)
    target, policy = classes.log_target[2].tolist(), classes.log_policies[2, 7].tolist()
    kl = math.fsum(math.exp(t) * (t - q) for t, q in zip(target, policy, strict=True))
    assert float(classes.divergences[2, 7]) == pytest.approx(kl, abs=1e-14)  # five terms of order 1


def test_most_likely_of_the_members() -> None:
    likelihood = torch.tensor([[-1.0, -3.0, -2.0], [-9.0, -1.0, -2.0]])
    members = torch.tensor([[False, True, True], [True, False, True]])
    assert most_likely(likelihood, members).tolist() == [2, 2]


def test_sizes_of_classes_at_the_target() -> None:
    sized = by_size(random_classes(worlds=4, **SHAPE), 64, 0.5, [0])
    assert [learned.size for learned in sized] == [5, 9, 17, 33]
    for learned in sized:
        torch.testing.assert_close(learned.coverage, torch.ones(4, dtype=torch.float64), rtol=1e-12, atol=0)
