"""How fast do methods learn π* from n pairs, and which do not? ADL's toy world (App. D.1), β = 0, held out and by oracle."""

from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from prefdist.exact.convergence_claims import check_claims, select
from prefdist.exact.learners import DPO, learners
from prefdist.exact.learning_curves import (
    DIVERGENCES,
    Curves,
    asymptote,
    choose,
    draw_pairs,
    measure,
    toy_worlds,
    without_data,
)
from prefdist.exact.study import Row, Study, mean_interval, stage
from prefdist.style import COLOURS, INK, MARKERS, PALE, new_figure

CHOICES = {"none": "no regulariser (DPO: β = γ)", "held-out": "β by held-out pairs", "oracle": "β by oracle"}


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
    """n = 2^first … 2^last pairs; slopes over the last `slope_octaves` doublings; plateaus at `fixed_betas`, some of `betas`.

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
        for name, learner in learners(toy, ridge, alphas).items()
    }
    rows = [row for name, curves in found.items() for row in _curve(name, curves, sizes)]
    slopes = [row for name, curves in found.items() for row in _slopes(name, curves, sizes, slope_octaves)]
    plateaus = [row for name, curves in found.items() for row in _plateaus(name, curves, fixed_betas)]
    tables = {"convergence": rows, "convergence_slopes": slopes, "convergence_plateaus": plateaus}
    claims = check_claims(found, slopes, plateaus, toy, sizes, sizes[-1 - slope_octaves :])
    blind = {name: float(kl.mean()) for name, kl in without_data(toy).items()}
    return Study(tables, claims, {"convergence": _figure(rows, float(asymptote(toy).mean()), blind)})


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


def _figure(rows: Sequence[Row], constant: float, blind: Mapping[str, float]) -> Figure:
    """`constant`: limit of n·KL; `blind`: KL(π*‖π) of policies that saw no pairs."""
    figure = new_figure(9.6, 6.2)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(len(DIVERGENCES), len(CHOICES), sharex=True, sharey=True)
    names = list(dict.fromkeys(row["method"] for row in rows))
    for line, divergence in zip(panels, DIVERGENCES.values(), strict=True):
        for axes, by in zip(line, CHOICES, strict=True):
            for name, colour, marker in zip(names, COLOURS, MARKERS, strict=False):
                mine = [row for row in select(rows, by, divergence) if row["method"] == name]
                sizes = [row["pairs"] for row in mine]
                axes.plot(sizes, [r["estimate"] for r in mine], color=colour, marker=marker, ms=4, lw=0.9, label=name)
                axes.fill_between(sizes, [r["low"] for r in mine], [r["high"] for r in mine], color=colour, alpha=0.15, lw=0)
            axes.plot(sizes, [constant / n for n in sizes], color=PALE, linestyle="--", label="Fisher's limit, ∝ 1/n")
            axes.set(xscale="log", yscale="log", ylim=(1e-4, 300))
            axes.minorticks_off()  # they take most of the time of drawing
        line[0].set_ylabel(f"{divergence} / nats, {rows[0]['n']} seeds")
    for axes, title in zip(panels[0], CHOICES.values(), strict=True):
        axes.set_title(title)
        for (name, kl), style in zip(blind.items(), ("-", ":"), strict=True):
            axes.axhline(kl, color=INK, linestyle=style, lw=0.8, label=f"{name}, no pairs")
    for axes in panels[-1]:
        axes.set_xlabel("labelled pairs n")
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=5)
    return figure


run = stage(convergence)
