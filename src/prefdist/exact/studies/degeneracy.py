"""Where does training on a few pairs end that some policy explains perfectly? Gradient flow to very large times."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.degeneracy_claims import LESS_LOSS, SAME, check_claims
from prefdist.exact.flows import follow
from prefdist.exact.separable import Separable, random_separable
from prefdist.exact.smoothing import divergence, entropy
from prefdist.exact.study import Row, Study, mean_interval, share_interval, stage
from prefdist.objectives.registry import Objective, load
from prefdist.style import COLOURS, MARKERS, draw_point, error, new_figure

SETTLED = 1e-3
"""Nats per e-fold of time: no ln π moves faster in a world that has settled."""
FALLING = 0.3
"""In units of 1/scale: what falls for ever does so at 1/2 or more, at least 1/3 while it shares its winner."""
SLACK = 1e-9
"""Of probabilities: logits are followed to 1e-5 of a nat, and mass that does not move must not count as gained."""
TIMES_SPL = 1.5
"""SPL's α/β."""
QUANTITIES = {"KL(π₀‖π)": " / nats", "KL(π‖π₀)": " / nats", "entropy": " / nats", "mass off the data": ""}
"""With their units."""


@dataclass(frozen=True)
class Method:
    """A row of the objective table; `scale` multiplies ln π in its margin, `kl` is the weight of KL(π‖π₀) in its loss."""

    name: str
    objective: Objective
    scale: float
    kl: float = 0.0

    @property
    def has_optimum(self) -> bool:
        """Whether one can be solved directly: a logistic loss alone has none on separable pairs."""
        return self.kl > 0 or self.objective.row.divergence == "squared"


@dataclass(frozen=True)
class Path:
    """A method's flow: log π [T, S, Y], and what moves per e-fold of t at the end: ln π, and logits, [S, Y]."""

    method: Method
    log_p: Tensor
    speed: Tensor
    logit_speed: Tensor

    @property
    def settled(self) -> Tensor:
        """[S]."""
        return self.speed.abs().amax(-1) < SETTLED

    @property
    def falling(self) -> Tensor:
        """Worlds [S] in which some ln π falls without end in sight."""
        return self.method.scale * self.speed.amin(-1) < -FALLING


def degeneracy(
    *,
    worlds: int,
    responses: int,
    pairs: int,
    spread: float,
    betas: Sequence[float],
    margin: float,
    gammas: Sequence[float],
    kls: Sequence[float],
    times: Sequence[float],
    seed: int,
) -> Study:
    """`worlds` with `pairs` of `responses`; t = steps × learning rate. Speeds are taken between the last two `times`.

    DPO at `betas`, SPL at the smallest of them, IPO at `margin` = 1/(2τ), PMLE at `gammas` without and with KL at `kls`.
    ValueError: times that do not begin with 0 and hold two more, or what `random_separable` and `follow` refuse.
    """
    if len(times) < 3 or times[0] != 0:
        raise ValueError(f"times must begin with 0 and hold two more, got {list(times)}: speeds are taken between these")
    data = random_separable(worlds, responses, pairs, spread, seed)
    paths = [_path(data, method, times) for method in _methods(betas, margin, gammas, kls)]
    rows = [row for path in paths for row in _rows(data, path, times)]
    ends = [_end(data, path) for path in paths]
    settled = [_settled(data, path, margin) for path in paths if bool(path.settled.any()) and path.method.has_optimum]
    off = [_off_data(data, path) for path in paths]
    tables = {"degeneracy": rows, "degeneracy_end": ends, "degeneracy_settled": settled, "degeneracy_off_data": off}
    return Study(tables, check_claims(ends, settled, off), {"degeneracy": _figure(rows)})


def _methods(betas: Sequence[float], margin: float, gammas: Sequence[float], kls: Sequence[float]) -> Iterator[Method]:
    for beta in betas:
        yield Method(f"DPO, β = {beta:g}", load("dpo", {"beta": beta}), beta)
    beta = min(betas)
    alpha = TIMES_SPL * beta
    yield Method(f"SPL, α = {alpha:g}, β = {beta:g}", load("spl", {"alpha": alpha, "beta": beta}), alpha)
    yield Method(f"IPO, τ = {1 / (2 * margin):g}", load("ipo", {"margin": margin}), 1.0)
    for kl in (0.0, *kls):
        for gamma in gammas:
            name = f"PMLE, γ = {gamma:g}" + (f", β = {kl:g}" if kl else "")
            yield Method(name, load("pmle", {"gamma": gamma, "beta": kl}), gamma, kl)


def _path(data: Separable, method: Method, times: Sequence[float]) -> Path:
    logits = follow(lambda z: data.loss(method.objective, z), data.log_reference, times)
    log_p = logits.log_softmax(-1)
    folds = math.log(times[-1] / times[-2])
    return Path(method, log_p, (log_p[-1] - log_p[-2]) / folds, (logits[-1] - logits[-2]) / folds)


def _rows(data: Separable, path: Path, times: Sequence[float]) -> Iterator[Row]:
    p = path.log_p.exp()
    log_prior = data.log_reference.expand_as(p)
    values = (
        divergence(log_prior.exp(), path.log_p),
        divergence(p, log_prior),
        entropy(p),
        (p * ~data.on_data).sum(-1),
    )
    for quantity, series in zip(QUANTITIES, values, strict=True):
        for t, worlds in zip(times, series, strict=True):
            yield {"method": path.method.name, "quantity": quantity, "t": float(t), **mean_interval(worlds.tolist())}


def _end(data: Separable, path: Path) -> Row:
    """Share of worlds that settled; where others fall, their logits' speed beside the direction of least norm.

    With KL, responses that do not fall are held in proportion to each other; at γ ≥ 1 it stops the others, too, in the end.
    """
    method, falls = path.method, path.falling
    endless = method.kl == 0 or method.scale < 1
    held = (method.scale * path.speed > -FALLING) & (method.kl > 0)
    predicted = data.directions(held) / method.scale if endless else torch.full_like(path.speed, math.nan)
    weights = data.log_reference.exp()
    growth = -(weights * path.speed).sum(-1)[falls]
    expected = (weights * (predicted.amax(-1, keepdim=True) - predicted)).sum(-1)[falls]
    apart = (path.log_p[-1].exp() - data.without_lost().exp()).abs().sum(-1)[falls] / 2
    off = method.scale * (path.logit_speed - predicted).abs().amax(-1)[falls]
    speed = mean_interval(growth.tolist()) if len(growth) else dict.fromkeys(("estimate", "low", "high"), math.nan)
    return {
        "method": method.name,
        "scale": method.scale,
        "kl": method.kl,
        **_share("settled", int(path.settled.sum()), len(falls)),
        "falling": int(falls.sum()),
        "KL(π₀‖π) per e-fold": speed["estimate"],
        "per e-fold, low": speed["low"],
        "per e-fold, high": speed["high"],
        "predicted": float(expected.mean()) if len(expected) else math.nan,
        "median deviation of speeds": float(off.median()) if len(off) else math.nan,
        "largest deviation of speeds": float(off.max()) if len(off) else math.nan,
        "median total variation from π₀ without the lost": float(apart.median()) if len(apart) else math.nan,
    }


def _settled(data: Separable, path: Path, margin: float) -> Row:
    """Beside the optimum solved directly, and beside the limit at which all that lost have probability 0."""
    method, here = path.method, path.settled
    pmle = method.kl > 0
    direct = data.descend(method.scale, method.kl) if pmle else data.squared_optimum(margin)
    distance = (path.log_p[-1].exp() - direct.exp()).abs().sum(-1)[here] / 2
    loss = data.loss(method.objective, path.log_p[-1])
    # All pairs are won there at no loss, and KL(π₀ given no loss‖π₀) is −ln of the mass that is left.
    left = (data.log_reference.exp() * ~data.lost).sum(-1)
    lower = (loss > -method.kl * left.log()) & pmle
    return {
        "method": method.name,
        "kl": method.kl,
        **_share(LESS_LOSS, int(lower[here].sum()), int(here.sum())),
        "at the direct optimum": int((distance <= SAME).sum()),
        "median total variation": float(distance.median()),
        "largest total variation": float(distance.max()),
        "mean loss": float(loss[here].mean()),
        "mean loss without the lost": float((-method.kl * left.log())[here].mean()) if pmle else math.nan,
    }


def _off_data(data: Separable, path: Path) -> Row:
    mass = (path.log_p.exp() * ~data.on_data).sum(-1)
    ever, end = ((gain > SLACK).sum() for gain in (mass.amax(0) - mass[0], mass[-1] - mass[0]))
    return {
        "method": path.method.name,
        "kl": path.method.kl,
        **_share("at some time", int(ever), mass.shape[1]),
        **_share("at the end", int(end), mass.shape[1]),
        "largest gain": float((mass - mass[0]).max()),
        "mean at the end": float(mass[-1].mean()),
    }


def _share(name: str, count: int, n: int) -> Row:
    """Of n worlds, under a heading of its own."""
    share = share_interval(count, n)
    return {name: share["estimate"], f"{name}, low": share["low"], f"{name}, high": share["high"], "n": n}


def _figure(rows: Sequence[Row]) -> Figure:
    """All quantities against t: without KL in the loss, and with."""
    names = list(dict.fromkeys(row["method"] for row in rows))
    regularised = [name for name in names if name.startswith("PMLE") and "β" in name]
    figure = new_figure(14, 6)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2, len(QUANTITIES), sharex=True, sharey="col")
    for line, group in zip(panels, ([name for name in names if name not in regularised], regularised), strict=True):
        for axes, (quantity, unit) in zip(line, QUANTITIES.items(), strict=True):
            mine = [row for row in rows if row["quantity"] == quantity and row["t"] > 0]
            _draw(axes, [[row for row in mine if row["method"] == name] for name in group])
            axes.set_ylabel(quantity + unit)
        line[-1].legend(*line[-1].get_legend_handles_labels(), loc="center left", bbox_to_anchor=(1, 0.5), fontsize=7)
    for axes in panels[-1]:
        axes.set_xlabel("t = steps × learning rate")
    panels[0, 0].set_yscale("symlog", linthresh=1.0)
    return figure


def _draw(axes: Axes, series: Sequence[Sequence[Mapping[str, object]]]) -> None:
    for number, rows in enumerate(series):
        # More series than colours: the second round has open lines.
        colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
        for row in rows:
            draw_point(axes, row["t"], row["estimate"], colour, marker, size=4, yerr=error(dict(row)))  # type: ignore[arg-type]
        style = "-" if number < len(COLOURS) else ":"
        x, y = ([row[key] for row in rows] for key in ("t", "estimate"))
        axes.plot(x, y, style, color=colour, marker=marker, ms=4, lw=1, label=rows[0]["method"])  # type: ignore[arg-type]
    axes.set_xscale("log")


run = stage(degeneracy)
