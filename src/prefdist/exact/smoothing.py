"""ADL's prior smoothing (arXiv 2506.01523, App. B): reverse KL's optimum has π₀ to a power below one.

    min −p·r − γ·H(p) + β·KL(p‖π₀)  =  min −p·r + (β+γ)·KL(p‖π₀^a),  a = β/(β+γ),   at p ∝ π₀^a·exp(r/(β+γ)).

Left out: how the optimum is reached, and rewards that depend on the prior.
"""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from prefdist.exact.closed_forms import check_normalised, tilt
from prefdist.exact.mixtures import check_outputs


def smoothed(log_prior: Tensor, reward: Tensor, beta: float, gamma: float) -> Tensor:
    """log p [..., K] of reverse KL's optimum; γ = 0 is RLHF, β = γ = 0 its limit, all mass on the largest reward.

    ValueError: β or γ negative or infinite, a prior that does not sum to one, or log 0 in it at β = 0.
    """
    for name, value in (("beta", beta), ("gamma", gamma)):
        if not 0 <= value < float("inf"):
            raise ValueError(f"{name} must be ≥ 0 and finite, got {value:g}")
    if beta + gamma == 0:
        check_normalised(log_prior, "log_prior")
        best = torch.nn.functional.one_hot(reward.argmax(-1), reward.shape[-1])
        return best.to(reward.dtype).log()
    return tilt(log_prior, reward, temperature=beta + gamma, ref_power=beta / (beta + gamma))


def loss(p: Tensor, log_prior: Tensor, reward: Tensor, beta: float, gamma: float) -> Tensor:
    """−p·r − γ·H(p) + β·KL(p‖π₀): [..., K] -> [...], in units of the reward (ADL, Eq. 15)."""
    return -(p * reward).sum(-1) - gamma * entropy(p) + beta * divergence(p, log_prior)


def smoothed_loss(p: Tensor, log_prior: Tensor, reward: Tensor, beta: float, gamma: float) -> Tensor:
    """−p·r + (β+γ)·KL(p‖π₀^a/Z) − (β+γ)·ln Z, the same by ADL, App. B; Z = Σ π₀^a."""
    total = beta + gamma
    power = beta / total * log_prior
    return -(p * reward).sum(-1) + total * (divergence(p, power.log_softmax(-1)) - power.logsumexp(-1))


def entropy(p: Tensor) -> Tensor:
    """H(p) in nats: [..., K] -> [...]."""
    return torch.special.entr(p).sum(-1)


def divergence(p: Tensor, log_q: Tensor) -> Tensor:
    """KL(p‖q) in nats; 0·ln 0 is 0: [..., K] -> [...]."""
    return -entropy(p) - (p * log_q).sum(-1)


@dataclass(frozen=True)
class Priors:
    """S worlds of K outputs: log π₀ and r [S, K], and which outputs have a low prior, and that and a high reward."""

    log_prior: Tensor
    reward: Tensor
    low: Tensor
    wanted: Tensor


def random_priors(worlds: int, outputs: int, spread: float, share: float, seed: int) -> Priors:
    """Logits of π₀ from N(0, spread²), rewards from N(0, 1), each on its own.

    Low prior: the lowest `share` of the outputs; wanted: those of them among the highest `share` of rewards. Worlds without a
    wanted output are left out, so there are fewer than `worlds`. ValueError: a share of less than one output, or above ½; no
    world that has one.
    """
    check_outputs(outputs)
    if not 1 <= share * outputs <= outputs / 2:
        raise ValueError(f"share must be 1/{outputs} … 1/2 of {outputs} outputs, got {share:g}")
    generator = Generator().manual_seed(seed)
    logits, reward = torch.randn((2, worlds, outputs), generator=generator, dtype=torch.float64)
    log_prior = (spread * logits).log_softmax(-1)
    count = int(share * outputs)
    low = log_prior.argsort(-1).argsort(-1) < count
    wanted = low & (reward.argsort(-1).argsort(-1) >= outputs - count)
    kept = wanted.any(-1)
    if not bool(kept.any()):
        raise ValueError(f"worlds must be more than {worlds}: in none of these has a low prior a high reward")
    return Priors(log_prior[kept], reward[kept], low[kept], wanted[kept])
