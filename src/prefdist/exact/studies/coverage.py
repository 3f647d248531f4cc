"""Does coverage say how far π̂ is from π*? PMLE and reverse KL over finite classes, with pairs from nearer and farther laws."""

import math
from collections.abc import Sequence
from itertools import product

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from prefdist.exact.coverage import between, log_constant
from prefdist.exact.coverage_cells import POLICIES, REWARDS, WHOLE, WORST, Cell, by_size, simulate
from prefdist.exact.coverage_tables import (
    MEDIAN,
    class_rows,
    gamma_power,
    powers,
    reward_rows,
    size_power,
    size_rows,
    whole_row,
)
from prefdist.exact.finite_classes import Classes, random_classes
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
    rows = [whole_row(cell, classes, delta) for cell in grid]
    by_class = [row for cell in grid for row in class_rows(cell, delta)]
    rewards = [row for cell in grid for row in reward_rows(cell, delta)]
    fitted = [*powers(grid, delta, seed), gamma_power(sharper, seed), size_power(sized, middle[1], delta, seed)]
    tables: dict[str, Sequence[Row]] = {
        "coverage": rows,
        "coverage_powers": fitted,
        "coverage_classes": by_class,
        "coverage_rewards": rewards,
        "coverage_gammas": [{"γ": cell.gamma, **whole_row(cell, classes, delta)} for cell in sharper],
        "coverage_sizes": list(size_rows(sized, middle[1], gamma, delta)),
    }
    claims = [
        _theorem_4(rows, min(float(log_constant(_radius(classes, t), gamma).min()) for t in shifts), delta),
        _moving(rows),
        _rate(fitted),
        _alone([cell for cell in grid if cell.shift == shifts[-1]]),
        _theorem_7(rewards, delta),
        _on_policy(rewards, min(cell.same for cell in grid), max(shifts), middle[1]),
    ]
    return Study(tables, claims, {"coverage": _figure(rows, by_class, rewards, middle[1])})


def _radius(classes: Classes, shift: float) -> Tensor:
    """R of |R̄_π| ≤ γ·R over Π, centred under μ: [S]."""
    mu = between(classes.log_target, classes.log_far, shift).exp().unsqueeze(1)
    centred = classes.log_policies - (mu * classes.log_policies).sum(-1, keepdim=True)
    return centred.abs().amax((-2, -1))


def _theorem_4(rows: Sequence[Row], log_least: float, delta: float) -> Claim:
    worst = _neediest(rows)
    return Claim(
        "PMLE: KL(π*‖π̂) ≤ c·C·ln(|Π|/δ)/(γ²·n) with probability 1−δ, c as given in the proof",
        "ADL, Theorem 4",
        f"1−δ = {1 - delta:g} of {worst['n']} worlds need c = {_needed(worst)} or less (most at t = {worst['t']:g}, "
        f"{worst['pairs']} pairs); the theorem's c is at least 10^{log_least / math.log(10):.0f} here",
        "holds" if math.log(worst["constant needed"]) <= log_least else "fails",
    )


def _moving(rows: Sequence[Row]) -> Claim:
    near, *far = (_neediest([row for row in rows if row["t"] == t]) for t in sorted({row["t"] for row in rows}))
    return Claim(
        "as μ moves away from π*, C grows as much as is needed: one constant does for all μ",
        "ADL, Theorem 4",
        "constant needed, largest over n; " + ", ".join(f"t = {row['t']:g}: {_needed(row)}" for row in (near, *far)),
        _no_more(far, near),
    )


def _neediest(rows: Sequence[Row]) -> Row:
    return max(rows, key=lambda row: float(row["constant needed"]))


def _needed(row: Row) -> str:
    return f"{row['constant needed']:.2f} [{row['constant needed, low']:.2f}, {row['constant needed, high']:.2f}]"


def _no_more(far: Sequence[Row], near: Row) -> str:
    """Fails where a constant that is needed away from π* is above that at π* by more than both intervals allow."""
    above = [row for row in far if row["constant needed, low"] > near["constant needed, high"]]
    return "fails" if above else "holds"


def _rate(powers: Sequence[Row]) -> Claim:
    agree, parts = [], []
    for factor in ("n", "γ", "C", "ln(size/δ)", "bound"):
        mine = _of(powers, factor, WHOLE)
        if all(row["low"] - NEAR <= row["theorem"] <= row["high"] + NEAR for row in mine):
            agree.append(factor)
        parts.append(f"{factor} {_range(mine)} (theorem: {mine[0]['theorem']})")
    return Claim(
        "the bound is tight: the mean error grows with the same powers of n, γ, C and ln(|Π|/δ)",
        "ADL, Theorem 4, read as a rate",
        f"fitted powers: {', '.join(parts)}; C of classes with one direction: {_range(_of(powers, 'C', WORST))}; median "
        f"coverage of directions in place of C: {_range(_of(powers, MEDIAN, WHOLE))}",
        "fails" if not agree else "holds" if len(agree) == len(parts) else "holds under changes of " + ", ".join(agree),
    )


def _of(powers: Sequence[Row], factor: str, name: str) -> list[Row]:
    return [row for row in powers if (row["factor"], row["class"]) == (factor, POLICIES[name])]


def _range(rows: Sequence[Row]) -> str:
    """Of estimates; one estimate has its interval."""
    values = sorted(row["estimate"] for row in rows)
    if len(values) == 1:
        return f"{values[0]:.2f} [{rows[0]['low']:.2f}, {rows[0]['high']:.2f}]"
    return f"{values[0]:.2f} … {values[-1]:.2f}"


def _alone(cells: Sequence[Cell]) -> Claim:
    ratios, apart = [], 0
    for cell in cells:
        good, bad = cell.pmle["well covered near"], cell.pmle["badly covered near"]
        ratios.append(float(bad.error.mean() / good.error.mean()))
        apart += mean_interval((bad.error - good.error).tolist())["low"] > 0
    return Claim(
        "the error depends on C alone, at given n, γ and size of the class",
        "ADL, Theorem 4, read as a rate",
        f"two classes of {good.size} policies with the same C, t = {cells[0].shift:g}, {len(good.error)} worlds: mean errors "
        f"differ by factors of {min(ratios):.1f} to {max(ratios):.1f}, at {apart} of {len(cells)} n more than by chance",
        "fails" if apart else "holds",
    )


def _theorem_7(rows: Sequence[Row], delta: float) -> Claim:
    near, far = (_neediest([row for row in rows if (row["t"] > 0) == away]) for away in (False, True))
    return Claim(
        "reverse KL: KL(π*‖π̂) ≤ c·[ln(|Π|/δ)/n + C_R·ln(|R|/δ)/(γ²·n)] with probability 1−δ, one c for all μ and R",
        "ADL, Theorem 7",
        f"1−δ = {1 - delta:g} of {rows[0]['n']} worlds need at most c = {_needed(near)} where μ = π*, {_needed(far)} elsewhere",
        _no_more([far], near),
    )


def _on_policy(rows: Sequence[Row], same: float, shift: float, pairs: int) -> Claim:
    mine = {row["rewards"]: row for row in rows if (row["t"], row["pairs"]) == (shift, pairs)}
    whole, best, drawn, worst = (mine[text] for text in REWARDS.values())
    pmle = whole["estimate"] - whole["above PMLE over Π"]
    errors = ", ".join(f"{row['estimate']:.2g} with C_R = {row['mean C']:.3g}" for row in (best, drawn, worst))
    better = "holds under a smaller R" if best["above, high"] < 0 else "fails"
    return Claim(
        "on-policy reverse KL depends on C_R, PMLE on C_Π ≥ C_R: on-policy is nearer to π*",
        "ADL, Theorem 7 against Theorem 4",
        f"t = {shift:g}, {pairs} pairs: PMLE over Π {pmle:.2g} nats with C_Π = {whole['mean C']:.3g}; reverse KL over Π "
        f"{whole['estimate']:.2g} with all rewards, with a quarter of them {errors}; a share of {same:g} of its policies is "
        "that of PMLE over P_γ(R), from the same pairs",
        f"{better}; so does PMLE over P_γ(R)" if same == 1 and better != "fails" else better,
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
    left.set(xlabel="C·ln(|Π|/δ)/(γ²·pairs) / nats", title="PMLE, all of Π")
    middle.set(xlabel="pairs", title=f"PMLE by class of policies, t = {shifts[-1]:g}")
    right.set(xlabel="mean C of R", title=f"reverse KL over Π by class R, {pairs} pairs, all t")
    for axes in (left, middle, right):
        axes.set(xscale="log", yscale="log", ylabel=f"KL(π*‖π̂) / nats, {rows[0]['n']} worlds")
        axes.legend(fontsize=7)
    return figure


def _line(axes: Axes, points: Sequence[tuple[float, Row]], colour: str, marker: str, label: str) -> None:
    axes.plot(
        [x for x, _ in points], [row["estimate"] for _, row in points], color=colour, marker=marker, ms=4, lw=0.8, label=label
    )
    for x, row in points:
        draw_point(axes, x, row["estimate"], colour, marker, size=4, yerr=error(dict(row)))


run = stage(coverage)
