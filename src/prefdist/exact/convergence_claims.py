"""What ADL and SPL say about finite data, against the learning curves of the study `convergence`."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from prefdist.exact.learners import DPO, LEARN_TARGET, PMLE, REVERSE_KL
from prefdist.exact.learning_curves import DIVERGENCES, Curves, Toy, asymptote, choose, without_data
from prefdist.exact.study import Claim, Row, mean_interval

CLOSE = 0.1
"""Of a slope from −1, and of a ratio from 1: what terms of higher order and 20 seeds may do."""
SAME = 1e-3
"""Relative: equal but for the ridge, which one method applies once and another twice."""
MATTERS = 0.02
"""Relative difference in KL that makes one method nearer to π* than another: intervals tell smaller ones apart."""
Found = Mapping[str, Curves]
"""Learning curves by method."""


def check_claims(
    found: Found, slopes: Sequence[Row], plateaus: Sequence[Row], toy: Toy, sizes: Sequence[int], slope_sizes: Sequence[int]
) -> list[Claim]:
    """Of the tables `convergence_slopes`, fitted over `slope_sizes`, and `convergence_plateaus`, and the curves themselves."""
    blind = without_data(toy)
    means = {name: float(kl.mean()) for name, kl in blind.items()}
    return [
        _rate(slopes, slope_sizes),
        _constant(found, sizes[-1], toy),
        _one_estimator(found, sizes),
        *_floors(plateaus, slopes, sizes[-1], means),
        _beyond_blind(found, sizes, blind["uniform"]),
        *_comparisons(found, sizes),
    ]


def select(rows: Sequence[Row], by: str, divergence: str) -> list[Row]:
    return [row for row in rows if (row["β chosen by"], row["divergence"]) == (by, divergence)]


def _rate(slopes: Sequence[Row], sizes: Sequence[int]) -> Claim:
    mine = [row for row in select(slopes, "none", DIVERGENCES["forward"]) if row["method"] in LEARN_TARGET]
    listed = "; ".join(f"{row['method']} {row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in mine)
    return Claim(
        "E[KL(π*‖π)] of PMLE, distillation (pairs of μ, and fresh pairs of π₀) and reverse KL falls as 1/n at β = 0",
        "ADL, Theorems 4, 6, 7 and 14",
        f"slope of ln KL over ln n from {sizes[0]} to {sizes[-1]} pairs, {mine[0]['n']} seeds: {listed}",
        "holds" if all(abs(row["estimate"] + 1) <= CLOSE for row in mine) else "fails",
    )


def _constant(found: Found, size: int, toy: Toy) -> Claim:
    """`uniform`: the limit of n·KL if all responses are equally likely and all labels a coin's."""
    expected = asymptote(toy)
    _, contexts, actions = toy.log_target.shape
    uniform = contexts * (actions - 1) / toy.gamma**2
    ratio = mean_interval((size * found[REVERSE_KL].forward[0, -1] / expected).tolist())
    return Claim(
        "n·KL(π*‖π) tends to the Fisher information's constant, which is of order 1/γ² as the bounds are",
        "ADL, Theorems 4, 6 and 7 (C/γ²)",
        f"n·KL is {size * float(found[REVERSE_KL].forward[0, -1].mean()):.0f} nats at n = {size}, {ratio['estimate']:.3f} "
        f"[{ratio['low']:.3f}, {ratio['high']:.3f}] of {float(expected.mean()):.1f} by Fisher's information, which is nearly "
        f"X(Y−1)/γ² = {uniform:.0f}",
        "holds" if abs(ratio["estimate"] - 1) <= CLOSE else "fails",
    )


def _one_estimator(found: Found, sizes: Sequence[int]) -> Claim:
    base = found[REVERSE_KL].forward[0]
    others = torch.stack([found[name].forward[0] for name in LEARN_TARGET if name != REVERSE_KL])
    apart = ((others - base).abs() / base).amax((0, 2)).tolist()
    return Claim(
        "PMLE, distillation and reverse KL are different estimators at β = 0",
        "ADL, after Theorem 7 (C_R ≤ C_Π)",
        f"relative difference of KL(π*‖π), largest over methods and seeds: {apart[0]:.2g} at {sizes[0]} pairs, "
        f"{apart[-1]:.1g} at {sizes[-1]}; in a full table all are Bradley-Terry's maximum likelihood once all responses "
        "were compared",
        _verdict([gap > SAME for gap in apart], sizes),
    )


def _floors(plateaus: Sequence[Row], slopes: Sequence[Row], size: int, blind: Mapping[str, float]) -> Iterator[Claim]:
    """DPO and RLHF, then SPL: does KL stop at a floor, even at the oracle's β? `blind`: KL of policies that saw no pairs."""
    falls = {row["method"]: row["estimate"] for row in select(slopes, "oracle", DIVERGENCES["forward"])}
    without_data = ", ".join(f"{name} {kl:.2g}" for name, kl in blind.items())
    for row in plateaus:
        name = row["method"]
        if row["β chosen by"] != "oracle" or not (name == DPO or name.startswith("SPL")):
            continue
        claim, source = f"{name} learns π* (β = 0, or the best β)", "SPL, Prop. 3.2, with r = γ·ln π* (ADL, Eq. 2)"
        if name == DPO:
            claim, source = "DPO and RLHF do not learn π*: KL stops at a floor, even at the best β", "ADL, Fig. 1 and App. D.1"
        floor = row["infinite data, low"] > row["excess"]
        yield Claim(
            claim,
            source,
            f"oracle's β (median {row['median β']:.3g}), {size} pairs, {row['n']} seeds: {row['estimate']:.2g} "
            f"[{row['low']:.2g}, {row['high']:.2g}] nats, of which {row['infinite data']:.2g} stay with infinitely many pairs; "
            f"slope {falls[name]:.2f}; without data: {without_data}",
            "holds" if floor == (name == DPO) else "fails",
        )


def _beyond_blind(found: Found, sizes: Sequence[int], uniform: Tensor) -> Claim:
    """`uniform` [S]: KL(π*‖π) of the uniform policy."""
    ratio = (choose(found[REVERSE_KL], "oracle")["forward"] / uniform).log()
    cells = [mean_interval(values.tolist()) for values in ratio]
    return Claim(
        "regularised towards π₀, at the best β, reverse KL is nearer to π* than a policy that knows nothing",
        "the purpose of β·KL (ADL, Eq. 15)",
        "KL(π*‖π) over that of the uniform policy, geometric mean at n = "
        + ", ".join(f"{size}: {math.exp(cell['estimate']):.2g}" for size, cell in zip(sizes, cells, strict=True)),
        _verdict([cell["high"] < 0 for cell in cells], sizes),
    )


def _comparisons(found: Found, sizes: Sequence[int]) -> Iterator[Claim]:
    """Of two methods, or two ways to choose β, which comes nearer to π*, seed by seed."""

    def compare(claim: str, source: str, name: str, by: str, other: str, other_by: str) -> Claim:
        ratio = (choose(found[name], by)["forward"] / choose(found[other], other_by)["forward"]).log()
        cells = [mean_interval(values.tolist()) for values in ratio]
        listed = ", ".join(f"{math.exp(cell['estimate']):.2g}" for cell in cells)
        farther = [str(size) for size, cell in zip(sizes, cells, strict=True) if cell["low"] > MATTERS]
        return Claim(
            f"{claim} (β: {by})",
            source,
            f"ratio of KL(π*‖π), geometric mean over {cells[0]['n']} seeds, n = {sizes[0]} … {sizes[-1]}: {listed}; "
            f"farther (95 %, by {MATTERS:.0%}) at n = {', '.join(farther) or 'none'}",
            _verdict([cell["high"] < -MATTERS for cell in cells], sizes),
        )

    for by in ("held-out", "oracle"):
        yield compare("reverse KL comes nearer to π* than DPO and RLHF", "ADL, Fig. 1", REVERSE_KL, by, DPO, by)
    for by in ("held-out", "oracle"):
        claim = "reverse KL, on-policy, comes nearer to π* than PMLE with β·KL in the loss"
        yield compare(claim, "ADL, after Theorem 7 (C_R ≤ C_Π)", REVERSE_KL, by, PMLE, by)
    for name in (PMLE, REVERSE_KL):
        claim = f"β·KL helps {name}, which its theorem does without"
        yield compare(claim, "ADL, Eq. 5 and 15", name, "held-out", name, "none")


def _verdict(true: Sequence[bool], sizes: Sequence[int]) -> str:
    """Of a claim about every n; "under" are the n where it is true."""
    under = [size for size, holds in zip(sizes, true, strict=True) if holds]
    if len(under) in (0, len(sizes)):
        return "holds" if under else "fails"
    if list(sizes[sizes.index(under[0]) : sizes.index(under[-1]) + 1]) == under:
        return f"holds under n = {under[0]} … {under[-1]}" if len(under) > 1 else f"holds under n = {under[0]}"
    return f"holds under {len(under)} of {len(sizes)} n: {', '.join(map(str, under))}"
