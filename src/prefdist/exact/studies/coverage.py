"""Does coverage say how far π̂ is from π*? PMLE and reverse KL over finite classes, with pairs from nearer and farther laws."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.coverage import between, bound, linear_coverage, log_constant
from prefdist.exact.coverage_cells import POLICIES, REWARDS, WHOLE, Cell, Learned, by_size, simulate
from prefdist.exact.finite_classes import Classes, random_classes
from prefdist.exact.powers import fitted_power
from prefdist.exact.study import Claim, Row, Study, mean_interval, stage
from prefdist.style import COLOURS, MARKERS, PALE, draw_point, error, new_figure

NEAR = 0.1
"""How near a fitted power is to the theorem's: a class with a farthest and a nearest policy bends it by so much."""


def coverage(
    *,
    worlds: int,
    actions: int,
    directions: int,
    octaves: int,
    reach: float,
    spread: float,
    far_spread: float,
    gamma: float,
    gammas: Sequence[float],
    shifts: Sequence[float],
    pairs: Sequence[int],
    delta: float,
    seed: int,
) -> Study:
    """Classes as in `random_classes`; μ at every one of `shifts` from π* to ν, every n of `pairs`, at `gamma`.

    `gammas` at the middle shift and n only. ValueError: no shift of 0, from which μ moves, or none above it; directions that
    four does not divide.
    """
    if min(shifts) != 0 or max(shifts) == 0:
        raise ValueError(f"shifts must hold 0 and a larger one, got {list(shifts)}: μ moves from π*")
    if directions % 4:
        raise ValueError(f"directions must be a multiple of 4, got {directions}: reward classes are quarters of them")
    classes = random_classes(
        worlds=worlds,
        actions=actions,
        directions=directions,
        octaves=octaves,
        reach=reach,
        spread=spread,
        far_spread=far_spread,
        seed=seed,
    )
    shifts, pairs = sorted(shifts), sorted(pairs)
    middle = shifts[len(shifts) // 2], pairs[len(pairs) // 2]
    grid = [simulate(classes, t, n, gamma, [seed, i]) for i, (t, n) in enumerate(product(shifts, pairs))]
    sharper = [simulate(classes, *middle, g, [seed, len(grid) + i]) for i, g in enumerate(sorted(gammas))]
    sized = by_size(classes, middle[1], gamma, [seed, len(grid) + len(sharper)])
    rows = [_row(cell, classes, delta) for cell in grid]
    by_class = [row for cell in grid for row in _class_rows(cell, delta)]
    rewards = [row for cell in grid for row in _reward_rows(cell, delta)]
    powers = [*_powers(grid, delta, seed), _gamma_power(sharper, seed), _size_power(sized, middle[1], delta, seed)]
    tables = {"coverage": rows, "coverage_classes": by_class, "coverage_rewards": rewards, "coverage_powers": powers}
    claims = [
        _theorem_4(rows, float(log_constant(_radius(classes, max(shifts)), gamma).min()), delta),
        _moving(rows),
        _rate(powers),
        _alone(by_class, max(shifts)),
        _theorem_7(rewards, delta),
        _on_policy(rewards, min(cell.same for cell in grid), max(shifts), middle[1]),
    ]
    return Study(tables, claims, {"coverage": _figure(rows, by_class, rewards, middle[1])})


def _measured(learned: Learned, bounds: Tensor, delta: float) -> Row:
    """Mean error, its mean share of the bound without the constant, and the constant that 1−δ of the worlds need."""
    share = learned.error / bounds
    return {
        "mean C": float(learned.coverage.mean()),
        **mean_interval(learned.error.tolist()),
        "mean bound": float(bounds.mean()),
        "error/bound": float(share.mean()),
        "constant needed": float(share.quantile(1 - delta)),
    }


def _bound(cell: Cell, learned: Learned, delta: float) -> Tensor:
    return bound(learned.coverage, learned.size, gamma=cell.gamma, pairs=cell.pairs, delta=delta)


def _row(cell: Cell, classes: Classes, delta: float) -> Row:
    log_mu = between(classes.log_target, classes.log_far, cell.shift)
    learned = cell.pmle[WHOLE]
    return {
        "t": cell.shift,
        "pairs": cell.pairs,
        "median C": float(learned.coverage.median()),
        "median C, all rewards": float(linear_coverage(classes.log_target, log_mu).median()),
        **_measured(learned, _bound(cell, learned, delta), delta),
    }


def _class_rows(cell: Cell, delta: float) -> Iterator[Row]:
    for name, learned in cell.pmle.items():
        measured = _measured(learned, _bound(cell, learned, delta), delta)
        yield {"class": POLICIES[name], "size": learned.size, "t": cell.shift, "pairs": cell.pairs, **measured}


def _reward_rows(cell: Cell, delta: float) -> Iterator[Row]:
    """The bound of ADL's Theorem 7: ln(|Π|/δ)/n beside that of Theorem 4 for the class of rewards."""
    whole = cell.pmle[WHOLE]
    prompts = bound(torch.ones_like(whole.coverage), whole.size, gamma=1.0, pairs=cell.pairs, delta=delta)
    for name, learned in cell.reverse_kl.items():
        measured = _measured(learned, prompts + _bound(cell, learned, delta), delta)
        gain = mean_interval((learned.error - whole.error).tolist())
        yield {
            "rewards": REWARDS[name],
            "size": learned.size,
            "t": cell.shift,
            "pairs": cell.pairs,
            **measured,
            "above PMLE over Π": gain["estimate"],
            "above, low": gain["low"],
            "above, high": gain["high"],
        }


def _powers(cells: Sequence[Cell], delta: float, seed: int) -> Iterator[Row]:
    """Of the mean error: in n at each t, in C at each n, and in the whole bound over all cells."""
    for name, text in POLICIES.items():
        for t in sorted({cell.shift for cell in cells}):
            mine = [cell for cell in cells if cell.shift == t]
            found = _power(mine, name, [torch.full_like(cell.pmle[name].error, cell.pairs) for cell in mine], seed)
            yield {"factor": "n", "class": text, "at": f"t = {t:g}", "theorem": -1, **found}
        for n in sorted({cell.pairs for cell in cells}):
            mine = [cell for cell in cells if cell.pairs == n]
            found = _power(mine, name, [cell.pmle[name].coverage for cell in mine], seed)
            yield {"factor": "C", "class": text, "at": f"{n} pairs", "theorem": 1, **found}
        found = _power(cells, name, [_bound(cell, cell.pmle[name], delta) for cell in cells], seed)
        yield {"factor": "bound", "class": text, "at": "all t and n", "theorem": 1, **found}


def _gamma_power(cells: Sequence[Cell], seed: int) -> Row:
    x = [torch.full_like(cell.pmle[WHOLE].error, cell.gamma) for cell in cells]
    at = f"t = {cells[0].shift:g}, {cells[0].pairs} pairs"
    return {"factor": "γ", "class": POLICIES[WHOLE], "at": at, "theorem": -2, **_power(cells, WHOLE, x, seed)}


def _power(cells: Sequence[Cell], name: str, x: Sequence[Tensor], seed: int) -> dict[str, float]:
    return fitted_power(torch.stack(list(x)), torch.stack([cell.pmle[name].error for cell in cells]), seed)


def _size_power(sized: Sequence[Learned], pairs: int, delta: float, seed: int) -> Row:
    errors = torch.stack([learned.error for learned in sized])
    x = torch.stack([torch.full_like(learned.error, math.log(learned.size / delta)) for learned in sized])
    at = f"t = 0, {pairs} pairs, {sized[0].size} to {sized[-1].size} policies"
    text = "the first directions, all distances"
    return {"factor": "ln(size/δ)", "class": text, "at": at, "theorem": 1, **fitted_power(x, errors, seed)}


def _radius(classes: Classes, shift: float) -> Tensor:
    """R of |R̄_π| ≤ γ·R over Π, centred under μ: [S]."""
    mu = between(classes.log_target, classes.log_far, shift).exp().unsqueeze(1)
    centred = classes.log_policies - (mu * classes.log_policies).sum(-1, keepdim=True)
    return centred.abs().amax((-2, -1))


def _theorem_4(rows: Sequence[Row], log_least: float, delta: float) -> Claim:
    worst = max(rows, key=lambda row: float(row["constant needed"]))
    needed = worst["constant needed"]
    return Claim(
        "PMLE: KL(π*‖π̂) ≤ c·C·ln(|Π|/δ)/(γ²·n) with probability 1−δ, c as given in the proof",
        "ADL, Theorem 4",
        f"1−δ = {1 - delta:g} of {worst['n']} worlds need at most c = {needed:.2f} (t = {worst['t']:g}, {worst['pairs']} pairs); the "
        f"theorem's c is at least 10^{log_least / math.log(10):.0f} here",
        "holds" if math.log(needed) <= log_least else "fails",
    )


def _moving(rows: Sequence[Row]) -> Claim:
    needed = {t: max(row["constant needed"] for row in rows if row["t"] == t) for t in sorted({row["t"] for row in rows})}
    near, *far = needed.values()
    return Claim(
        "as μ moves away from π*, C grows as much as is needed: one constant does for all μ",
        "ADL, Theorem 4",
        "constant needed, largest over n; " + ", ".join(f"t = {t:g}: {c:.2f}" for t, c in needed.items()),
        "holds" if max(far) <= near else "fails",
    )


def _rate(powers: Sequence[Row]) -> Claim:
    whole = [row for row in powers if row["class"] == POLICIES[WHOLE] or row["factor"] == "ln(size/δ)"]
    agree, parts = [], []
    for factor in ("n", "γ", "C", "ln(size/δ)", "bound"):
        mine = [row for row in whole if row["factor"] == factor]
        least, most = (f"{pick(mine, key=lambda row: float(row['estimate']))['estimate']:.2f}" for pick in (min, max))
        if all(row["low"] - NEAR <= row["theorem"] <= row["high"] + NEAR for row in mine):
            agree.append(factor)
        parts.append(
            f"{factor}: {least if least == most else f'{least} to {most}'}, not {mine[0]['theorem']}"
            if factor not in agree
            else f"{factor}: {least if least == most else f'{least} to {most}'}"
        )
    worst = [row for row in powers if (row["factor"], row["class"]) == ("C", POLICIES["worst direction"])]
    return Claim(
        "the bound is tight: the mean error grows with the same powers of n, γ, C and ln(|Π|/δ)",
        "ADL, Theorem 4, read as a rate",
        "fitted powers; "
        + "; ".join(parts)
        + "; C of classes with one direction: "
        + f"{min(row['estimate'] for row in worst):.2f} to {max(row['estimate'] for row in worst):.2f}",
        "fails" if not agree else "holds" if len(agree) == len(parts) else "holds under changes of " + ", ".join(agree),
    )


def _alone(rows: Sequence[Row], shift: float) -> Claim:
    good, bad = (
        [row for row in rows if row["class"] == POLICIES[name] and row["t"] == shift]
        for name in ("well covered near", "badly covered near")
    )
    ratios = [b["estimate"] / g["estimate"] for g, b in zip(good, bad, strict=True)]
    apart = [g["high"] < b["low"] for g, b in zip(good, bad, strict=True)]
    return Claim(
        "the error depends on C alone, at given n, γ and size of the class",
        "ADL, Theorem 4, read as a rate",
        f"two classes of {good[0]['size']} policies with the same C, t = {shift:g}, {good[0]['n']} worlds: errors differ by factors of "
        f"{min(ratios):.1f} to {max(ratios):.1f}, beyond their intervals at {sum(apart)} of {len(apart)} n",
        "fails" if any(apart) else "holds",
    )


def _theorem_7(rows: Sequence[Row], delta: float) -> Claim:
    near = max(row["constant needed"] for row in rows if row["t"] == 0)
    far = max(row["constant needed"] for row in rows if row["t"] > 0)
    return Claim(
        "reverse KL: KL(π*‖π̂) ≤ c·[ln(|Π|/δ)/n + C_R·ln(|R|/δ)/(γ²·n)] with probability 1−δ, one c for all μ and R",
        "ADL, Theorem 7",
        f"1−δ = {1 - delta:g} of {rows[0]['n']} worlds need at most c = {near:.2f} where μ = π*, {far:.2f} elsewhere",
        "holds" if far <= near else "fails",
    )


def _on_policy(rows: Sequence[Row], same: float, shift: float, pairs: int) -> Claim:
    mine = {row["rewards"]: row for row in rows if (row["t"], row["pairs"]) == (shift, pairs)}
    best, any_, worst = (mine[REWARDS[name]] for name in ("best quarter", "any quarter", "worst quarter"))
    whole = mine[REWARDS[WHOLE]]
    better = whole["estimate"] > best["estimate"] and best["above, high"] < 0
    errors = ", ".join(f"{row['estimate']:.2g} with C_R = {row['mean C']:.3g}" for row in (best, any_, worst))
    return Claim(
        "on-policy reverse KL depends on C_R, PMLE on C_Π ≥ C_R: on-policy is nearer to π*",
        "ADL, Theorem 7 against Theorem 4",
        f"t = {shift:g}, {pairs} pairs: PMLE over Π {whole['estimate'] - whole['above PMLE over Π']:.2g} nats with C = {whole['mean C']:.3g}; "
        f"reverse KL over Π {errors}, and with all rewards PMLE's policy; PMLE over P_γ(R) learns reverse KL's policy in a share "
        f"of {same:g}",
        "fails"
        if not better
        else "holds under a smaller R; so does PMLE over P_γ(R)"
        if same == 1
        else "holds under a smaller R",
    )


def _figure(rows: Sequence[Row], by_class: Sequence[Row], rewards: Sequence[Row], pairs: int) -> Figure:
    figure = new_figure(11.0, 3.8)
    figure.set_layout_engine("constrained")
    left, middle, right = figure.subplots(1, 3)
    shifts = sorted({row["t"] for row in rows})
    for t, colour, marker in zip(shifts, COLOURS, MARKERS, strict=False):
        mine = [row for row in rows if row["t"] == t]
        _line(left, [(row["mean bound"], row) for row in mine], colour, marker, f"t = {t:g}, mean C = {mine[0]['mean C']:.3g}")
    ends = [pick(row["mean bound"] for row in rows) for pick in (min, max)]
    for factor, style in ((1.0, "--"), (0.1, ":")):
        left.plot(ends, [factor * end for end in ends], color=PALE, ls=style, zorder=0, label=f"{factor:g} × bound")
    for (name, text), colour, marker in zip(POLICIES.items(), COLOURS, MARKERS, strict=False):
        mine = [row for row in by_class if (row["class"], row["t"]) == (text, shifts[-1])]
        _line(middle, [(row["pairs"], row) for row in mine], colour, marker, f"{name}, {mine[0]['size']} policies")
    for (name, text), colour, marker in zip(REWARDS.items(), COLOURS, MARKERS, strict=False):
        mine = [row for row in rewards if (row["rewards"], row["pairs"]) == (text, pairs)]
        _line(right, [(row["mean C"], row) for row in mine], colour, marker, f"{name}, {mine[0]['size']} rewards")
    n = rows[0]["n"]
    left.set(xlabel="C·ln(|Π|/δ)/(γ²·pairs) / nats", ylabel=f"KL(π*‖π̂) / nats, {n} worlds", title="PMLE, all of Π")
    middle.set(xlabel="pairs", title=f"PMLE by class of policies, t = {shifts[-1]:g}")
    right.set(xlabel="mean C of the class of rewards", title=f"reverse KL over Π by class of rewards, {pairs} pairs")
    for axes in (left, middle, right):
        axes.set(xscale="log", yscale="log")
        axes.legend(fontsize=7)
    return figure


def _line(axes: Axes, points: Sequence[tuple[float, Row]], colour: str, marker: str, label: str) -> None:
    axes.plot(
        [x for x, _ in points], [row["estimate"] for _, row in points], color=colour, marker=marker, ms=4, lw=0.8, label=label
    )
    for x, row in points:
        draw_point(axes, x, row["estimate"], colour, marker, size=4, yerr=error(dict(row)))


run = stage(coverage)
