"""Global against token temperature: how far apart they are, which of them SPL is, and what both do to the length."""

import math
from collections.abc import Sequence
from itertools import cycle, pairwise

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.closed_forms import optimum
from prefdist.exact.study import Claim, Row, Study, mean_interval, stage
from prefdist.exact.temperatures import (
    ToyModel,
    at_global_temperature,
    at_token_temperature,
    expected_length,
    log_partition,
)
from prefdist.exact.worlds import Space, Worlds, enumerate_space, random_worlds
from prefdist.objectives.registry import load
from prefdist.style import COLOURS, INK, MARKERS, draw_point, error, new_figure

EQUAL = 1e-12
"""Total variation: two float64 formulas of at most a few hundred probabilities."""
GAMMA = 1.0
"""Of the preferences from which SPL and DPO learn; their optima agree at every γ."""


def temperature(
    *,
    vocabulary: int,
    lengths: Sequence[int],
    worlds: int,
    spread: float,
    taus: Sequence[float],
    beta: float,
    toy_vocabulary: int,
    toy_stop: float,
    toy_taus: Sequence[float],
    longest: Sequence[int],
) -> Study:
    """Random worlds of `vocabulary` tokens, EOS included, for each of the longest `lengths`, at temperatures `taus`.

    SPL has α = τ·`beta`. The toy model has `toy_vocabulary` equally likely tokens and stops with `toy_stop`; its responses
    are restricted to each of the `longest` lengths, and to none. ValueError: no length of 1 beside longer ones, no τ but 1,
    or a toy τ below 1: the claims compare these.
    """
    if min(lengths) != 1 or max(lengths) == 1:
        raise ValueError(f"lengths must hold 1 and a longer one, got {lengths}: the claim compares them")
    if set(taus) == {1.0}:
        raise ValueError(f"taus must hold one that is not 1, got {taus}: at 1 no temperature changes anything")
    if min(toy_taus) < 1:
        raise ValueError(f"toy_taus must be ≥ 1, got {min(toy_taus):g}: the claim about lengths is of these")
    drawn = {
        length: random_worlds(enumerate_space(vocabulary, length), contexts=1, seeds=range(worlds), gamma=GAMMA, spread=spread)
        for length in lengths
    }
    apart = [row for length, world in drawn.items() for row in _apart(length, world, taus)]
    same = [row for length, world in drawn.items() for row in _spl(length, world, taus, beta)]
    model = ToyModel(toy_vocabulary, toy_stop)
    toy = _toy(model, toy_taus, [*longest, math.inf])
    tables = {
        "temperature": apart,
        "temperature_example": [_example(tau) for tau in taus],
        "temperature_spl": same,
        "temperature_length": toy,
    }
    claims = [_spl_claim(same), *_apart_claims(apart), *_length_claims(model, toy)]
    return Study(tables, claims, {"temperature": _figure(apart, model, toy)})


def _apart(length: int, worlds: Worlds, taus: Sequence[float]) -> list[Row]:
    space, log_p = worlds.space, worlds.log_reference
    rows: list[Row] = []
    for tau in taus:
        laws = (at_global_temperature(log_p, tau), at_token_temperature(space, worlds.reference, tau))
        tv = (laws[0].exp() - laws[1].exp()).abs().sum(-1) / 2
        tokens = [(law.exp() * space.n_tokens).sum(-1) for law in laws]
        longer = mean_interval((tokens[0] - tokens[1]).tolist())
        rows.append(
            {
                "longest": length,
                "τ": tau,
                **mean_interval(tv.tolist()),
                "smallest": float(tv.min()),
                "largest": float(tv.max()),
                "tokens more": longer["estimate"],
                "tokens more, low": longer["low"],
                "tokens more, high": longer["high"],
            }
        )
    return rows


def _example(tau: float) -> Row:
    """Two tokens of two kinds, P(first) = .6, .4 and P(second | first) = (.9, .1), (.5, .5): the law of the first token."""
    every = torch.ones(4, 2, dtype=torch.bool)
    space = Space(torch.tensor([[0, 1], [0, 1], [0, 2], [0, 2]]), torch.tensor([[0, 0], [0, 1], [1, 0], [1, 1]]), every, 3, 2)
    logits = torch.tensor([[0.6, 0.4], [0.9, 0.1], [0.5, 0.5]], dtype=torch.float64).log()
    log_p = space.token_logps(logits).sum(-1)
    by_whole = at_global_temperature(log_p, tau).exp()
    by_token = at_token_temperature(space, logits, tau).exp()
    return {
        "τ": tau,
        "P(first token = 1), global": float(by_whole[:2].sum()),
        "P(first token = 1), token": float(by_token[:2].sum()),
        "total variation": float((by_whole - by_token).abs().sum() / 2),
    }


def _spl(length: int, worlds: Worlds, taus: Sequence[float], beta: float) -> list[Row]:
    """SPL's optimum beside DPO's at global temperature α/β, and at the token temperature of the same number."""
    by_dpo = _solve("dpo", {"beta": beta}, worlds)
    rows: list[Row] = []
    for tau in taus:
        by_spl = _solve("spl", {"alpha": tau * beta, "beta": beta}, worlds).exp()
        tv = (by_spl - at_global_temperature(by_dpo, tau).exp()).abs().sum(-1) / 2
        rows.append({"longest": length, "α/β": tau, "largest total variation": float(tv.max()), "n": worlds.n_worlds})
    return rows


def _solve(name: str, parameters: dict[str, float], worlds: Worlds) -> Tensor:
    equation = optimum(load(name, parameters).row)
    assert equation is not None  # both rows have label targets without a margin
    return equation.solve(worlds)


def _toy(model: ToyModel, taus: Sequence[float], longest: Sequence[float]) -> list[Row]:
    tau = torch.tensor(taus, dtype=torch.float64)
    by_whole, by_token = model.growth(tau), model.token_growth(tau)
    rows: list[Row] = []
    for limit in longest:
        columns = (expected_length(by_whole, limit), expected_length(by_token, limit), log_partition(model, tau, limit))
        for values in zip(taus, *(column.tolist() for column in columns), strict=True):
            rows.append(
                {"longest": limit, **dict(zip(("τ", "E[tokens], global", "E[tokens], token", "ln Z"), values, strict=True))}
            )
    return rows


def _spl_claim(rows: Sequence[Row]) -> Claim:
    off = max(row["largest total variation"] for row in rows)
    ratios = sorted({row["α/β"] for row in rows})
    return Claim(
        "SPL's optimum is DPO's at global temperature τ = α/β",
        "SPL, global temperature",
        f"total variation at most {off:.1g} at {len(ratios)} ratios α/β from {ratios[0]:g} to {ratios[-1]:g}, "
        f"{rows[0]['n']} worlds",
        "holds" if off <= EQUAL else "fails",
    )


def _apart_claims(rows: Sequence[Row]) -> list[Claim]:
    changed = [row for row in rows if row["τ"] != 1]
    one = max(row["largest"] for row in changed if row["longest"] == 1)
    more = [row for row in changed if row["longest"] > 1]
    nearest = min(more, key=lambda row: row["smallest"])
    differ = Claim(
        "global temperature is not token temperature",
        "SPL, global temperature",
        f"responses of one token: total variation at most {one:.1g}; of up to two and more: at least "
        f"{nearest['smallest']:.1g} in every one of {nearest['n']} worlds at every τ ≠ 1; its mean is up to "
        f"{max(row['estimate'] for row in more):.2f}",
        "holds from two tokens on" if one <= EQUAL < nearest["smallest"] else "fails",
    )
    by_tau: dict[float, list[Row]] = {}
    for row in more:
        by_tau.setdefault(row["τ"], []).append(row)
    growing = [tau for tau, mine in by_tau.items() if all(a["estimate"] < b["estimate"] for a, b in pairwise(mine))]
    grows = Claim(
        "they are the further apart the longer the responses",
        "SPL, global temperature",
        f"mean total variation grows with every token at {len(growing)} of {len(by_tau)} temperatures τ ≠ 1",
        "holds" if len(growing) == len(by_tau) else "fails",
    )
    return [differ, grows]


def _length_claims(model: ToyModel, rows: Sequence[Row]) -> list[Claim]:
    free = [row for row in rows if row["longest"] == math.inf]
    hottest = max(row["τ"] for row in rows)
    hot = [row for row in rows if row["τ"] == hottest and row["longest"] != math.inf]
    means, limits = (" / ".join(f"{row[key]:.0f}" for row in hot) for key in ("E[tokens], global", "longest"))
    finite = [row["τ"] for row in free if math.isfinite(row["ln Z"])]
    exists = Claim(
        "SPL's optimum exists at every α/β: a policy may have any global temperature",
        "SPL, Prop. 3.2, on responses without a maximal length",
        f"V = {model.vocabulary}, stop {model.stop:g}, τ_c = {model.critical:.4f}: Z is finite at {len(finite)} of {len(free)} "
        f"temperatures; at τ = {hottest:g} the mean length is {means} of at most {limits} tokens",
        "holds under τ < τ_c, or a maximal length" if len(finite) < len(free) else "holds",
    )
    ends = sorted((1 / model.stop - 1, float(model.vocabulary)))
    by_token = [row["E[tokens], token"] for row in free]
    inside = ends[0] * (1 - EQUAL) <= min(by_token) and max(by_token) <= ends[1] * (1 + EQUAL)
    bounded = Claim(
        "at token temperatures τ ≥ 1 the mean length stays between (1 − stop)/stop and V tokens",
        "closed form for the toy language model",
        f"{min(by_token):.1f} to {max(by_token):.1f} tokens at τ from 1 to {max(row['τ'] for row in free):g} without a maximal "
        f"length, limits {ends[0]:.1f} and {ends[1]:.1f}",
        "holds" if inside else "fails",
    )
    return [exists, bounded]


def _figure(apart: Sequence[Row], model: ToyModel, toy: Sequence[Row]) -> Figure:
    figure = new_figure(9.0, 3.7)
    figure.set_layout_engine("constrained")
    left, right = figure.subplots(1, 2)
    _draw_apart(left, apart)
    _draw_lengths(right, model, sorted({row["longest"] for row in toy}))
    return figure


def _draw_apart(axes: Axes, rows: Sequence[Row]) -> None:
    for length, colour, marker in zip(sorted({row["longest"] for row in rows}), cycle(COLOURS), cycle(MARKERS), strict=False):
        mine = [row for row in rows if row["longest"] == length]
        axes.plot([row["τ"] for row in mine], [row["estimate"] for row in mine], color=colour, linewidth=0.8)
        for row in mine:
            label = str(length) if row is mine[0] else None
            draw_point(
                axes, row["τ"], row["estimate"], colour, marker, size=5, yerr=error(dict(row)), linestyle="", label=label
            )
    axes.set_xscale("log")
    taus = sorted({row["τ"] for row in rows})
    axes.set_xticks(taus, [f"{tau:g}" for tau in taus], fontsize=7)
    axes.minorticks_off()
    axes.set(title=f"Global against token temperature, {rows[0]['n']} worlds", xlabel="temperature τ", ylabel="total variation")
    axes.legend(title="longest response (tokens)", fontsize=7, title_fontsize=7, ncols=2)


def _draw_lengths(axes: Axes, model: ToyModel, longest: Sequence[float]) -> None:
    width = model.critical - 1
    tau = torch.linspace(1 - width, 1 + 4 * width, 601, dtype=torch.float64)
    for limit, colour in zip(longest, cycle(COLOURS), strict=False):
        label = "none" if limit == math.inf else f"{limit:g}"
        tokens = expected_length(model.growth(tau), limit).numpy()
        axes.plot(tau, np.where(np.isfinite(tokens), tokens, np.nan), color=colour, label=f"global, longest {label}")
    axes.plot(tau, expected_length(model.token_growth(tau), math.inf), color=INK, linestyle="--", label="token, longest none")
    axes.axvline(model.critical, color=INK, linestyle=":", linewidth=0.8)
    axes.annotate(
        f"τ_c = {model.critical:.3f}", (model.critical, 0.02), (3, 0), ("data", "axes fraction"), "offset points", fontsize=7
    )
    axes.set_yscale("log")
    axes.set_ylim(5, 1000)
    title = f"Toy language model: V = {model.vocabulary}, stop {model.stop:g}"
    axes.set(title=title, xlabel="temperature τ", ylabel="mean length (tokens without EOS)")
    axes.legend(fontsize=7, loc="upper left")


run = stage(temperature)
