"""How fast does each method degrade where preferences are not those that it assumes? Infinite data, random worlds."""

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from matplotlib.figure import Figure

from prefdist.exact.misspecified import KINDS, METHODS, WITHOUT_PRIOR, Setting, label_noise, learn
from prefdist.exact.study import Claim, Row, Study, mean_interval, stage
from prefdist.exact.worlds import enumerate_space, random_worlds
from prefdist.style import COLOURS, MARKERS, draw_point, error, new_figure

EQUAL = 1e-9
"""Nats of KL: rewards are fitted to 1e-10 nats, and a KL is of second order in their error."""
WEAK = 0.01
"""Factor on all rewards that makes preferences weak: what is of third order in them is then 1e-4 of the first."""
CLOSE = 1e-3
"""Of a slope from its limit at weak preferences: ten times what the third order leaves."""
WHOLE = 0.1
"""How near a fitted order is to a whole number: at a small strength the next order adds a few per cent."""
RESPONSES = ("a", "b", "c")


def misspecification(
    *,
    worlds: int,
    contexts: int,
    actions: int,
    gamma: float,
    spread: float,
    knowledge: Sequence[float],
    position_biases: Sequence[float],
    cycles: Sequence[float],
    noises: Sequence[float],
    factors: Sequence[float],
    small: float,
    cyclic_win: float,
) -> Study:
    """`worlds` random tables; seeds 0 … worlds−1. `knowledge` κ: log π₀ ∝ κ·log π* + √(1−κ²)·(random logits).

    `factors`: of an assumed γ, both ways. Orders are fitted at the strengths `small` and 2·`small`; `cyclic_win` is how often
    a beats b, b beats c and c beats a in the example. ValueError: strengths without the 0, or factors without the 1, that
    degradation is counted from; κ outside [0, 1).
    """
    strengths = dict(zip(KINDS, (position_biases, cycles, noises, *[[math.log(f) for f in factors]] * 2), strict=True))
    for kind, values in strengths.items():
        if min(values) != 0:
            raise ValueError(
                f"strengths of {kind} must hold 0 (factors: 1), least is {min(values):g}: excess is counted from it"
            )
    drawn = random_worlds(enumerate_space(actions, 1), contexts=contexts, seeds=range(worlds), gamma=gamma, spread=spread)
    setting = Setting.of(drawn, knowledge, seed=worlds)
    rows = [row for kind, values in strengths.items() for row in _degradation(setting, kind, sorted(values))]
    orders = [row for kind in KINDS for row in _orders(setting, kind, small)]
    noise = [_slopes(setting, epsilon) for epsilon in sorted(noises)]
    cycle = list(_cycle(cyclic_win, gamma))
    tables = {
        "misspecification": rows,
        "misspecification_order": orders,
        "misspecification_noise": noise,
        "misspecification_cycle": cycle,
    }
    claims = [_recovery(rows), _power(setting, strengths), _noise_claim(noise), *_order_claims(orders), _prior_claim(rows)]
    return Study(tables, [*claims, _cycle_claim(cycle)], {"misspecification": _figure(rows, max(knowledge))})


def _degradation(setting: Setting, kind: str, strengths: Sequence[float]) -> Iterator[Row]:
    for (method, known), (forward, reverse) in setting.divergences(kind, strengths).items():
        for i, strength in enumerate(strengths):
            excess = mean_interval((forward[i] - forward[0]).tolist())
            yield {
                "kind": kind,
                "strength": strength,
                "prior knows": known,
                "method": method,
                **mean_interval(forward[i].tolist()),
                "excess": excess["estimate"],
                "excess, low": excess["low"],
                "excess, high": excess["high"],
                "reverse KL": float(reverse[i].mean()),
            }


def _orders(setting: Setting, kind: str, small: float) -> Iterator[Row]:
    """log₂ of |excess(2s)|/|excess(s)| in each world, and how many of the worlds become worse."""
    for (method, known), (forward, _) in setting.divergences(kind, [0.0, small, 2 * small]).items():
        excess = forward[1:] - forward[0]
        order = (excess[1] / excess[0]).abs().log2()
        yield {
            "kind": kind,
            "prior knows": known,
            "method": method,
            **mean_interval(order.tolist()),
            "median": float(order.median()),
            "worlds that become worse": int((excess[0] > 0).sum()),
        }


def _slopes(setting: Setting, epsilon: float) -> Row:
    """Least squares slope of the learned reward on the true one, over a context's responses, beside 1 − 2ε."""
    reward = setting.worlds.reward - setting.worlds.reward.mean(-1, keepdim=True)
    slopes = []
    for factor in (1.0, WEAK):
        learned = learn(label_noise(factor * setting.gap, epsilon), setting.worlds.log_mu).reward / factor
        slope = (learned * reward).sum(-1) / reward.square().sum(-1)
        slopes.append(slope.view(setting.worlds.n_worlds, -1).mean(-1))
    weak = mean_interval(slopes[1].tolist())
    return {"ε": epsilon, "1 − 2ε": 1 - 2 * epsilon, **mean_interval(slopes[0].tolist()), "weak preferences": weak["estimate"]}


def _cycle(win: float, gamma: float) -> Iterator[Row]:
    """a beats b, b beats c, c beats a, each with probability `win`; π₀ uniform, and three laws of the data."""
    lost = 1 - win
    preference = torch.tensor([[0.5, win, lost], [lost, 0.5, win], [win, lost, 0.5]], dtype=torch.float64)
    prior = torch.full((3,), 1 / 3, dtype=torch.float64).log()
    for mu in ((1 / 3, 1 / 3, 1 / 3), (0.5, 0.25, 0.25), (0.25, 0.5, 0.25), (0.25, 0.25, 0.5)):
        learned = learn(preference, torch.tensor(mu, dtype=torch.float64).log())
        for method in METHODS:
            policy = learned.policy(method, gamma, prior).exp().tolist()
            best = "none" if max(policy) - min(policy) <= EQUAL else RESPONSES[policy.index(max(policy))]
            laws = {f"μ({y})": m for y, m in zip(RESPONSES, mu, strict=True)}
            yield {**laws, "method": method, **{f"π({y})": p for y, p in zip(RESPONSES, policy, strict=True)}, "best": best}


def _recovery(rows: Sequence[Row]) -> Claim:
    clean = [row for row in rows if row["strength"] == 0]
    worst = max(abs(row["estimate"]) for row in clean if row["method"] in WITHOUT_PRIOR)
    least = min(row["estimate"] for row in clean if row["method"] not in WITHOUT_PRIOR)
    return Claim(
        "with Bradley-Terry preferences of the assumed γ, PMLE, distillation and reverse KL without prior learn π*; "
        "methods with a prior do not",
        "ADL, Eq. 2, 4, 11 and 14",
        f"KL(π*‖π) at most {worst:.1g} nats, and at least {least:.2g} of methods with a prior, means of {clean[0]['n']} worlds",
        "holds" if worst <= EQUAL < least else "fails",
    )


def _power(setting: Setting, strengths: Mapping[str, Sequence[float]]) -> Claim:
    off = 0.0
    for sign, kind in ((-1, "γ assumed too small"), (1, "γ assumed too large")):
        for strength in strengths[kind]:
            wrong = setting.worlds.gamma * math.exp(sign * strength)
            expected = (setting.worlds.reward / wrong).log_softmax(-1).exp()
            learned = learn(torch.sigmoid(setting.gap), setting.worlds.log_mu)
            for method in WITHOUT_PRIOR:
                found = learned.policy(method, wrong, setting.worlds.log_reference).exp()
                off = max(off, float((found - expected).abs().sum(-1).max() / 2))
    return Claim(
        "who assumes γ′ in place of γ learns π*^{γ/γ′}: PMLE, distillation, reverse KL without prior",
        "ADL, Eq. 2",
        f"total variation at most {off:.1g} in {setting.worlds.n_worlds} worlds",
        "holds" if off <= EQUAL else "fails",
    )


def _noise_claim(rows: Sequence[Row]) -> Claim:
    weak = max(abs(row["weak preferences"] - row["1 − 2ε"]) for row in rows)
    apart = max(rows, key=lambda row: abs(float(row["estimate"] - row["1 − 2ε"])))
    same = apart["low"] - CLOSE <= apart["1 − 2ε"] <= apart["high"] + CLOSE
    return Claim(
        "label noise ε scales γ by 1 − 2ε",
        "first order in Δr",
        f"slope of the learned reward within {weak:.1g} of it at weak preferences; at the worlds' own, ε = {apart['ε']:g}: "
        f"{apart['estimate']:.3f} [{apart['low']:.3f}, {apart['high']:.3f}], not {apart['1 − 2ε']:.3f}",
        "fails" if weak > CLOSE else "holds" if same else "holds under weak preferences",
    )


def _order_claims(rows: Sequence[Row]) -> Iterator[Claim]:
    whole = {kind: 4 if kind == "position bias" else 2 for kind in KINDS}
    claims = {
        True: "without a prior KL(π*‖π) grows with the fourth power of a position bias, and the second of all else",
        False: "with a prior it changes with half that power, for the better or the worse",
    }
    for free, claim in claims.items():
        mine = [row for row in rows if (row["method"] in WITHOUT_PRIOR) == free]
        near = [row for row in mine if abs(row["median"] - whole[row["kind"]] / (1 if free else 2)) <= WHOLE]
        better = [row for row in mine if row["worlds that become worse"] < row["n"]]
        as_claimed = len(near) == len(mine) and bool(better) != free
        yield Claim(
            claim,
            "Taylor's expansion at the optimum",
            f"median order over {mine[0]['n']} worlds within {WHOLE:g} of it in {len(near)} of {len(mine)} kinds × methods × "
            f"priors; some worlds become better in {len(better)} of them",
            "holds" if as_claimed else "fails",
        )


def _prior_claim(rows: Sequence[Row]) -> Claim:
    safe, parts = [], []
    cells = sorted({(list(KINDS).index(row["kind"]), row["kind"], row["prior knows"]) for row in rows})
    for _, kind, known in cells:
        mine = [row for row in rows if (row["kind"], row["prior knows"]) == (kind, known)]
        strongest = {row["method"]: row["excess"] for row in mine if row["strength"] == max(r["strength"] for r in mine)}
        free = strongest[WITHOUT_PRIOR[0]]
        with_prior = {name: excess for name, excess in strongest.items() if name not in WITHOUT_PRIOR}
        worst = max(with_prior, key=lambda name: with_prior[name])
        if with_prior[worst] <= free:
            safe.append(f"{kind} (κ = {known:g})")
        parts.append(f"{kind}, κ = {known:g}: {free:.2f} without, {worst} {with_prior[worst]:.2f}")
    return Claim(
        "a prior makes preferences that are not as assumed less harmful: every method with one loses fewer nats than PMLE",
        "a common reason for KL(π‖π₀)",
        "KL(π*‖π) added at the largest strength, κ what the prior knows; " + "; ".join(parts),
        "fails" if not safe else "holds" if len(safe) == len(cells) else "holds under " + ", ".join(safe),
    )


def _cycle_claim(rows: Sequence[Row]) -> Claim:
    best = {tuple(row[f"μ({y})"] for y in RESPONSES): row["best"] for row in rows if row["method"] == WITHOUT_PRIOR[0]}
    agree = all(row["best"] == best[tuple(row[f"μ({y})"] for y in RESPONSES)] for row in rows)
    changed = len(set(best.values())) > 1
    return Claim(
        "the optimum depends on the preferences, not on which responses are compared",
        "ADL, Eq. 2: π* does not contain μ",
        f"a cycle of three, the same annotators: best is {', '.join(best.values())} as μ is uniform or favours a, b, c"
        + ("; the same for all methods" if agree else "; methods differ"),
        "holds under Bradley-Terry preferences" if changed else "holds",
    )


def _figure(rows: Sequence[Row], known: float) -> Figure:
    figure = new_figure(11.0, 3.4)
    figure.set_layout_engine("constrained")
    panels = figure.subplots(1, len(KINDS), sharey=True)
    shown = [name for name in METHODS if name not in ("distillation", "reverse KL, β = 0", "RLHF")]
    for axes, (kind, unit) in zip(panels, KINDS.items(), strict=True):
        for name, colour, marker in zip(shown, COLOURS, MARKERS, strict=False):
            mine = [row for row in rows if (row["kind"], row["method"], row["prior knows"]) == (kind, name, known)]
            axes.plot([row["strength"] for row in mine], [row["estimate"] for row in mine], color=colour, lw=0.8)
            for row in mine:
                draw_point(axes, row["strength"], row["estimate"], colour, marker, size=4.5, yerr=error(dict(row)))
            axes.plot([], [], color=colour, marker=marker, label=name)
        axes.set(title=kind, xlabel=unit)
    panels[0].set_ylabel(f"KL(π*‖π) / nats, {rows[0]['n']} worlds,\na prior that knows {known:g} of π*")
    handles = panels[0].get_legend_handles_labels()
    names = {"PMLE": "PMLE, distillation, reverse KL with β = 0", "DPO": "DPO, RLHF"}
    figure.legend(handles[0], [names.get(name, name) for name in handles[1]], loc="outside lower center", ncols=5)
    return figure


run = stage(misspecification)
