"""Does a tuned model win against its reference, where labels come from pairs of the reference? Any annotator, DPO and SPL."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from prefdist.exact.annotators import ANNOTATORS, Annotated, random_annotated
from prefdist.exact.mixtures import SLACK
from prefdist.exact.study import Claim, Row, Study, share_interval, stage
from prefdist.style import COLOURS, MARKERS, draw_point, error, new_figure

PAIRS = 1_000_000
"""Pairs of responses at a time: the fit of the reward holds ten tables of them, 80 MB."""
EXAMPLE_REFERENCE, EXAMPLE_PREFERENCE = 0.9, 0.6
"""Of the first of two responses: its share of the reference, and how often it beats the other."""


@dataclass(frozen=True)
class Cell:
    """S worlds of one annotator and number of responses. win_rates, same_order [S, T, B]; deviations over all worlds, β.

    mixture: of ½·p_A + ½·p_U from p_ref; mass: of the aligned mass at τ = 1 from the win rate by summing over pairs.
    """

    win_rates: Tensor
    same_order: Tensor
    mixture: float
    mass: float


def chosen_rejected(
    *,
    worlds: int = 5_000,
    outputs: Sequence[int] = (2, 3, 5, 10, 30),
    annotators: Sequence[str] = tuple(ANNOTATORS),
    betas: Sequence[float] = (0.05, 0.1, 0.5, 1.0, 2.0),
    taus: Sequence[float] = (1.2, 1.5, 2.0, 4.0, 11.0),
    seed: int = 0,
) -> Study:
    """`worlds` for each annotator and number of outputs; `taus` are SPL's α/β, τ = 1 (RLHF, DPO) is measured beside them.

    ValueError: outputs or annotators that `random_annotated` refuses, β ≤ 0, τ ≤ 1.
    """
    if not min(betas) > 0:
        raise ValueError(f"betas must be > 0, got {min(betas)}: at 0 the optimum is no tilt")
    if not min(taus) > 1:
        raise ValueError(f"taus must be > 1, got {min(taus)}: 1 is RLHF and DPO, which are measured anyway")
    generator = Generator().manual_seed(seed)
    cells = {
        (annotator, n): _measure(annotator, n, betas, (1.0, *taus), worlds, generator)
        for annotator, n in product(annotators, outputs)
    }
    theorem = [_theorem(annotator, n, cell) for (annotator, n), cell in cells.items()]
    spl = list(_spl(cells, outputs, betas, taus))
    example = [_example(beta, tau) for beta, tau in product(betas, (1.0, *taus))]
    tables = {"chosen_rejected": theorem, "chosen_rejected_spl": spl, "chosen_rejected_example": example}
    return Study(tables, _claims(theorem, spl, example), {"chosen_rejected": _figure(spl)})


def _measure(
    annotator: str, outputs: int, betas: Sequence[float], taus: Sequence[float], worlds: int, generator: Generator
) -> Cell:
    size = max(1, PAIRS // outputs**2)
    parts = []
    for start in range(0, worlds, size):
        drawn = random_annotated(min(size, worlds - start), outputs, annotator, generator)
        parts.append(_cell(drawn, betas, taus))
    return Cell(
        torch.cat([part.win_rates for part in parts]),
        torch.cat([part.same_order for part in parts]),
        max(part.mixture for part in parts),
        max(part.mass for part in parts),
    )


def _cell(drawn: Annotated, betas: Sequence[float], taus: Sequence[float]) -> Cell:
    grid = list(product(taus, betas))
    shape = (len(drawn.reference), len(taus), len(betas))
    mixtures = drawn.mixtures
    mass = [(drawn.win_rate_by_pairs(beta, tau=1) - mixtures.aligned_mass(beta)).abs().max() for beta in betas]
    return Cell(
        torch.stack([drawn.tuned_win_rate(beta, tau) for tau, beta in grid], -1).view(shape),
        torch.stack([drawn.same_order(beta, tau) for tau, beta in grid], -1).view(shape),
        float((mixtures.reference - drawn.reference).abs().max()),
        float(torch.stack(mass).max()),
    )


def _theorem(annotator: str, outputs: int, cell: Cell) -> Row:
    """τ = 1: worlds whose win rate is below ½ at any β."""
    lowest = cell.win_rates[:, 0].amin(-1)
    violations = int((lowest < 0.5 - SLACK).sum())
    return (
        {"annotator": annotator, "outputs": outputs}
        | share_interval(violations, len(lowest))
        | {
            "violations": violations,
            "smallest_win_rate_minus_half": float(lowest.min()) - 0.5,
            "mixture_deviation": cell.mixture,
            "mass_deviation": cell.mass,
        }
    )


def _spl(
    cells: dict[tuple[str, int], Cell], outputs: Sequence[int], betas: Sequence[float], taus: Sequence[float]
) -> Iterator[Row]:
    """τ > 1, all annotators together: worlds whose win rate is below ½, and those among them that keep the order."""
    for n in outputs:
        win_rates = torch.cat([cell.win_rates for (_, size), cell in cells.items() if size == n])[:, 1:]
        ordered = torch.cat([cell.same_order for (_, size), cell in cells.items() if size == n])[:, 1:]
        lost = win_rates < 0.5 - SLACK
        for (t, tau), (b, beta) in product(enumerate(taus), enumerate(betas)):
            yield (
                {"outputs": n, "tau": tau, "beta": beta}
                | share_interval(int(lost[:, t, b].sum()), len(lost))
                | {
                    "smallest_win_rate": float(win_rates[:, t, b].min()),
                    "n_same_order": int(ordered[:, t, b].sum()),
                    "violations_same_order": int((lost & ordered)[:, t, b].sum()),
                }
            )


def _example(beta: float, tau: float) -> Row:
    """Two responses: the win rate is below ½ from α − β = logit(preference)/logit(reference) on."""
    reference = torch.tensor([[EXAMPLE_REFERENCE, 1 - EXAMPLE_REFERENCE]], dtype=torch.float64)
    first = EXAMPLE_PREFERENCE
    preference = torch.tensor([[[0.5, first], [1 - first, 0.5]]], dtype=torch.float64)
    annotated = Annotated.learn(reference, preference)
    bonus = math.log(first / (1 - first)) / math.log(EXAMPLE_REFERENCE / (1 - EXAMPLE_REFERENCE))
    return {
        "reference": EXAMPLE_REFERENCE,
        "preference": first,
        "beta": beta,
        "tau": tau,
        "policy": float(annotated.tuned(beta, tau).exp()[0, 0]),
        "win_rate": float(annotated.tuned_win_rate(beta, tau)),
        "threshold_tau": 1 + bonus / beta,
    }


def _claims(theorem: Sequence[Row], spl: Sequence[Row], example: Sequence[Row]) -> list[Claim]:
    violations = sum(row["violations"] for row in theorem)
    worlds = sum(row["n"] for row in theorem)
    smallest = min(row["smallest_win_rate_minus_half"] for row in theorem)
    mass = max(row["mass_deviation"] for row in theorem)
    most = max(spl, key=lambda row: float(row["estimate"]))
    ordered = sum(row["n_same_order"] for row in spl)
    broken = sum(row["violations_same_order"] for row in spl)
    lost = next((row for row in example if row["win_rate"] < 0.5 - SLACK), None)
    two = "" if lost is None else f"; two responses, β = {lost['beta']:g}, τ = {lost['tau']:g}: {lost['win_rate']:.4f}"
    return [
        Claim(
            "RLHF and DPO on pairs from p_ref win against p_ref at least half the time, at every β, whoever labels: TPM(A) ≥ ½ "
            "with A the chosen, U the rejected responses",
            "a repair of Huang, Theorem 2",
            f"{violations} of {worlds} worlds below ½, the closest {smallest:.1g} above it; "
            f"TPM(A) is the win rate within {mass:.1g}",
            "fails" if violations else "holds",
        ),
        Claim(
            "the same for SPL with τ = α/β > 1",
            "SPL, Prop. 3.2, with the claim above",
            f"below ½ in up to {most['estimate']:.1%} [{most['low']:.1%}, {most['high']:.1%}] of {most['n']} worlds "
            f"({most['outputs']} responses, β = {most['beta']:g}, τ = {most['tau']:g}){two}",
            "fails" if any(row["estimate"] for row in spl) else "holds",
        ),
        Claim(
            "SPL wins at least half the time where r − (α−β)·log p_ref orders responses as r does",
            "SPL, Prop. 3.2, with the claim above",
            f"{broken} violations of {ordered} worlds × β × τ that meet it",
            "fails" if broken else "holds",
        ),
    ]


def _figure(rows: Sequence[Row]) -> Figure:
    betas = sorted({row["beta"] for row in rows})
    figure = new_figure(2.2 * len(betas) + 0.6, 3.1)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(betas), sharey=True, squeeze=False)[0]
    looks = dict(zip(sorted({row["outputs"] for row in rows}), zip(COLOURS, MARKERS, strict=True), strict=False))
    for axes, beta in zip(panels, betas, strict=True):
        for outputs, (colour, marker) in looks.items():
            drawn = [row for row in rows if row["beta"] == beta and row["outputs"] == outputs]
            for row in drawn:
                draw_point(axes, row["tau"], 100 * row["estimate"], colour, marker, size=4.5, yerr=100 * error(dict(row)))
            axes.plot([row["tau"] for row in drawn], [100 * row["estimate"] for row in drawn], color=colour, lw=1)
            axes.plot([], [], color=colour, marker=marker, label=f"{outputs}")
        axes.set(xscale="log", xlabel="τ = α/β")
        taus = sorted({row["tau"] for row in rows})
        axes.set_xticks(taus, [f"{tau:g}" for tau in taus], fontsize=7)
        axes.minorticks_off()
        axes.set_title(f"β = {beta:g}")
    panels[0].set_ylabel(f"worlds in which SPL wins less than ½ / %,\nn = {rows[0]['n']} a point")
    panels[0].legend(title="responses")
    return figure


run = stage(chosen_rejected)
