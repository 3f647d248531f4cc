"""Optima and objectives as each work writes them, in its own symbols and with nothing shared: the judges of `tilt`.

All arguments are probabilities (not logarithms) [..., Y], rewards [..., Y], and weights [..., 1]; products are taken in
probability space, so exponents must be moderate. Left out: token-level forms.
"""

from torch import Tensor


def spl_optimum(reference: Tensor, reward: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """π ∝ π_ref^{β/α}·e^{r/α} (SPL, arXiv 2511.08594, Prop. 3.2)."""
    return _normalised(reference ** (beta / alpha) * (reward / alpha).exp())


def spl_objective(policy: Tensor, reference: Tensor, reward: Tensor, alpha: Tensor, beta: Tensor) -> Tensor:
    """E[r] + α·H(π) − β·H(π, π_ref), with the cross-entropy H(π, π_ref) = −E_π[ln π_ref]: [..., 1] nats."""
    entropy = -(policy * policy.log()).sum(-1, keepdim=True)
    cross_entropy = -(policy * reference.log()).sum(-1, keepdim=True)
    return (policy * reward).sum(-1, keepdim=True) + alpha * entropy - beta * cross_entropy


def adl_optimum(prior: Tensor, reward: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """p_k ∝ p_{0,k}^a·e^{r_k/(β+γ)}, a = β/(β+γ): reverse KL (ADL, arXiv 2506.01523, App. B)."""
    exponent = 1 / (1 + gamma / beta)
    return _normalised(prior**exponent * (reward / (beta + gamma)).exp())


def adl_loss(policy: Tensor, prior: Tensor, reward: Tensor, beta: Tensor, gamma: Tensor) -> Tensor:
    """−E[r] − γ·H(π) + β·KL(π‖π_0): [..., 1] nats (ADL, Eq. 15)."""
    entropy = -(policy * policy.log()).sum(-1, keepdim=True)
    divergence = (policy * (policy / prior).log()).sum(-1, keepdim=True)
    return -(policy * reward).sum(-1, keepdim=True) - gamma * entropy + beta * divergence


def rlhf_optimum(reference: Tensor, reward: Tensor, beta: Tensor) -> Tensor:
    """π_ref·e^{r/β}/Z, what RLHF and DPO aim at (DPO, arXiv 2305.18290, Eq. 4)."""
    return _normalised(reference * (reward / beta).exp())


def huang_optimum(aligned: Tensor, unaligned: Tensor, share: Tensor, reward: Tensor, beta: Tensor) -> Tensor:
    """α_A(y)·p_A(y) + α_U(y)·p_U(y) with α_A = α·e^{r/β}/Z, α_U = (1 − α)·e^{r/β}/Z; `share` is α (Huang, Lemma 1)."""
    growth = (reward / beta).exp()
    partition = (share * aligned * growth).sum(-1, keepdim=True) + ((1 - share) * unaligned * growth).sum(-1, keepdim=True)
    return share * growth / partition * aligned + (1 - share) * growth / partition * unaligned


def adl_preference(policy: Tensor, gamma: Tensor) -> Tensor:
    """P(a ≻ b) = π(a)^γ/(π(a)^γ + π(b)^γ): [..., Y, Y] (ADL, Eq. 2)."""
    powers = policy**gamma
    return powers.unsqueeze(-1) / (powers.unsqueeze(-1) + powers.unsqueeze(-2))


def _normalised(weights: Tensor) -> Tensor:
    return weights / weights.sum(-1, keepdim=True)
