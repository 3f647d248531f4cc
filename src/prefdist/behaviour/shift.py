"""The stage `shift`: how much mass moves from "unaligned" to "aligned" outputs (Huang's note), a row a prompt and metric.

On samples of held-out prompts; _0 marks π₀'s value of the same mass:
tpm_win = E[a], a(y) = known probability of beating a sample of π₀, and won = share of known labels drawn against other
samples of π₀: both estimate the win rate, by the identity of chosen and rejected responses, and are ½ for π₀.
tpm_reward, tpm_reward_0 (definition D3): a = σ(r̂ − mean r̂ of π₀'s samples), r̂ trained apart; tpm_reward_tilted is what a tilt
of π₀ by the policy's own closed form with that reward would have, from samples of π₀.
tpm_sft, tpm_sft_0 (D1): a = p_A/(p_A + p_U), SFT on chosen and on rejected responses; fit_sft = log p of SFT on both − log of
the mixture on samples of π₀, in nats: 0 where the mixture describes them.
On held-out pairs: log_ratio_chosen and log_ratio_rejected = log π − log π₀, logp_rejected = log π, in nats.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from prefdist.behaviour.diversity import Judges
from prefdist.behaviour.draws import Row, read_draws
from prefdist.data import tables
from prefdist.evaluation import shift
from prefdist.exact.closed_forms import Equation, optimum
from prefdist.models import load_frozen
from prefdist.objectives.registry import read_row
from prefdist.sampling.engine import uniforms
from prefdist.training import examples

Arrays = list[npt.NDArray[np.float64]]


def run(spec: dict[str, Any], inputs: dict[str, Path], out: Path, scratch: Path) -> None:
    """Writes metrics.parquet, and slopes.json: see `_slopes`."""
    judges, equation = Judges(inputs, spec["gamma"]), _equation(spec["objective"])
    metrics, slopes = [], []
    for seed in spec["seeds"]:
        of_seed = {role.rpartition("/")[0]: path for role, path in inputs.items() if role.endswith(f"/{seed}")}
        names, of_samples = _of_samples(judges, of_seed, equation)
        pairs = _Pairs(judges, of_seed, spec["pairs"])
        for prompts, measured in ((names, of_samples), (pairs.names, pairs.metrics())):
            metrics += [
                {"run": spec["run"], "seed": seed, "prompt_id": prompt_id, "metric": name, "value": float(value)}
                for name, values in measured.items()
                for prompt_id, value in zip(prompts, values, strict=True)
            ]
        slopes += [{"seed": seed, **found} for found in _slopes(pairs, equation)]
    tables.write_table(out / "metrics.parquet", metrics, tables.METRICS)
    (out / "slopes.json").write_text(json.dumps(slopes, indent=1) + "\n")


def _equation(objective: dict[str, Any] | None) -> Equation | None:
    """a·log π − b·log π₀ = r + c, where the row has an optimum of this form."""
    row = None if objective is None else read_row(objective)
    if row is None or row.family not in ("preference", "policy_gradient"):
        return None
    found = optimum(row)
    return found if found is not None and found.signal == "reward" and not found.mean else None


def _of_samples(
    judges: Judges, of_seed: dict[str, Path], equation: Equation | None
) -> tuple[list[str], dict[str, npt.NDArray[np.float64]]]:
    """Prompts, and the metrics of their samples."""
    draws, of_base = read_draws(of_seed["draws"]), read_draws(of_seed["base_draws"])
    names = list(draws)
    found = {}
    if judges.target is not None and judges.gamma is not None:
        own, other = (_arrays(judges.logps(judges.target, rows)) for rows in (draws, of_base))
        first, second = [y[::2] for y in other], [y[1::2] for y in other]
        responsibilities = shift.borda_win_rates(own, first, gamma=judges.gamma)
        found["tpm_win"] = np.array([a.mean() for a in responsibilities])
        chances = zip(names, own, second, strict=True)
        found["won"] = np.array([_share_won(name, judges.gamma, mine, theirs) for name, mine, theirs in chances])
    rewards = {who: _arrays(judges.rewards(of_seed["judge"], rows)) for who, rows in (("own", draws), ("base", of_base))}
    centred = {who: [_sigmoid(r - b.mean()) for r, b in zip(rewards[who], rewards["base"], strict=True)] for who in rewards}
    moved = shift.mass_shift(centred["own"], centred["base"])
    found |= {"tpm_reward": moved.tpm, "tpm_reward_0": moved.alpha}
    if equation is not None:
        base_logps = _arrays(judges.logps(judges.base, of_base))
        # π ∝ π₀^{b/a}·e^{r/a} is π₀ tilted by (r + (b − a)·log π₀)/a.
        tilting = [r + (equation.b - equation.a) * l for r, l in zip(rewards["base"], base_logps, strict=True)]
        found["tpm_reward_tilted"] = shift.tilted_mass(tilting, centred["base"], beta=equation.a).shift.tpm
    sides = {side: _under(judges, of_seed[side], draws, of_base) for side in ("chosen", "rejected", "both")}
    of_own, of_other = ({side: logps[i] for side, logps in sides.items()} for i in (0, 1))
    responsibility = [shift.responsibility(of["chosen"], of["rejected"]) for of in (of_own, of_other)]
    moved = shift.mass_shift(*responsibility)
    fit = shift.mixture_fit(of_other["both"], of_other["chosen"], of_other["rejected"])
    return names, found | {"tpm_sft": moved.tpm, "tpm_sft_0": moved.alpha, "fit_sft": fit}


def _under(judges: Judges, folder: Path, *draws: dict[str, list[Row]]) -> list[Arrays]:
    """Log-probabilities of several sets of samples under a model that is gone afterwards: several may not fit together."""
    model = load_frozen(folder)
    return [_arrays(judges.logps(model, rows)) for rows in draws]


class _Pairs:
    """Held-out pairs of a seed under policy and π₀, grouped by prompt: [2·pairs] a prompt, chosen before rejected."""

    def __init__(self, judges: Judges, of_seed: dict[str, Path], wanted: int) -> None:
        rows = examples.preference_rows(of_seed["preferences"], "test")[:wanted]
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["prompt_id"], []).append(row)
        draws = {
            name: [{"token_ids": row[f"{side}_ids"]} for row in of_prompt for side in ("chosen", "rejected")]
            for name, of_prompt in groups.items()
        }
        self.names = list(draws)
        self.policy = _arrays(judges.logps(load_frozen(of_seed["policy"]), draws))
        self.base = _arrays(judges.logps(judges.base, draws))
        self.rewards = {who: _arrays(judges.rewards(of_seed[who], draws)) for who in ("own", "judge")}
        if judges.target is not None and judges.gamma is not None:
            self.rewards["known"] = [judges.gamma * y for y in _arrays(judges.logps(judges.target, draws))]

    def metrics(self) -> dict[str, npt.NDArray[np.float64]]:
        """Means over a prompt's pairs."""
        ratios = [p - b for p, b in zip(self.policy, self.base, strict=True)]
        return {
            "log_ratio_chosen": np.array([r[::2].mean() for r in ratios]),
            "log_ratio_rejected": np.array([r[1::2].mean() for r in ratios]),
            "logp_rejected": np.array([p[1::2].mean() for p in self.policy]),
        }


def _slopes(pairs: _Pairs, equation: Equation | None) -> list[dict[str, Any]]:
    """Slope of a·log π − b·log π₀ on a reward of the same responses, 1 at the row's optimum; and the tail of log π.

    known: γ·log π*, whose labels the policy saw; own: r̂ of its pairs; judge: r̂ trained apart. The noise of r̂ flattens slopes.
    """
    rejected = asdict(shift.tail([y[1::2] for y in pairs.policy]))
    found: list[dict[str, Any]] = [{"reward": "none", "rejected": rejected}]
    if equation is None:
        return found
    left = [equation.a * p - equation.b * b for p, b in zip(pairs.policy, pairs.base, strict=True)]
    for who, rewards in pairs.rewards.items():
        slope = shift.log_ratio_slope(left, rewards)
        numbers = {name: getattr(slope, name) for name in ("value", "low", "high", "r_squared")}
        found.append({"reward": who, "prompts": len(left), **numbers})
    return found


def _share_won(name: str, gamma: float, own: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Labels drawn for every pair of samples."""
    chances = _sigmoid(gamma * np.subtract.outer(own, other))
    drawn = uniforms(f"won/{name}", len(own), len(other)).numpy()
    return float((drawn < chances).mean())


def _sigmoid(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 1.0 / (1.0 + np.exp(-x))


def _arrays(tensors: list[Any]) -> Arrays:
    return [tensor.double().numpy() for tensor in tensors]
