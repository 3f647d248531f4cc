"""Does a policy represent a divided population in proportion? What SPL and DPO learn of one, beside SPL's closed forms."""

import math
from collections.abc import Sequence
from itertools import cycle

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.bradley_terry import fit
from prefdist.exact.closed_forms import tilt
from prefdist.exact.populations import VOTERS, learned_odds, wins
from prefdist.exact.study import Claim, Row, Study, mean_interval, stage
from prefdist.objectives.registry import load
from prefdist.style import COLOURS, INK, MARKERS, draw_point, error, new_figure

EQUAL = 1e-9
"""Nats of log odds: the minimum is found to the spacing of float64, which is 1e-14 at the largest odds here."""
SAME_LAW = 1e-8
"""Total variation: Bradley-Terry's last step is below 1e-10."""


def representation(
    *,
    shares: Sequence[float],
    alphas: Sequence[float],
    betas: Sequence[float],
    priors: Sequence[float],
    voted_shares: Sequence[float],
    voted_alphas: Sequence[float],
    voters: Sequence[int],
    seeds: int,
    types: Sequence[int],
    type_worlds: int,
) -> Study:
    """Two responses: `shares` p of the population prefer y, `priors` are π₀(y), each α with each β and with β = α.

    Finite populations: `voters` drawn with p in `voted_shares`, at each of `voted_alphas`, π₀ uniform, `seeds` of them.
    More responses: `type_worlds` populations for each number of `types`, shares uniform over the simplex, π₀ uniform.
    ValueError: no α of 1, no prior of 0.5, or no more than two types: the claims are about these.
    """
    for name, values, needed in (("alphas", alphas, 1.0), ("priors", priors, 0.5)):
        if needed not in values:
            raise ValueError(f"{name} must hold {needed:g}, got {values}: the claim of proportion is about it")
    if max(types) < 3:
        raise ValueError(f"types must hold a number > 2, got {types}: with two all voters are the same")
    exact = [row for prior in priors for row in _exact_rows(shares, alphas, betas, prior)]
    finite = _voter_rows(voted_shares, voted_alphas, voters, seeds)
    many = [row for number in types for row in _type_rows(number, type_worlds)]
    tables = {"representation": exact, "representation_voters": finite, "representation_types": many}
    claims = [*_tilt_claims(exact), *_proportion_claims(exact), _voter_claim(finite), _type_claim(many)]
    return Study(tables, claims, {"representation": _figure(shares, exact, finite, many)})


def _column(share: float) -> str:
    return f"P(y) at p={share:g}"


def _exact_rows(shares: Sequence[float], alphas: Sequence[float], betas: Sequence[float], prior: float) -> list[Row]:
    """A row for each objective and its parameters: the learned P(y) at every share, and how far its odds are off."""
    settings = [("spl", {"alpha": a, "beta": b}) for a in alphas for b in sorted({*betas, a}, reverse=True)]
    settings += [("dpo", {"beta": b}) for b in sorted({*alphas, *betas}, reverse=True)]
    p = torch.tensor(shares, dtype=torch.float64)
    log_odds_reference = torch.full_like(p, math.log(prior) - math.log1p(-prior))
    rows: list[Row] = []
    for name, parameters in settings:
        alpha, beta = parameters.get("alpha", parameters["beta"]), parameters["beta"]
        odds = learned_odds(load(name, parameters), p, log_odds_reference)
        raw_y, raw_other = (
            (beta / alpha) * math.log(mass) + share.log() / alpha for mass, share in ((prior, p), (1 - prior, 1 - p))
        )
        learned = odds.sigmoid()
        rows.append(
            {
                "objective": name.upper(),
                "π₀(y)": prior,
                "α": alpha,
                "β": beta,
                **{_column(share): float(value) for share, value in zip(shares, learned, strict=True)},
                "off closed form (nats)": float((odds - (raw_y - raw_other)).abs().max()),
                "largest abs(P(y) − p)": float((learned - p).abs().max()),
                "n": len(shares),
            }
        )
    return rows


def _voter_rows(shares: Sequence[float], alphas: Sequence[float], voters: Sequence[int], seeds: int) -> list[Row]:
    """The learned share over `seeds` populations: a seed's voters are the same for every p, and the first of a larger n."""
    drawn = np.stack([np.random.default_rng(seed).random(max(voters)) for seed in range(seeds)])
    rows: list[Row] = []
    for p in shares:
        found = np.stack([(drawn[:, :n] < p).mean(-1) for n in voters])
        for alpha in alphas:
            learned = _learned_share(alpha, torch.from_numpy(found))
            infinite = float(_learned_share(alpha, torch.tensor([p], dtype=torch.float64)))
            for n, unanimous, values in zip(voters, ((found == 0) | (found == 1)).sum(-1), learned, strict=True):
                rows.append(
                    {
                        "α": alpha,
                        "p": p,
                        "voters": n,
                        "all voters": infinite,
                        **mean_interval(values.tolist()),
                        "standard deviation": float(values.std()),
                        "unanimous": int(unanimous),
                    }
                )
    return rows


def _learned_share(alpha: float, shares: Tensor) -> Tensor:
    """P(y) that SPL learns with π₀ uniform; of a unanimous population its limit, the share itself."""
    divided = (shares > 0) & (shares < 1)
    inner = shares[divided]
    odds = learned_odds(load("spl", {"alpha": alpha, "beta": alpha}), inner, torch.zeros_like(inner))
    return shares.masked_scatter(divided, odds.sigmoid())


def _type_rows(number: int, worlds: int) -> list[Row]:
    """Total variation between the policy of α = 1 and the shares of the types, for each way to vote."""
    drawn = np.stack([np.random.default_rng(seed).dirichlet(np.ones(number)) for seed in range(worlds)])
    log_shares = torch.from_numpy(drawn).log()
    uniform = torch.full_like(log_shares, -math.log(number))
    rows: list[Row] = []
    for kind in VOTERS:
        learned = tilt(uniform, fit(wins(log_shares, kind)), temperature=1, ref_power=1).exp()
        shares = log_shares.exp()
        distance = (learned - shares).abs().sum(-1) / 2
        # Coins are half lost, half won: to first order they leave scores of 2·(w_a − w_b) nats.
        near = (2 * shares).softmax(-1)
        gained = (learned.gather(-1, shares.argmax(-1, keepdim=True)).squeeze(-1) - shares.amax(-1)).tolist()
        rows.append(
            {
                "voters": kind,
                "types": number,
                **mean_interval(distance.tolist()),
                "largest": float(distance.max()),
                "largest type's P − share": mean_interval(gained)["estimate"],
                "distance to softmax(2·share)": mean_interval(((learned - near).abs().sum(-1) / 2).tolist())["estimate"],
            }
        )
    return rows


def _tilt_claims(rows: Sequence[Row]) -> list[Claim]:
    statements = {
        "DPO": ("DPO learns π(y) ∝ π₀(y)·p^{1/β} of a population of which p prefer y", "SPL, Prop. 3.1"),
        "SPL": ("SPL learns π(y) ∝ π₀(y)^{β/α}·p^{1/α} of a population of which p prefer y", "SPL, Prop. 3.2"),
    }
    claims = []
    for name, (claim, source) in statements.items():
        mine = [row for row in rows if row["objective"] == name]
        off = max(row["off closed form (nats)"] for row in mine)
        measured = f"log odds within {off:.1g} nats of it in {sum(row['n'] for row in mine)} cases of p, π₀, α, β"
        claims.append(Claim(claim, source, measured, "holds" if off <= EQUAL else "fails"))
    return claims


def _proportion_claims(rows: Sequence[Row]) -> list[Claim]:
    """What Cor. 3.1 says of α = 1, and whether that is the share of the population."""
    at_one = [row for row in rows if row["objective"] == "SPL" and row["α"] == 1]
    off = max(row["off closed form (nats)"] for row in at_one)
    formula = Claim(
        "α = 1 gives π(y) ∝ π₀(y)^β·p",
        "SPL, Cor. 3.1",
        f"log odds within {off:.1g} nats of it in {sum(row['n'] for row in at_one)} cases of p, π₀, β",
        "holds" if off <= EQUAL else "fails",
    )
    gap = "largest abs(P(y) − p)"
    even = max(row[gap] for row in at_one if row["π₀(y)"] == 0.5)
    skewed = [row for row in at_one if row["π₀(y)"] != 0.5]
    listed = "; ".join(f"{row[gap]:.2g} at π₀(y) = {row['π₀(y)']:g}, β = {row['β']:g}" for row in skewed)
    holds = "holds" if not skewed or max(row[gap] for row in skewed) <= EQUAL else "holds under a uniform π₀, or β → 0"
    shares = Claim(
        "α = 1 represents the population in proportion, P(y) = p",
        "SPL, proportional representation",
        f"largest distance from p: {even:.1g} under a uniform π₀; {listed or 'no other π₀'}",
        holds if even <= EQUAL else "fails",
    )
    return [formula, shares]


def _voter_claim(rows: Sequence[Row]) -> Claim:
    smallest = min(row["voters"] for row in rows)
    few = [row for row in rows if row["voters"] == smallest]
    outside = [row for row in few if not row["low"] <= row["all voters"] <= row["high"]]
    biased = sorted({row["α"] for row in outside})
    listed = "; ".join(
        f"{row['estimate']:.3f} against {row['all voters']:.3f} (α = {row['α']:g}, p = {row['p']:g})" for row in few
    )
    unbiased = ", ".join(f"{alpha:g}" for alpha in sorted({row["α"] for row in few} - set(biased)))
    return Claim(
        "the share that a few voters teach is on average that of the whole population",
        "SPL, Prop. 3.2, for n voters drawn from the population",
        f"{smallest} voters, {few[0]['n']} populations: {listed}",
        "holds" if not biased else f"holds under α = {unbiased}" if unbiased else "fails",
    )


def _type_claim(rows: Sequence[Row]) -> Claim:
    more = [row for row in rows if row["types"] > 2]
    kept = [kind for kind in VOTERS if max(row["largest"] for row in more if row["voters"] == kind) <= SAME_LAW]
    listed = "; ".join(
        f"{row['voters']}, {row['types']} types: {row['estimate']:.2g}"
        for row in more
        if row["types"] == max(r["types"] for r in more)
    )
    return Claim(
        "α = 1 represents more than two types of voters in proportion",
        "SPL, Cor. 3.1, beyond two responses",
        f"mean total variation from their shares over {more[0]['n']} populations: {listed}",
        "fails" if not kept else "holds" if len(kept) == len(VOTERS) else f"holds under: {' or '.join(kept)}",
    )


def _figure(shares: Sequence[float], exact: Sequence[Row], finite: Sequence[Row], many: Sequence[Row]) -> Figure:
    figure = new_figure(10.5, 3.5)
    figure.set_layout_engine("constrained")
    left, middle, right = figure.subplots(1, 3)
    _draw_exact(
        left, shares, [row for row in exact if row["objective"] == "SPL" and row["β"] == row["α"] and row["π₀(y)"] == 0.5]
    )
    _draw_voters(middle, finite)
    _draw_types(right, many)
    return figure


def _draw_exact(axes: Axes, shares: Sequence[float], rows: Sequence[Row]) -> None:
    grid = np.linspace(0.5, 0.97, 200)
    for row, colour, marker in zip(rows, cycle(COLOURS), cycle(MARKERS), strict=False):
        axes.plot(grid, 1 / (1 + ((1 - grid) / grid) ** (1 / row["α"])), color=colour, linewidth=1)
        learned = [row[_column(share)] for share in shares]
        axes.plot(shares, learned, marker, color=colour, ms=5, label=f"α = {row['α']:g}")
    axes.plot(grid, grid, color=INK, linestyle=":", linewidth=0.8)
    axes.set(title="π₀ uniform: learned (points), p^(1/α)/Z (lines)", xlabel="share p that prefers y", ylabel="learned P(y)")
    axes.legend(loc="lower right")


def _draw_voters(axes: Axes, rows: Sequence[Row]) -> None:
    cells = sorted({(row["α"], row["p"]) for row in rows}, reverse=True)
    for (alpha, p), colour, marker in zip(cells, cycle(COLOURS), cycle(MARKERS), strict=False):
        mine = [row for row in rows if (row["α"], row["p"]) == (alpha, p)]
        for row in mine:
            label = f"α = {alpha:g}, p = {p:g}" if row is mine[0] else None
            draw_point(
                axes, row["voters"], row["estimate"], colour, marker, size=5, yerr=error(dict(row)), linestyle="", label=label
            )
        axes.axhline(mine[0]["all voters"], color=colour, linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    title = f"Learned of n voters, mean of {rows[0]['n']} populations"
    axes.set(title=title, xlabel="voters (dashed: the whole population)", ylabel="learned P(y)")
    axes.set_ylim(bottom=0.35)
    axes.legend(loc="lower center", fontsize=7, ncols=2)


def _draw_types(axes: Axes, rows: Sequence[Row]) -> None:
    for kind, colour, marker in zip(VOTERS, cycle(COLOURS), cycle(MARKERS), strict=False):
        mine = [row for row in rows if row["voters"] == kind]
        for row in mine:
            label = kind if row is mine[0] else None
            draw_point(
                axes, row["types"], row["estimate"], colour, marker, size=5, yerr=error(dict(row)), linestyle="", label=label
            )
    axes.set(title="α = 1, π₀ uniform, K types of voters", xlabel="types K", ylabel="total variation from the shares")
    axes.legend(fontsize=7, loc="center right")


run = stage(representation)
