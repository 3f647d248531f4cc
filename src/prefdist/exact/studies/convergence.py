"""How fast do methods learn π* from n pairs, and which do not? ADL's toy world (App. D.1), β = 0, held out and by oracle."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.learning_curves import (
    Curves,
    Learner,
    Toy,
    asymptote,
    choose,
    distilled,
    draw_pairs,
    likelihood,
    measure,
    tilted,
    toy_worlds,
)
from prefdist.exact.study import Claim, Row, Study, mean_interval, stage
from prefdist.style import COLOURS, MARKERS, PALE, new_figure

CHOICES = {"none": "no regulariser (DPO: β = γ)", "held-out": "β by held-out pairs", "oracle": "β by oracle"}
DIVERGENCES = {"forward": "KL(π*‖π)", "reverse": "KL(π‖π*)"}
PMLE, DISTILLED, ON_FRESH = "PMLE", "distillation", "distillation, fresh pairs"
REVERSE_KL, DPO = "reverse KL", "DPO, RLHF"
LEARN_TARGET = (PMLE, DISTILLED, ON_FRESH, REVERSE_KL)
"""By ADL's theorems, without a regulariser."""
CLOSE = 0.1
"""Of a slope from −1, and of a ratio from 1: what terms of higher order and 20 seeds may do."""
SAME = 1e-3
"""Relative: equal but for the ridge, which one method applies once and another twice."""
Found = Mapping[str, Curves]


def convergence(
    *,
    contexts: int,
    actions: int,
    gamma: float,
    spread: float,
    seeds: int,
    octaves: tuple[int, int],
    slope_octaves: int,
    betas: Sequence[float],
    fixed_betas: Sequence[float],
    alphas: Sequence[float],
    ridge: float,
    held_out: float,
) -> Study:
    """n = 2^first … 2^last pairs; slopes over the last `slope_octaves` doublings; plateaus at `fixed_betas`, which are of `betas`.

    ValueError: too few octaves for a slope, fixed betas that are not among betas, or what `draw_pairs` refuses.
    """
    first, last = octaves
    if not 0 < slope_octaves <= last - first:
        raise ValueError(f"slope_octaves must be 1 … {last - first} for octaves {first} … {last}, got {slope_octaves}")
    if not set(fixed_betas) <= set(betas):
        raise ValueError(f"fixed_betas must be among betas {list(betas)}, got {list(fixed_betas)}")
    sizes = [2**octave for octave in range(first, last + 1)]
    toy = toy_worlds(contexts=contexts, actions=actions, seeds=range(seeds), gamma=gamma, spread=spread)
    pairs = draw_pairs(toy, sizes, held_out)
    found = {
        name: measure(toy, pairs, learner, [gamma if name == DPO else 0.0, *betas])
        for name, learner in _learners(toy, ridge, alphas).items()
    }
    rows = [row for name, curves in found.items() for row in _curve(name, curves, sizes)]
    slopes = [row for name, curves in found.items() for row in _slopes(name, curves, sizes, slope_octaves)]
    plateaus = [row for name, curves in found.items() for row in _plateaus(name, curves, fixed_betas)]
    tables = {"convergence": rows, "convergence_slopes": slopes, "convergence_plateaus": plateaus}
    claims = [
        _rate(slopes, sizes[-1 - slope_octaves :]),
        _constant(found, sizes[-1], asymptote(toy), contexts * (actions - 1) / gamma**2),
        _one_estimator(found, sizes),
        *_floors(plateaus, slopes, sizes[-1]),
        *_comparisons(found, sizes),
    ]
    return Study(tables, claims, {"convergence": _figure(rows, float(asymptote(toy).mean()))})


def _learners(toy: Toy, ridge: float, alphas: Sequence[float]) -> dict[str, Learner]:
    gamma = toy.gamma

    def spl(alpha: float) -> Learner:
        return tilted(toy, ridge, lambda beta: (torch.full_like(beta, alpha), beta / alpha))

    return {
        PMLE: likelihood(toy, ridge),
        DISTILLED: distilled(toy, ridge, on_fresh=False),
        ON_FRESH: distilled(toy, ridge, on_fresh=True),
        REVERSE_KL: tilted(toy, ridge, lambda beta: (beta + gamma, beta / (beta + gamma))),
        DPO: tilted(toy, ridge, lambda beta: (beta, torch.ones_like(beta))),
        **{f"SPL, α = {alpha:g}": spl(alpha) for alpha in alphas},
    }


def _curve(name: str, curves: Curves, sizes: Sequence[int]) -> Iterator[Row]:
    """Both divergences at every n [N, S], however β is chosen."""
    for by in CHOICES:
        chosen = choose(curves, by)
        for key, divergence in DIVERGENCES.items():
            for size, values, beta in zip(sizes, chosen[key], chosen["beta"], strict=True):
                yield {
                    "method": name,
                    "β chosen by": by,
                    "divergence": divergence,
                    "pairs": size,
                    "median β": float(beta.median()),
                    **mean_interval(values.tolist()),
                    "median": float(values.median()),
                }


def _slopes(name: str, curves: Curves, sizes: Sequence[int], octaves: int) -> Iterator[Row]:
    """Least squares of ln KL on ln n, a seed at a time."""
    log_n = torch.tensor(sizes[-1 - octaves :], dtype=torch.float64).log()
    log_n = log_n - log_n.mean()
    for by in CHOICES:
        chosen = choose(curves, by)
        for key, divergence in DIVERGENCES.items():
            slope = log_n @ chosen[key][-1 - octaves :].log() / log_n.square().sum()
            yield {"method": name, "β chosen by": by, "divergence": divergence, **mean_interval(slope.tolist())}


def _plateaus(name: str, curves: Curves, fixed: Sequence[float]) -> Iterator[Row]:
    """KL(π*‖π) at the largest n beside what infinitely many pairs leave at the same β, a seed at a time."""
    cells = {by: {key: values[-1] for key, values in choose(curves, by).items()} for by in CHOICES}
    for beta in fixed:
        index = 1 + curves.betas[1:].tolist().index(beta)
        cells[f"fixed at {beta:g}"] = {
            "forward": curves.forward[index, -1],
            "exact": curves.exact[index],
            "beta": curves.betas[index : index + 1],
        }
    for by, cell in cells.items():
        limit, excess = (mean_interval(values.tolist()) for values in (cell["exact"], cell["forward"] - cell["exact"]))
        yield {
            "method": name,
            "β chosen by": by,
            "median β": float(cell["beta"].median()),
            **mean_interval(cell["forward"].tolist()),
            "infinite data": limit["estimate"],
            "infinite data, low": limit["low"],
            "infinite data, high": limit["high"],
            "excess": excess["estimate"],
            "excess, low": excess["low"],
            "excess, high": excess["high"],
        }


def _rate(slopes: Sequence[Row], sizes: Sequence[int]) -> Claim:
    mine = [
        row
        for row in slopes
        if row["method"] in LEARN_TARGET and (row["β chosen by"], row["divergence"]) == ("none", "KL(π*‖π)")
    ]
    listed = "; ".join(f"{row['method']} {row['estimate']:.3f} [{row['low']:.3f}, {row['high']:.3f}]" for row in mine)
    return Claim(
        "E[KL(π*‖π)] of PMLE, distillation (pairs of μ, and fresh pairs of π₀) and reverse KL falls as 1/n at β = 0",
        "ADL, Theorems 4, 6, 7 and 14",
        f"slope of ln KL over ln n from {sizes[0]} to {sizes[-1]} pairs, {mine[0]['n']} seeds: {listed}",
        "holds" if all(abs(row["estimate"] + 1) <= CLOSE for row in mine) else "fails",
    )


def _constant(found: Found, size: int, expected: Tensor, uniform: float) -> Claim:
    """`expected` [S]: limit of n·KL; `uniform`: the same if all responses are equally likely and all labels a coin's."""
    ratio = mean_interval((size * found[REVERSE_KL].forward[0, -1] / expected).tolist())
    return Claim(
        "its constant grows as 1/γ², and with the number of parameters",
        "ADL, Theorem 4 (C/γ²); the Fisher information",
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
        f"relative difference of KL(π*‖π), largest over methods and seeds: {apart[0]:.2g} at {sizes[0]} pairs, {apart[-1]:.1g} at "
        f"{sizes[-1]}; in a full table all are Bradley-Terry's maximum likelihood once every response was compared",
        _verdict([gap > SAME for gap in apart], sizes),
    )


def _floors(plateaus: Sequence[Row], slopes: Sequence[Row], size: int) -> Iterator[Claim]:
    """DPO and RLHF, then SPL: does KL stop at a floor, even at the oracle's β?"""
    names = dict.fromkeys(row["method"] for row in plateaus)
    cited = {DPO: ("DPO and RLHF do not learn π*: KL stops at a floor, even at the best β", "ADL, Fig. 1 and App. D.1")}
    for name in names:
        if name.startswith("SPL"):
            cited[name] = (f"{name} learns π* (β = 0, or the best β)", "SPL, Prop. 3.2, with r = γ·ln π* (ADL, Eq. 2)")
    for name, (claim, source) in cited.items():
        mine = {row["β chosen by"]: row for row in plateaus if row["method"] == name}
        falls = next(
            row["estimate"]
            for row in slopes
            if (row["method"], row["β chosen by"], row["divergence"]) == (name, "oracle", "KL(π*‖π)")
        )
        best = mine["oracle"]
        floor = best["infinite data, low"] > best["excess"]
        yield Claim(
            claim,
            source,
            f"oracle's β (median {best['median β']:.3g}), {size} pairs, {best['n']} seeds: {best['estimate']:.2g} "
            f"[{best['low']:.2g}, {best['high']:.2g}] nats, of which {best['infinite data']:.2g} stay with infinitely many pairs; "
            f"slope {falls:.2f}",
            "holds" if floor == (name == DPO) else "fails",
        )


def _comparisons(found: Found, sizes: Sequence[int]) -> Iterator[Claim]:
    """Of two methods, or two ways to choose β, which comes nearer to π*, seed by seed."""

    def compare(claim: str, source: str, name: str, by: str, other: str, other_by: str) -> Claim:
        ratio = (choose(found[name], by)["forward"] / choose(found[other], other_by)["forward"]).log()
        cells = [mean_interval(values.tolist()) for values in ratio]
        listed = ", ".join(f"{math.exp(cell['estimate']):.2g}" for cell in cells)
        farther = [str(size) for size, cell in zip(sizes, cells, strict=True) if cell["low"] > 0]
        return Claim(
            f"{claim} (β: {by})",
            source,
            f"ratio of KL(π*‖π), geometric mean over {cells[0]['n']} seeds, at n = {sizes[0]}, {sizes[1]} … {sizes[-1]}: {listed}; "
            f"farther from π* (95 %) at n = {', '.join(farther) or 'none'}",
            _verdict([cell["high"] < 0 for cell in cells], sizes),
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


def _figure(rows: Sequence[Row], constant: float) -> Figure:
    figure = new_figure(9.6, 6.2)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(DIVERGENCES), len(CHOICES), sharex=True, sharey=True)
    names = list(dict.fromkeys(row["method"] for row in rows))
    for line, divergence in zip(panels, DIVERGENCES.values(), strict=True):
        for axes, by in zip(line, CHOICES, strict=True):
            for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
                mine = [r for r in rows if (r["method"], r["β chosen by"], r["divergence"]) == (name, by, divergence)]
                sizes = [row["pairs"] for row in mine]
                axes.plot(sizes, [r["estimate"] for r in mine], color=colour, marker=marker, ms=4, lw=0.9, label=name)
                axes.fill_between(sizes, [r["low"] for r in mine], [r["high"] for r in mine], color=colour, alpha=0.15, lw=0)
            axes.plot(sizes, [constant / n for n in sizes], color=PALE, linestyle="--", label="Fisher's limit, ∝ 1/n")
            axes.set(xscale="log", yscale="log", ylim=(1e-4, 30))
        line[0].set_ylabel(f"{divergence} / nats, {rows[0]['n']} seeds")
    for axes, title in zip(panels[0], CHOICES.values(), strict=True):
        axes.set_title(title)
    for axes in panels[-1]:
        axes.set_xlabel("labelled pairs n")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=4)
    return figure


run = stage(convergence)
