"""Does preference tuning move mass from the unaligned to the aligned component? Huang's note on random mixtures."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle

import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from prefdist.exact.counterexamples import COUNTEREXAMPLES
from prefdist.exact.mixtures import SLACK, Mixtures, chunks, correlation, normal
from prefdist.exact.shift_conditions import CONDITIONS
from prefdist.exact.shift_identities import identities, limits
from prefdist.exact.shift_rates import Cell, measure, pooled_cell
from prefdist.exact.study import Claim, Row, Study, share_interval, stage
from prefdist.style import COLOURS, INK, MARKERS, draw_point, error, new_figure

REWARD = "normal"
"""The law that is measured for every number of outputs; the others on the pooled ones."""
BASE = 16
"""e^{1/β} of the exact counterexample."""
ROUNDING = 1e-12
"""Of the identities: at β = 0.01 r/β reaches 1000, which itself rounds to 1e-13."""
_LOOKS = tuple(zip(COLOURS, MARKERS, strict=True))


def output_shift(
    *,
    worlds: int = 50_000,
    outputs: Sequence[int] = (2, 3, 4, 5, 6, 10, 30, 100),
    pooled: Sequence[int] = (3, 4, 5, 6),
    rewards: Sequence[str] = ("normal", "uniform", "exponential", "integers", "binary"),
    betas: Sequence[float] = (0.01, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
    seed: int = 0,
) -> Study:
    """`worlds` that meet the hypotheses in each cell, a law of rewards and a number of outputs; as many, whether they
    meet them or not, for each identity and condition and number of outputs in `pooled`.

    ValueError: outputs or rewards that `random_mixtures` refuses, β ≤ 0.
    """
    if not min(betas) > 0:
        raise ValueError(f"betas must be > 0, got {min(betas)}: at 0 the optimum is no tilt")
    generator = Generator().manual_seed(seed)
    grid = torch.tensor(betas, dtype=torch.float64)
    cells = {(REWARD, str(n)): measure(REWARD, n, grid, worlds, generator) for n in outputs}
    for law in rewards:
        cells[law, f"{min(pooled)}–{max(pooled)}"] = pooled_cell(law, pooled, grid, worlds, generator)
    tables = {
        "output_shift": [row for key, cell in cells.items() for row in _rates(*key, betas, cell)],
        "output_shift_step": [row for key, cell in cells.items() for row in _steps(*key, betas, cell)],
        "output_shift_counterexamples": _examples(betas),
        "output_shift_identities": _identities(pooled, betas, worlds, generator),
        "output_shift_conditions": _conditions(pooled, betas, worlds, generator),
    }
    return Study(tables, _claims(tables), {"output_shift": _figure(tables)})


def _rates(rewards: str, outputs: str, betas: Sequence[float], cell: Cell) -> Iterator[Row]:
    for beta, count, shortfall in zip(betas, cell.violations.tolist(), cell.shortfall, strict=True):
        median = float(shortfall.median()) if len(shortfall) else math.nan
        yield (
            {"reward": rewards, "outputs": outputs, "beta": beta}
            | share_interval(count, cell.n)
            | {"violations": count, "median_shortfall": median}
        )


def _steps(rewards: str, outputs: str, betas: Sequence[float], cell: Cell) -> Iterator[Row]:
    for of, counts in (("A", cell.step_aligned), ("A or U", cell.step)):
        for beta, count in zip(betas, counts.tolist(), strict=True):
            yield {"reward": rewards, "outputs": outputs, "component": of, "beta": beta} | share_interval(count, cell.n)


def _examples(betas: Sequence[float]) -> list[Row]:
    grid = torch.tensor(betas, dtype=torch.float64)
    rows: list[Row] = []
    for example in COUNTEREXAMPLES:
        mixtures = example.mixtures
        weights = mixtures.weights(grid).squeeze(1)
        of_reward = {f"corr_r_{name}": float(correlation(mixtures.reward, p)) for name, p in _components(mixtures)}
        of_weights = {f"corr_weight_{name}": correlation(weights, p).tolist() for name, p in _components(mixtures)}
        for index, beta in enumerate(betas):
            rows.append(
                {"example": example.name, "beta": beta, "alpha": float(example.weight)}
                | of_reward
                | {name: values[index] for name, values in of_weights.items()}
                | {"tpm": float(mixtures.aligned_mass(beta)), "threshold_beta": example.threshold()}
            )
    return rows


def _components(mixtures: Mixtures) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
    return ("aligned", mixtures.aligned), ("unaligned", mixtures.unaligned)


def _identities(pooled: Sequence[int], betas: Sequence[float], worlds: int, generator: Generator) -> list[Row]:
    largest: dict[tuple[str, str], float] = {}

    def note(kind: str, found: Mapping[str, Tensor]) -> None:
        for name, deviation in found.items():
            largest[kind, name] = max(largest.get((kind, name), 0.0), float(deviation.max()))

    for drawn in chunks(normal, pooled, worlds, generator):
        for beta in betas:
            note("identity", identities(drawn, beta))
        note("limit", limits(drawn))
    n = worlds * len(pooled)
    return [{"kind": kind, "identity": name, "largest_deviation": value, "n": n} for (kind, name), value in largest.items()]


def _conditions(pooled: Sequence[int], betas: Sequence[float], worlds: int, generator: Generator) -> list[Row]:
    grid = torch.tensor(betas, dtype=torch.float64)
    rows: list[Row] = []
    for condition in CONDITIONS:
        met, violations = torch.zeros(2, len(betas), dtype=torch.long)
        for drawn in chunks(condition.draw, pooled, worlds, generator):
            holds = condition.test(drawn, grid)
            lost = torch.stack([drawn.aligned_mass(beta) < drawn.weight - SLACK for beta in betas])
            met, violations = met + holds.sum(-1), violations + (holds & lost).sum(-1)
        rows += [
            {"condition": condition.name, "kind": condition.kind, "beta": beta}
            | share_interval(count, n)
            | {"violations": count}
            for beta, n, count in zip(betas, met.tolist(), violations.tolist(), strict=True)
            if n  # no world meets the one for large β at a small one
        ]
    return rows


def _claims(tables: Mapping[str, Sequence[Row]]) -> list[Claim]:
    identity = [row for row in tables["output_shift_identities"] if row["kind"] == "identity"]
    deviation = max(row["largest_deviation"] for row in identity)
    conditions = {
        kind: [row for row in tables["output_shift_conditions"] if row["kind"] == kind]
        for kind in ("as stated", "another reading", "corrected")
    }
    corrected = sum(row["violations"] for row in conditions["corrected"])
    rate = _most(row for row in tables["output_shift"] if row["reward"] == REWARD)
    exact = COUNTEREXAMPLES[0]
    return [
        Claim(
            "the tuned model is the mixture with each component's weight times e^{r/β}/Z; TPM(A) and what follows from it",
            "Huang, Lemma 1",
            f"{len(identity)} identities within {deviation:.1g} in {identity[0]['n']} worlds",
            "holds" if deviation <= ROUNDING else "fails",
        ),
        Claim(
            "corr(r, p_A) > 0 > corr(r, p_U) gives TPM(A) ≥ α",
            "Huang, Theorem 2",
            f"{exact.name}: TPM(A) = {exact.rational_mass(BASE)} < {exact.weight}; random worlds: up to {rate}",
            _verdict(tables["output_shift"], holds="holds"),
        ),
        Claim(
            "corr(r, p_A) > 0 gives corr(e^{r/β}, p_A) > 0",
            "Huang, proof of Theorem 2",
            f"fails in up to {_most(row for row in tables['output_shift_step'] if row['component'] == 'A')}",
            "fails" if any(row["estimate"] > 0 for row in tables["output_shift_step"]) else "holds",
        ),
        Claim(
            "another measure of dependence, or p_ref as the measure, gives TPM(A) ≥ α",
            "Huang, Section 1.2, and readings of Theorem 2",
            f"violated in up to {_most(conditions['another reading'])}",
            _verdict(conditions["another reading"], holds="holds"),
        ),
        Claim(
            "TPM(A) ≥ α under corrected hypotheses: on e^{r/β}, stochastic dominance, p_A/p_U rising with r, two values of r, "
            "two outputs, large β, A = {r ≥ t}",
            "a correction of Huang, Theorem 2",
            f"{corrected} violations of {sum(row['n'] for row in conditions['corrected'])} worlds × β that meet one",
            _verdict(conditions["corrected"], holds="holds under each of them"),
        ),
    ]


def _most(rows: Iterable[Row]) -> str:
    worst = max(rows, key=lambda row: float(row["estimate"]))
    where = f"{worst['outputs']} outputs, " if "outputs" in worst else f"{worst['condition']}, "
    return f"{worst['estimate']:.1%} [{worst['low']:.1%}, {worst['high']:.1%}] of {worst['n']} ({where}β = {worst['beta']:g})"


def _verdict(rows: Sequence[Row], *, holds: str) -> str:
    return "fails" if any(row["violations"] for row in rows) else holds


def _figure(tables: Mapping[str, Sequence[Row]]) -> Figure:
    figure = new_figure(9.6, 3.6)
    figure.set_layout_engine("constrained")
    rates, examples = figure.subplots(1, 2)
    rows = [row for row in tables["output_shift"] if row["reward"] == REWARD]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        if "–" not in row["outputs"]:
            groups.setdefault(row["outputs"], []).append(row)
    clean = [outputs for outputs, group in groups.items() if not any(row["violations"] for row in group)]
    for (outputs, group), (colour, marker) in zip(
        ((outputs, group) for outputs, group in groups.items() if outputs not in clean), cycle(_LOOKS), strict=False
    ):
        for row in group:
            draw_point(rates, row["beta"], 100 * row["estimate"], colour, marker, size=4.5, yerr=100 * error(dict(row)))
        rates.plot([row["beta"] for row in group], [100 * row["estimate"] for row in group], color=colour, lw=1)
        rates.plot([], [], color=colour, marker=marker, label=outputs)
    rates.set(xscale="log", xlabel="β (units of r, whose standard deviation is 1)", ylabel="worlds with TPM(A) < α / %")
    rates.set_title(f"Hypotheses of Theorem 2 met, n = {rows[0]['n']} worlds a point")
    rates.legend(title="outputs" + (f" (none violate: {', '.join(clean)})" if clean else ""), ncols=2)
    for example, (colour, marker) in zip(
        (example for example in COUNTEREXAMPLES if example.weight == COUNTEREXAMPLES[0].weight), _LOOKS, strict=False
    ):
        drawn = [row for row in tables["output_shift_counterexamples"] if row["example"] == example.name]
        curve = torch.logspace(-2, 1, 200, dtype=torch.float64)
        mass = (example.mixtures.weight.logit() + example.mixtures.gain(curve)).sigmoid().squeeze(1)
        examples.plot(curve, mass, color=colour, lw=1)
        examples.plot(
            [row["beta"] for row in drawn],
            [row["tpm"] for row in drawn],
            color=colour,
            marker=marker,
            ls="",
            label=example.name,
        )
    examples.axhline(float(COUNTEREXAMPLES[0].weight), color=INK, ls="--", lw=0.8)
    examples.set(xscale="log", xlabel="β (units of r)", ylabel="TPM(A); dashed: α", ylim=(0, 0.75))
    examples.set_title("Counterexamples, exact")
    examples.legend()
    return figure


run = stage(output_shift)
