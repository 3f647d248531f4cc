"""Are SPL, ADL's reverse KL, RLHF, Huang's lemma and DPO one tilt of the prior? Each as its work writes it, beside another."""

from collections.abc import Sequence

import torch
from matplotlib.figure import Figure

from prefdist.exact.studies.dots import EQUAL, dots
from prefdist.exact.study import Claim, Row, Study, stage
from prefdist.exact.tilt_identities import MAXIMISED, SOLVED, WRITTEN, Draw, Identity, draw

NAMES = ("quantity", "SPL", "ADL, reverse KL", "RLHF and DPO", "Huang, Lemma 1")
SYMBOLS = (
    ("temperature of the reward", "α", "β + γ", "β", "β"),
    ("weight of the prior", "β", "β", "β", "β"),
    ("exponent of the prior", "β/α", "β/(β + γ), called α", "1", "1"),
    ("entropy bonus", "α − β", "γ", "0", "0"),
    ("global temperature over DPO", "α/β", "1 + γ/β", "1", "1"),
    ("prior", "π_ref", "π₀", "π_ref", "p_ref = α·p_A + (1 − α)·p_U"),
    (
        "what the letter α means there",
        "weight of the entropy",
        "exponent of the prior",
        "not used",
        "share of the aligned part",
    ),
)
"""What stands for what, in the order of NAMES."""
CLAIMS = {
    "optimum": "SPL, ADL's reverse KL, RLHF, Huang's Lemma 1 and DPO have one optimum, π₀^{β/α}·e^{r/α}/Z with α = β + γ",
    "objective": "SPL's objective is ADL's reverse KL with α = β + γ, and falls short of its maximum by α·KL(π‖π_SPL)",
    "logit": "at the optimum the logit of every pair is the difference of rewards",
    "preference": "SPL-DPO at α = γ, β = 0 is PMLE's likelihood",
}


def unification(*, sizes: Sequence[int], worlds: int, maximised: int, spread: float, weights: tuple[float, float]) -> Study:
    """`worlds` of each of `sizes` responses: logits and rewards N(0, spread²), α, β and γ log-uniform between `weights`.

    The first `maximised` of each size are also solved by SciPy and by rows of the objective table. ValueError: fewer
    worlds than those.
    """
    if maximised > worlds:
        raise ValueError(f"maximised must be ≤ worlds, got {maximised} > {worlds}: it counts the first of them")
    drawn = [draw(size, worlds, spread, weights) for size in sizes]
    few = [world.first(maximised) for world in drawn]
    rows = [_row(identity, drawn) for identity in WRITTEN] + [_row(identity, few) for identity in SOLVED]
    symbols: list[Row] = [dict(zip(NAMES, line, strict=True)) for line in SYMBOLS]
    tables = {"unification": rows, "unification_symbols": symbols}
    return Study(tables, [_claim(quantity, rows) for quantity in CLAIMS], {"unification": _figure(rows)})


def _row(identity: Identity, worlds: Sequence[Draw]) -> Row:
    deviations = torch.cat([identity.deviation(world) for world in worlds])
    return {
        "identity": identity.name,
        "formula": identity.formula,
        "of": identity.quantity,
        "source": identity.source,
        "largest deviation": float(deviations.max()),
        "mean deviation": float(deviations.mean()),
        "n": len(deviations),
        "verdict": "equal" if float(deviations.max()) <= identity.limit else "different",
    }


def _claim(quantity: str, rows: Sequence[Row]) -> Claim:
    mine = [row for row in rows if row["of"] == quantity]
    by_number: dict[int, list[Row]] = {}
    for row in mine:
        by_number.setdefault(row["n"], []).append(row)
    measured = (
        f"{len(same)} identities, {n} worlds: differences of at most {max(row['largest deviation'] for row in same):.1g}"
        for n, same in by_number.items()
    )
    return Claim(
        CLAIMS[quantity],
        "; ".join(dict.fromkeys(row["source"] for row in mine)),
        "; ".join(measured),
        "holds" if all(row["verdict"] == "equal" for row in mine) else "fails",
    )


def _figure(rows: Sequence[Row]) -> Figure:
    labels = [row["identity"] for row in rows]
    points = {
        "largest over worlds": ("o", [row["largest deviation"] for row in rows]),
        "mean": ("|", [row["mean deviation"] for row in rows]),
    }
    numbers = " or ".join(str(n) for n in sorted({row["n"] for row in rows}, reverse=True))
    axis = f"largest absolute deviation (probability or nats), n = {numbers} worlds"
    return dots(labels, points, [EQUAL] * len(rows), axis, limit=MAXIMISED)


run = stage(unification)
