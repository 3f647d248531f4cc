"""Does reverse KL's prior π₀^a find outputs of low prior and high reward? Mass on them against γ, beside RLHF."""

import math
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Generator, Tensor

from prefdist.exact.smoothing import Priors, divergence, entropy, loss, random_priors, smoothed, smoothed_loss
from prefdist.exact.study import Claim, Row, Study, mean_interval, share_interval, stage
from prefdist.exact.temperatures import at_global_temperature
from prefdist.style import COLOURS, MARKERS, draw_point, error, new_figure

SLACK = 1e-12
"""Of probabilities, and of losses in units of the reward: sums over 100 outputs round to 1e-13."""
GRID = (0.0, *np.geomspace(1e-4, 1e3, 141).tolist(), math.inf)
"""γ among which the best is looked for: steps of 12 %, RLHF (0) and the uniform law (∞)."""
RESAMPLES = 1000
HARDLY = 0.01
"""Mass that a small entropy coefficient would have to move to be worth it."""
REVERSE_KL, RLHF = "reverse KL", "RLHF at temperature β+γ"


def prior_smoothing(
    *,
    worlds: int,
    outputs: int,
    share: float,
    prior_spreads: Sequence[float],
    betas: Sequence[float],
    gammas: Sequence[float],
    seed: int,
) -> Study:
    """`worlds` priors with logits from N(0, spread²), rewards from N(0, 1); `share`: of those with low prior, high reward.

    γ = 0 is RLHF at the same β. ValueError: no γ of 0 beside larger ones, no β above 0, or what `random_priors` refuses.
    """
    if min(gammas) != 0 or max(gammas) == 0:
        raise ValueError(f"gammas must hold 0 and a larger one, got {list(gammas)}: reverse KL is compared with RLHF, γ = 0")
    if not max(betas) > 0:
        raise ValueError(f"betas must hold one > 0, got {list(betas)}: at 0 there is no prior to smooth")
    rows: list[Row] = []
    best: list[Row] = []
    off: dict[str, float] = {}
    for spread in prior_spreads:
        drawn = random_priors(worlds, outputs, spread, share, seed)
        for beta in betas:
            cell: Row = {"prior spread": spread, "β": beta}
            rows += [{**cell, **row} for row in _masses(drawn, beta, sorted(gammas))]
            best.append({**cell, **_best(drawn, beta, seed)})
        for name, value in _deviations(drawn, betas, gammas, seed).items():
            off[name] = max(off.get(name, 0.0), value)
    tables = {"prior_smoothing": rows, "prior_smoothing_best": best}
    claims = [*_identity_claims(off, rows), _fixed_temperature(rows), *_larger_gamma(rows, best)]
    return Study(tables, claims, {"prior_smoothing": _figure(rows, max(prior_spreads))})


def _masses(drawn: Priors, beta: float, gammas: Sequence[float]) -> Iterator[Row]:
    """Mass on the wanted outputs; its gain over RLHF at the same β and the share of worlds that gain over the other method."""
    rlhf = _wanted(drawn, beta, 0.0)
    for gamma in gammas:
        policies = {REVERSE_KL: smoothed(drawn.log_prior, drawn.reward, beta, gamma)}
        policies[RLHF] = smoothed(drawn.log_prior, drawn.reward, beta + gamma, 0.0)
        low = {name: (log_p.exp() * drawn.low).sum(-1) for name, log_p in policies.items()}
        wanted = {name: (log_p.exp() * drawn.wanted).sum(-1) for name, log_p in policies.items()}
        for name, log_p in policies.items():
            p = log_p.exp()
            gain = mean_interval((wanted[name] - rlhf).tolist())
            yield {
                "γ": gamma,
                "method": name,
                **mean_interval(wanted[name].tolist()),
                "gain over γ = 0": gain["estimate"],
                "gain, low": gain["low"],
                "gain, high": gain["high"],
                "less wanted mass than RLHF at β+γ": int((wanted[name] < wanted[RLHF] - SLACK).sum()),
                "less low-prior mass than RLHF at β+γ": int((low[name] < low[RLHF] - SLACK).sum()),
                "reward": float((p * drawn.reward).sum(-1).mean()),
                "entropy": float(entropy(p).mean()),
                "KL to prior": float(divergence(p, drawn.log_prior).mean()),
            }


def _wanted(drawn: Priors, beta: float, gamma: float) -> Tensor:
    """Mass of reverse KL's optimum on the wanted outputs [S]; γ = ∞ is the uniform law."""
    if gamma == math.inf:
        return drawn.wanted.double().mean(-1)
    return (smoothed(drawn.log_prior, drawn.reward, beta, gamma).exp() * drawn.wanted).sum(-1)


def _best(drawn: Priors, beta: float, seed: int) -> Row:
    """γ of the largest mass: on average over worlds, with a bootstrap's 95 % interval, and world by world."""
    mass = torch.stack([_wanted(drawn, beta, gamma) for gamma in GRID]).numpy()
    n = mass.shape[1]
    counts = np.random.default_rng(seed).multinomial(n, np.full(n, 1 / n), size=RESAMPLES)
    order = np.sort(np.argmax(mass @ counts.T, axis=0))
    low, high = (GRID[order[int(q * (RESAMPLES - 1))]] for q in (0.025, 0.975))
    top, own = int(mass.mean(-1).argmax()), mass.argmax(0)
    none = share_interval(int((own == 0).sum()), n)
    return {
        "best γ": GRID[top],
        "best γ, low": low,
        "best γ, high": high,
        "n": n,
        "mass": float(mass[top].mean()),
        "mass at γ = 0": float(mass[0].mean()),
        "mass at γ = ∞": float(mass[-1].mean()),
        "worlds best at γ = 0": none["estimate"],
        "low": none["low"],
        "high": none["high"],
        "worlds best at γ = ∞": float((own == len(GRID) - 1).mean()),
    }


def _deviations(drawn: Priors, betas: Sequence[float], gammas: Sequence[float], seed: int) -> dict[str, float]:
    """Of ADL's two ways to write the loss, relative; of the optimum from RLHF's at temperature 1 + γ/β; and the lost optima."""
    generator = Generator().manual_seed(seed)
    p = torch.randn(drawn.reward.shape, generator=generator, dtype=torch.float64).softmax(-1)
    off = {"loss": 0.0, "temperature": 0.0, "not least": 0.0}
    for beta, gamma in product(betas, gammas):
        if beta + gamma == 0:
            continue
        arguments = (drawn.log_prior, drawn.reward, beta, gamma)
        losses, optimum = loss(p, *arguments), smoothed(*arguments)
        off["loss"] = max(off["loss"], float((losses - smoothed_loss(p, *arguments)).abs().max()))
        off["not least"] = max(off["not least"], float((loss(optimum.exp(), *arguments) - losses).max()))
        if beta > 0:
            hot = at_global_temperature(smoothed(drawn.log_prior, drawn.reward, beta, 0.0), 1 + gamma / beta)
            off["temperature"] = max(off["temperature"], float((hot.exp() - optimum.exp()).abs().sum(-1).max() / 2))
    return off


def _identity_claims(off: dict[str, float], rows: Sequence[Row]) -> Iterator[Claim]:
    n = min(row["n"] for row in rows)
    yield Claim(
        "reverse KL's loss is −p·r + (β+γ)·KL(p‖π₀^a) + const, a = β/(β+γ), least at p ∝ π₀^a·exp(r/(β+γ))",
        "ADL, App. B",
        f"losses at random p differ by at most {off['loss']:.1g}, {n} worlds a prior, and none is below the optimum's",
        "holds" if off["loss"] <= SLACK * 1e2 and off["not least"] <= 0 else "fails",
    )
    yield Claim(
        "smoothing the prior changes which outputs are preferred, beside RLHF at the same β",
        "a reading of ADL, App. B",
        f"reverse KL is RLHF's policy to the power 1/(1 + γ/β), within {off['temperature']:.1g} in total variation: the order "
        "of outputs, by r + β·ln π₀, stays at every γ",
        "fails" if off["temperature"] <= SLACK * 1e2 else "holds",
    )


def _fixed_temperature(rows: Sequence[Row]) -> Claim:
    """At γ > 0 and β > 0, where smoothing does something."""
    mine = [row for row in rows if row["method"] == REVERSE_KL and row["γ"] > 0 and row["β"] > 0]
    lost = sum(row["less low-prior mass than RLHF at β+γ"] for row in mine)
    less, n = (sum(row[key] for row in mine) for key in ("less wanted mass than RLHF at β+γ", "n"))
    return Claim(
        "at equal temperature β+γ smoothing moves mass to outputs of low prior, and to those of high reward among them",
        "ADL, App. B",
        f"less on low priors in {lost} of {n} worlds × γ × β × priors; less on low priors with high reward in {less}",
        "fails" if lost else "holds" if not less else "holds under low prior alone",
    )


def _larger_gamma(rows: Sequence[Row], best: Sequence[Row]) -> Iterator[Claim]:
    mine = [row for row in best if row["β"] > 0]
    helped = [row for row in mine if row["best γ, low"] > 0]
    ends = [row for row in mine if row["best γ, high"] < math.inf]
    listed = "; ".join(
        f"spread {row['prior spread']:g}, β = {row['β']:g}: γ = {row['best γ']:.2g} [{row['best γ, low']:.2g}, "
        f"{row['best γ, high']:.2g}], {row['mass at γ = 0']:.3g} to {row['mass']:.3g}"
        for row in mine
    )
    limit = "holds under γ below a limit" if len(ends) == len(mine) else "holds under γ below a limit where the prior is weak"
    yield Claim(
        "the larger γ, the more mass on low priors with high reward, beside RLHF at the same β",
        "ADL, App. B",
        f"γ of the largest mean mass, and mass from γ = 0 to there: {listed}; ∞ is the uniform law",
        "fails" if not helped else limit if ends else "holds",
    )
    weak = [row for row in rows if row["method"] == REVERSE_KL and 0 < row["γ"] < row["β"]]
    most = max(weak, key=lambda row: float(row["gain over γ = 0"]), default=None)
    if most is not None:
        yield Claim(
            "an entropy coefficient below β, such as ADL's 0.01 at β = 0.05, gives a hundredth more mass to them",
            "ADL, Table 5",
            f"at most {most['gain over γ = 0']:.2g} [{most['gain, low']:.2g}, {most['gain, high']:.2g}] more mass than RLHF at "
            f"the same β (γ = {most['γ']:g}, β = {most['β']:g}, spread {most['prior spread']:g}), {most['n']} worlds",
            "holds" if most["gain, low"] >= HARDLY else "fails",
        )


def _figure(rows: Sequence[Row], spread: float) -> Figure:
    betas = sorted({row["β"] for row in rows})
    figure = new_figure(2.4 * len(betas) + 0.6, 4.6)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(2, len(betas), sharey="row", sharex=True, squeeze=False)
    gammas = sorted({row["γ"] for row in rows})
    place = {gamma: i for i, gamma in enumerate(gammas)}
    for (top, bottom), beta in zip(panels.T, betas, strict=True):
        for name, colour, marker in zip((REVERSE_KL, RLHF), COLOURS, MARKERS, strict=False):
            mine = [row for row in rows if (row["prior spread"], row["β"], row["method"]) == (spread, beta, name)]
            for row in mine:
                draw_point(top, place[row["γ"]], row["estimate"], colour, marker, size=5, yerr=error(dict(row)))
            top.plot([place[row["γ"]] for row in mine], [row["estimate"] for row in mine], color=colour, lw=0.8)
            bottom.plot(
                [place[row["γ"]] for row in mine], [row["reward"] for row in mine], color=colour, marker=marker, label=name
            )
        top.set_title(f"β = {beta:g}")
        bottom.set_xticks(list(place.values()), [f"{gamma:g}" for gamma in gammas], rotation=90, fontsize=7)
        bottom.set_xlabel("γ (units of r)")
    panels[0, 0].set_ylabel(f"mass on low priors\nwith high reward, {rows[-1]['n']} worlds")
    panels[1, 0].set_ylabel("mean reward (its s.d.)")
    figure.legend(*panels[1, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


run = stage(prior_smoothing)
