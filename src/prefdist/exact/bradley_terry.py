"""Bradley-Terry's maximum likelihood on tables of wins, thousands of tables at once. Left out: sampling the wins."""

import torch
from torch import Tensor

MAX_STEPS = 200
LONGEST_STEP = 2.0
"""Nats a score may move in one step: with a ridge of nothing and few wins the quadratic model is good no further."""
SETTLED = 1e-10
"""Nats of the last step."""


def fit(wins: Tensor, ridge: float = 0.0) -> Tensor:
    """Scores r that minimise −Σ wins[a, b]·ln σ(r_a − r_b) + ridge/2·Σ r², centred: [..., Y, Y] -> [..., Y].

    wins[a, b] ≥ 0: how often, or with which probability, a beat b; the ridge stands beside their sum. ValueError where
    wins are negative or not finite; RuntimeError where there is no finite optimum: without a ridge, some responses beat
    all others whenever they meet, or never meet them (Ford 1957).
    """
    if not bool((wins.isfinite() & (wins >= 0)).all()):
        raise ValueError("wins must be finite and ≥ 0: they are counts or probabilities of a beating b")
    met = wins + wins.mT
    size = wins.shape[-1]
    identity = torch.eye(size, dtype=wins.dtype)
    same = torch.full_like(identity, 1 / size)  # a constant added to all scores changes nothing: give it a slope
    scores = torch.zeros(wins.shape[:-1], dtype=wins.dtype)
    for _ in range(MAX_STEPS):
        expected = torch.sigmoid(scores.unsqueeze(-1) - scores.unsqueeze(-2))
        gradient = (met * expected - wins).sum(-1) + ridge * scores
        curvature = met * expected * (1 - expected)
        hessian = torch.diag_embed(curvature.sum(-1)) - curvature + ridge * identity
        scale = hessian.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None].clamp_min(torch.finfo(wins.dtype).tiny)
        step, info = torch.linalg.solve_ex(hessian + scale * same, gradient)
        longest = step.abs().amax(-1)
        if bool(info.any()) or not bool(longest.isfinite().all()):
            break
        scores = scores - step / (longest / LONGEST_STEP).clamp_min(1).unsqueeze(-1)
        if bool((longest <= SETTLED).all()):
            return scores - scores.mean(-1, keepdim=True)
    raise RuntimeError(
        f"Bradley-Terry with ridge {ridge:g}: no finite optimum found in {MAX_STEPS} steps; some responses always win or "
        "never meet the others: use a ridge > 0"
    )
