"""prefdist.objectives.policy_gradient: advantages, rewards of tokens, RLOO, PPO and the KL surrogate."""

import pytest
import torch
from test_objectives import EXACT, batch, drawn

from prefdist.objectives import load
from prefdist.objectives.policy_gradient import advantages, kl_surrogate, token_rewards, whiten


def test_advantages_are_the_exponentially_weighted_sum() -> None:
    mask = torch.arange(5) < torch.tensor([[5], [3], [1]])
    rewards, values = (drawn(3, 5, seed=k) * mask for k in (0, 1))
    found = advantages(rewards, values, mask, 0.9)
    for row, length in enumerate((5, 3, 1)):
        v = [*values[row, :length].tolist(), 0.0]
        delta = [rewards[row, t].item() + v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            brute = sum(0.9 ** (u - t) * delta[u] for u in range(t, length))
            assert found[row, t].item() == pytest.approx(brute, abs=1e-12)
        assert (found[row, length:] == 0).all()


def test_advantages_ignore_values_behind_the_mask() -> None:
    mask = torch.tensor([[True, True, False]])
    rewards, values = drawn(1, 3) * mask, drawn(1, 3, seed=1)
    kept = advantages(rewards, values * mask, mask, 0.9)
    torch.testing.assert_close(advantages(rewards, values, mask, 0.9), kept, rtol=0, atol=0)


def test_token_rewards_sum_to_the_return() -> None:
    logps, columns = batch(load("reverse_kl_rloo").row)
    rewards = token_rewards(logps["old"], logps["reference"], columns["mask"], columns["scores"], kl=0.3, entropy=0.2)
    old, reference = logps["old"].sum(-1), logps["reference"].sum(-1)
    torch.testing.assert_close(rewards.sum(-1), columns["scores"] - 0.5 * old + 0.3 * reference, **EXACT)
    assert (rewards[~columns["mask"]] == 0).all()


def test_rloo_gradient_is_the_baselined_score_function() -> None:
    row = {"title": "", "source": "", "family": "policy_gradient", "algorithm": "rloo", "kl": 0.3, "entropy": 0.2}
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    old, reference, scores = -drawn(2, 3, 4).abs(), -drawn(2, 3, 4, seed=1).abs(), drawn(2, 3, seed=2)
    policy = old.clone().requires_grad_()
    load(row)({"policy": policy, "old": old, "reference": reference}, {"mask": mask, "scores": scores}).sum().backward()
    returns = scores - 0.5 * old.sum(-1) + 0.3 * reference.sum(-1)
    baseline = torch.stack([returns[:, [1, 2]].mean(-1), returns[:, [0, 2]].mean(-1), returns[:, [0, 1]].mean(-1)], -1)
    expected = (-(returns - baseline) / 3).unsqueeze(-1).expand_as(old)
    torch.testing.assert_close(policy.grad, expected, **EXACT)


def test_rloo_needs_two_samples() -> None:
    logps, columns = batch(load("rlhf_rloo").row)
    with pytest.raises(ValueError, match="2 or more samples"):
        load("rlhf_rloo")({k: v[:, :1] for k, v in logps.items()}, {k: v[:, :1] for k, v in columns.items()})


def test_kl_surrogate_weighs_log_probabilities_by_rewards_to_go() -> None:
    policy, reference = (-drawn(1, 2, 2, seed=k).abs() for k in (0, 1))
    mask = torch.tensor([[[True, True], [True, False]]])
    policy, reference = (policy * mask).requires_grad_(), reference * mask
    kl_surrogate(policy, reference, mask).sum().backward()
    ratio = (policy - reference).detach()[0]
    first, second = ratio[0].sum(), ratio[1, 0]
    expected = torch.tensor([[[first - second, ratio[0, 1] - second], [second - first, 0.0]]], dtype=torch.float64) / 2
    torch.testing.assert_close(policy.grad, expected, **EXACT)


def test_whiten_uses_the_mask_alone() -> None:
    mask = torch.tensor([[True, True, False], [True, False, False]])
    whitened = whiten(drawn(2, 3), mask)
    kept = whitened[mask]
    assert kept.mean().item() == pytest.approx(0, abs=1e-12)
    assert kept.std(unbiased=False).item() == pytest.approx(1, abs=1e-7)  # 1e-8 is added to the deviation
    assert (whitened[~mask] == 0).all()


def test_ppo_is_a_token_mean_over_the_rollout() -> None:
    objective = load("rlhf_ppo")
    logps, columns = batch(objective.row)
    columns |= objective.prepare(logps, columns)  # type: ignore[attr-defined]
    mask, values = columns["mask"], columns["values"]
    at_old = logps | {"policy": logps["old"]}
    # At ratio 1 the policy loss is −mean advantage, which whitening makes 0; the value loss is half the squared error.
    value_loss = ((values - columns["returns"]).square() * mask).sum() / mask.sum() / 2
    assert objective(at_old, columns).mean().item() == pytest.approx(0.1 * value_loss.item(), abs=1e-12)
