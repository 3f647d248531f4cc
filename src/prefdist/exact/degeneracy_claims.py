"""What IPO's authors, SPL and ADL say about separable pairs, against where gradient flow ends in the study `degeneracy`."""

import math
from collections.abc import Iterator, Sequence

from prefdist.exact.study import Claim, Row

SAME = 1e-4
"""Total variation: SciPy stops at gradients of 1e-10, or where rounding of the loss ends its line search."""
LESS_LOSS = "less loss without the lost"
"""Heading: share of settled worlds whose loss is above that of probability 0 for all that lost."""


def check_claims(ends: Sequence[Row], settled: Sequence[Row], off: Sequence[Row]) -> list[Claim]:
    """Of the tables degeneracy_end, degeneracy_settled and degeneracy_off_data."""
    return [*_optimum_claims(ends, settled), *_kl_claims(ends, settled), *_off_claims(off)]


def _optimum_claims(ends: Sequence[Row], settled: Sequence[Row]) -> Iterator[Claim]:
    for name, source in (
        ("DPO", "IPO (arXiv 2310.12036), Sec. 4.2"),
        ("SPL", "SPL, Prop. 3.2, on finite data"),
        ("PMLE", "ADL, Eq. 4, on finite data"),
    ):
        mine = [row for row in ends if row["method"].startswith(name) and not row["kl"]]
        listed = "; ".join(f"{row['method']}: {row['KL(π₀‖π) per e-fold']:.3g} ({row['predicted']:.3g})" for row in mine)
        falls, n = (sum(row[key] for row in mine) for key in ("falling", "n"))
        yield Claim(
            f"{name} has no finite optimum on separable pairs" + (", whatever β" if name == "DPO" else ""),
            source,
            f"diverging in {falls} of {n} worlds × settings; KL(π₀‖π) grows like ln t, nats per e-fold (predicted by the "
            f"largest margin): {listed}",
            "holds" if falls == n else "fails",
        )
    ipo = next(row for row in ends if row["method"].startswith("IPO"))
    direct = [row for row in settled if row["method"] == ipo["method"]]
    off = max((row["largest total variation"] for row in direct), default=math.nan)
    yield Claim(
        "IPO's optimum is finite on them",
        "IPO (arXiv 2310.12036), Sec. 5",
        f"settled in {ipo['settled']:.0%} of {ipo['n']} worlds, total variation from least squares ≤ {off:.1g}",
        "holds" if ipo["settled"] == 1 and off <= SAME else "fails",
    )


def _kl_claims(ends: Sequence[Row], settled: Sequence[Row]) -> Iterator[Claim]:
    for text, mine in (
        ("PMLE with β·KL(π‖π₀) in the loss settles on them, γ < 1", [row for row in ends if row["kl"] and row["scale"] < 1]),
        ("the same, γ ≥ 1", [row for row in ends if row["kl"] and row["scale"] >= 1]),
    ):
        if not mine:
            continue
        listed = "; ".join(f"γ = {row['scale']:g}, β = {row['kl']:g}: {row['settled']:.0%}, {row['falling']}" for row in mine)
        always = [f"γ = {row['scale']:g}, β = {row['kl']:g}" for row in mine if row["settled"] == 1]
        yield Claim(
            text,
            "ADL, Eq. 5, on finite data",
            f"share of {mine[0]['n']} worlds that settled by the last t, and how many still fall: {listed}",
            "holds" if len(always) == len(mine) else f"holds under {' or '.join(always)}" if always else "fails",
        )
    ended = {row["method"]: row for row in settled if row["kl"]}
    counts = {name: (round(row[LESS_LOSS] * row["n"]), row["n"]) for name, row in ended.items()}
    if counts:
        worse = sum(count for count, _ in counts.values())
        yield Claim(
            "where PMLE with KL settles, no policy has less loss",
            "ADL, Eq. 5, on finite data",
            "probability 0 for all that lost has less loss in "
            + "; ".join(f"{count} of {n} worlds that settled ({name})" for name, (count, n) in counts.items()),
            "fails" if worse else "holds",
        )


def _off_claims(rows: Sequence[Row]) -> Iterator[Claim]:
    for text, mine in (
        ("without KL in the loss", [row for row in rows if not row["kl"]]),
        ("with KL in the loss", [row for row in rows if row["kl"]]),
    ):
        listed = "; ".join(f"{row['method']}: {row['at some time']:.0%}, {row['at the end']:.0%}" for row in mine)
        share = sum(row["at the end"] for row in mine) / len(mine)
        yield Claim(
            f"under a softmax of free logits, training moves mass to responses that are in no pair, {text}",
            "a reading of these losses, which say nothing of such responses",
            f"share of {mine[0]['n']} worlds with more such mass than π₀ at some t, and at the last: {listed}",
            "holds" if share == 1 else "fails" if share <= 0.5 else f"holds under {share:.0%} of worlds × settings",
        )
