"""Maximise E_π[r̂] + γ·H(π) − β·KL(π‖π₀): RLHF (γ = 0) and ADL's reverse KL (γ > 0), by RLOO or PPO.

Entropy and KL are of whole sequences and enter through the reward, −(β+γ)·log π + β·log π₀ per token: the
score-function form, whose gradient is exact. Differentiating log π − log π₀ gives zero, k3 and token means are biased
(the table of estimators in the exact suite). Everything is per token, [B, n, T], zero outside `mask`.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from prefdist.objectives.rows import PolicyGradientRow

Total = Callable[[Tensor], Tensor]
"""Sums a tensor over the processes of a run."""


def _alone(tensor: Tensor) -> Tensor:
    return tensor


def kl_surrogate(policy: Tensor, reference: Tensor, mask: Tensor) -> Tensor:
    """A loss whose gradient is that of KL(π‖π₀), for fresh samples of π: tokens [B, n, T] -> [B], mean over samples.

    Reward-to-go of the log-ratio times log π (Rao-Blackwellised score function), the other samples of the prompt as
    baseline. Its value is not the KL: report the mean of the summed log-ratios.
    """
    log_ratio = ((policy - reference) * mask).detach()
    to_go = log_ratio.flip(-1).cumsum(-1).flip(-1)
    to_go = to_go - _others_mean(log_ratio.sum(-1)).unsqueeze(-1)
    return (to_go * policy * mask).sum(-1).mean(-1)


def token_rewards(old: Tensor, reference: Tensor, mask: Tensor, reward: Tensor, *, kl: float, entropy: float) -> Tensor:
    """−(β+γ)·log π_old + β·log π₀ at each token, r̂ [B, n] added at the last: [B, n, T]. Sums to the sequence's return."""
    per_token = (-(kl + entropy) * old + kl * reference) * mask
    last = mask.long().sum(-1, keepdim=True) - 1
    return per_token.scatter_add(-1, last, reward.unsqueeze(-1))


def advantages(rewards: Tensor, values: Tensor, mask: Tensor, gae_lambda: float) -> Tensor:
    """Generalised advantage estimation (arXiv 1506.02438, Eq. 16) with discount 1: [B, n, T], zero outside the mask."""
    next_values = torch.cat([values[..., 1:], torch.zeros_like(values[..., :1])], dim=-1)
    next_mask = torch.cat([mask[..., 1:], torch.zeros_like(mask[..., :1])], dim=-1)
    delta = rewards + next_values * next_mask - values
    result = torch.zeros_like(delta)
    running = torch.zeros_like(delta[..., 0])
    for t in reversed(range(delta.shape[-1])):
        running = (delta[..., t] + gae_lambda * running) * mask[..., t]
        result[..., t] = running
    return result


def whiten(values: Tensor, mask: Tensor, total: Total = _alone) -> Tensor:
    """Mean 0 and variance 1 over the tokens of the mask, in all processes together."""
    count, first = total(mask.sum()), total((values * mask).sum())
    centred = (values - first / count) * mask
    return centred / ((total(centred.square().sum()) / count).sqrt() + 1e-8)


def _others_mean(values: Tensor) -> Tensor:
    """Mean over the prompt's other samples, [B, n] -> [B, n]; zero for a single sample."""
    n = values.shape[-1]
    return (values.sum(-1, keepdim=True) - values) / max(n - 1, 1)


class Rloo:
    """REINFORCE with the other samples' mean return as baseline, the whole response as one action.

    logps: "policy", "old", "reference" [B, n, T]; columns: "mask" [B, n, T], "scores" [B, n] = r̂. n ≥ 2.
    """

    needs = frozenset({"old", "reference", "mask", "scores"})

    def __init__(self, row: PolicyGradientRow) -> None:
        self.row = row

    def __call__(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """Losses [B]: −(return − baseline)·π/π_old, mean over the samples."""
        mask, old = columns["mask"], logps["old"].detach()
        if mask.shape[1] < 2:
            raise ValueError("rloo needs 2 or more samples a prompt: its baseline is the mean of the others")
        coefficients = {"kl": float(self.row.kl), "entropy": float(self.row.entropy)}
        returns = token_rewards(old, logps["reference"], mask, columns["scores"], **coefficients).sum(-1)
        ratio = ((logps["policy"] - old) * mask).sum(-1).exp()
        return -((returns - _others_mean(returns)).detach() * ratio).mean(-1)


class Ppo:
    """Clipped policy loss and clipped value loss (arXiv 1707.06347), per token, advantages whitened over the rollout.

    logps: "policy" [B, n, T]; columns: "mask", "old", "values" (the critic now), and from `prepare` "advantages",
    "returns", "old_values" [B, n, T], "weight" (1 / mean response tokens of the rollout).
    """

    needs = frozenset({"old", "reference", "mask", "scores", "values"})

    def __init__(self, row: PolicyGradientRow) -> None:
        self.row = row

    def prepare(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor], total: Total = _alone) -> dict[str, Tensor]:
        """Columns computed once for a whole rollout from "old", "reference", "scores" and the critic's "values".

        `total` sums a tensor over processes.
        """
        row, mask, values = self.row, columns["mask"], columns["values"]
        rewards = token_rewards(
            logps["old"], logps["reference"], mask, columns["scores"], kl=float(row.kl), entropy=float(row.entropy)
        )
        raw = advantages(rewards, values, mask, row.gae_lambda)
        samples = total(mask.any(-1).sum())
        per_token = samples / total(mask.sum())
        return {
            "advantages": whiten(raw, mask, total),
            "returns": raw + values,
            "old_values": values,
            "weight": per_token.expand(mask.shape[:2]),
        }

    def __call__(self, logps: Mapping[str, Tensor], columns: Mapping[str, Tensor]) -> Tensor:
        """Losses [B]: policy loss + value_coefficient·value loss, so scaled that the rollout's mean is a token mean."""
        row, mask = self.row, columns["mask"]
        advantage = columns["advantages"]
        ratio = ((logps["policy"] - logps["old"].detach()) * mask).exp()
        clipped = ratio.clamp(1 - row.clip, 1 + row.clip)
        policy_loss = torch.maximum(-advantage * ratio, -advantage * clipped)
        values, old_values = columns["values"], columns["old_values"]
        near = old_values + (values - old_values).clamp(-row.value_clip, row.value_clip)
        value_loss = torch.maximum((values - columns["returns"]).square(), (near - columns["returns"]).square()) / 2
        per_token = (policy_loss + row.value_coefficient * value_loss) * mask
        return (per_token.sum(-1) * columns["weight"]).mean(-1)


def build(row: PolicyGradientRow) -> Rloo | Ppo:
    return Rloo(row) if row.algorithm == "rloo" else Ppo(row)
