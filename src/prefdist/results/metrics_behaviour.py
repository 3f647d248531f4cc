"""How the metrics of behaviour are shown, by what is measured; names with a prefix get their specs from the names that occur.

Prefixes: <choices>/<metric> of calibration, <set>/<metric> of alignment, <task>/<metric>,<filter> of benchmarks,
<metric>/<filling>/<k> of repeats.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from prefdist.errors import UserError
from prefdist.results.tables import Cell, MetricSpec

DIVERSITY = (
    MetricSpec("win_rate_base", "win rate against π₀", "%", "higher", scale=100, decimals=1),
    MetricSpec("reward_apart", "judge's r̂ above π₀'s", "", "higher", decimals=3),
    MetricSpec("reward_own", "own r̂ above π₀'s", decimals=3),
    MetricSpec("cross_entropy", "−log π₀", "nats", "lower"),
    MetricSpec("embedding_distance", "embedding distance", "", "higher", decimals=3),
    MetricSpec("vendi", "Vendi score", "", "higher"),
    MetricSpec("ead", "EAD", "", "higher", decimals=3),
    MetricSpec("self_bleu", "self-BLEU", "", "lower", decimals=1),
    MetricSpec("distinct_2", "distinct bigrams", "%", "higher", scale=100, decimals=1),
    MetricSpec("entropy", "entropy", "nats", "higher"),
    MetricSpec("length", "length", "tokens", decimals=1),
    MetricSpec("unfinished", "no EOS", "%", scale=100, decimals=1),
)
SHIFT = (
    MetricSpec("tpm_win", "TPM, known win rate", "%", "higher", scale=100, decimals=1),
    MetricSpec("won", "labels won", "%", "higher", scale=100, decimals=1),
    MetricSpec("tpm_reward", "TPM by r̂ (D3)", "%", "higher", scale=100, decimals=1),
    MetricSpec("tpm_reward_0", "TPM by r̂ of π₀", "%", scale=100, decimals=1),
    MetricSpec("tpm_reward_tilted", "TPM by r̂ of the tilt", "%", scale=100, decimals=1),
    MetricSpec("tpm_sft", "TPM by two SFT models (D1)", "%", "higher", scale=100, decimals=1),
    MetricSpec("tpm_sft_0", "TPM by two SFT models, of π₀", "%", scale=100, decimals=1),
    MetricSpec("fit_sft", "misfit of their mixture", "nats"),
    MetricSpec("log_ratio_chosen", "log π/π₀ of chosen", "nats"),
    MetricSpec("log_ratio_rejected", "log π/π₀ of rejected", "nats"),
    MetricSpec("logp_rejected", "log π of rejected", "nats", decimals=1),
)
REPEATS = (
    MetricSpec("kl", "KL(π‖π₀), first token", "nats", decimals=4),
    MetricSpec("variance", "Var log π/π₀, first token", "nats²", decimals=4),
    MetricSpec("sequence_kl", "KL(π‖π₀), continuation", "nats", decimals=3),
    MetricSpec("sequence_variance", "Var log π/π₀, continuation", "nats²", decimals=3),
    MetricSpec("end", "P(EOS) at once", "%", scale=100, decimals=2),
    MetricSpec("end_0", "P(EOS) at once, π₀", "%", scale=100, decimals=2),
    MetricSpec("finished", "ends in budget", "%", scale=100, decimals=1),
)
"""By filling and number of tokens."""
CALIBRATION = (
    MetricSpec("accuracy", "accuracy", "%", "higher", scale=100, decimals=1),
    MetricSpec("nll", "NLL", "nats", "lower", decimals=3),
    MetricSpec("brier", "Brier score", "", "lower", decimals=3),
    MetricSpec("auroc", "AUROC", "", "higher", decimals=3),
    MetricSpec("confidence", "confidence", "%", scale=100, decimals=1),
    MetricSpec("mass", "mass of the letters", "%", scale=100, decimals=1),
    MetricSpec("tied", "ties", "%", scale=100, decimals=1),
)
"""By set of questions; calibration errors beside them, see `_error_spec`."""
BEST_OF_N = (
    MetricSpec("pass_at_1", "pass@1", "%", "higher", scale=100, decimals=1),
    MetricSpec("answer_length", "length of answers", "tokens", decimals=1),
    MetricSpec("answer_unfinished", "answers without EOS", "%", scale=100, decimals=1),
)
_ANSWERS = (
    MetricSpec("reward_gain", "r̂ above the reference's", "", "higher", decimals=2),
    MetricSpec("reward_wins", "higher r̂ than the reference", "%", "higher", scale=100, decimals=1),
    MetricSpec("kl", "KL(π‖π₀)", "nats", decimals=1),
    MetricSpec("reward", "r̂", decimals=2),
    MetricSpec("entropy", "entropy", "nats", decimals=1),
    MetricSpec("length", "length", "tokens", decimals=1),
    MetricSpec("unfinished", "no EOS", "%", scale=100, decimals=1),
)
_JUDGED = (
    MetricSpec("win_rate", "judge's win rate", "%", "higher", scale=100, decimals=1),
    MetricSpec("length_controlled", "at equal lengths", "%", "higher", scale=100, decimals=1),
    MetricSpec("length_controlled_plain", "at equal lengths, by lengths alone", "%", "higher", scale=100, decimals=1),
    MetricSpec("arena_hard", "battles won", "%", "higher", scale=100, decimals=1),
    MetricSpec("rating", "judge's rating", "of 10", "higher"),
    MetricSpec("rating_turn_1", "of the first turn", "of 10", "higher"),
    MetricSpec("rating_turn_2", "of the second turn", "of 10", "higher"),
    MetricSpec("position_agreement", "both orders agree", "%", "higher", scale=100, decimals=1),
    MetricSpec("first_shown_wins", "the first shown wins", "%", scale=100, decimals=1),
    MetricSpec("unparsable", "replies not read", "%", "lower", scale=100, decimals=1),
)
JUDGED_METRICS = frozenset(spec.key for spec in _JUDGED)
"""What a judge says of a policy's own answers to a set (judging/measures.py)."""
OWN = "own decoding"
ALIGNMENT = (
    *_JUDGED,
    *_ANSWERS,
    *(replace(spec, key=f"{spec.key}_own", title=f"{spec.title}, {OWN}") for spec in _ANSWERS),
)
"""By set of prompts: of answers at the common decoding, and at the policy's own."""
TAX = (MetricSpec("text_nll", "−log π of text, a token", "nats", "lower", decimals=3),)

_MAIN = {
    "diversity": ("win_rate_base", "reward_apart", "cross_entropy", "embedding_distance", "self_bleu", "entropy", "length"),
    "shift": ("tpm_win", "tpm_reward", "tpm_sft", "log_ratio_chosen", "log_ratio_rejected"),
    "calibration": ("accuracy", "nll", "brier"),
    "best_of_n": ("pass_at_1",),
    "tax": ("text_nll",),
    "alignment": ("win_rate", "rating", "reward_gain", "kl", "reward_gain_own", "kl_own", "length"),
}
_TERMINAL = (
    *("win_rate_base", "reward_apart", "embedding_distance", "self_bleu", "pass_at_1", "tpm_win", "accuracy", "text_nll"),
    *("reward_gain", "kl", "reward_gain_own", "kl_own"),
)
_ROOM = 6
_OF_MEASURE = {"diversity": DIVERSITY, "shift": SHIFT, "best_of_n": BEST_OF_N, "tax": TAX}
_SHARES = ("acc", "exact_match", "f1", "mc1", "mc2")
_LOWER = ("perplexity", "bits_per_byte", "brier_score", "word_perplexity", "byte_perplexity")


def measure_of(name: str) -> str:
    """Which measure has a metric of this name. UserError if none has."""
    for measure, specs in _OF_MEASURE.items():
        if any(spec.key == name for spec in specs):
            return measure
    first, *rest = name.split("/")
    if rest and "," in rest[-1]:  # the harness names its filter behind a comma
        return "benchmarks"
    if len(rest) == 2 and any(spec.key == first for spec in REPEATS):
        return "repeats"
    if len(rest) == 1 and any(spec.key == rest[0] for spec in ALIGNMENT):
        return "alignment"
    if len(rest) == 1 and (rest[0].startswith("ece_") or any(spec.key == rest[0] for spec in CALIBRATION)):
        return "calibration"
    raise UserError(f"metric {name}: no measure of behaviour has one of this name")


def specs(names: Iterable[str], measure: str | None = None) -> list[MetricSpec]:
    """Of the metrics that occur, or of one measure's: in the order of the tables, then that of their first occurrence."""
    occurring = list(dict.fromkeys(names))
    of_measure = {name: measure_of(name) for name in occurring}
    found = [spec for kind, every in _OF_MEASURE.items() for spec in every if of_measure.get(spec.key) == kind]
    known = {spec.key for spec in found}
    found += [_derived(name, of_measure[name]) for name in occurring if name not in known]
    return [spec for spec in found if measure in (None, of_measure[spec.key])]


def main_metrics(names: Iterable[str], measure: str) -> list[MetricSpec]:
    """Those of a measure that policies are compared by: all of benchmarks, none of repeats, which have a table of their own."""
    wanted = _MAIN.get(measure, ())
    return [spec for spec in specs(names, measure) if spec.key.rpartition("/")[2] in wanted or "," in spec.key]


def terminal_metrics(names: Iterable[str]) -> list[MetricSpec]:
    """Those that the terminal has room for."""
    occurring = specs(names)
    chosen = [spec for last in _TERMINAL for spec in occurring if spec.key.rpartition("/")[2] == last]
    return (chosen or occurring)[:_ROOM]


def panel_metrics(cells: Iterable[Cell], measure: str, bins: int | None) -> list[MetricSpec]:
    """Those of an ablation's figure: the main ones, and calibration errors of `bins` bins."""
    names = [cell["metric"] for cell in cells]
    errors = [spec for spec in specs(names, measure) if spec.key.endswith(f"/ece_width_{bins}")]
    return main_metrics(names, measure) + errors


def bare(spec: MetricSpec) -> MetricSpec:
    """As `spec`, headed without the prefix: in a table that is about one set of questions."""
    return replace(spec, title=spec.title.partition(": ")[2] or spec.title)


def _derived(name: str, measure: str) -> MetricSpec:
    if measure == "benchmarks":
        return _task_spec(name)
    if measure == "repeats":
        metric, filling, k = name.split("/")
        (spec,) = (spec for spec in REPEATS if spec.key == metric)
        return replace(spec, key=name, title=f"{filling}, k = {k}: {spec.title}")
    choices, _, metric = name.rpartition("/")
    of_measure = ALIGNMENT if measure == "alignment" else CALIBRATION
    spec = _error_spec(metric) if metric.startswith("ece_") else next(spec for spec in of_measure if spec.key == metric)
    return replace(spec, key=name, title=f"{choices}: {spec.title}")


def _error_spec(metric: str) -> MetricSpec:
    """ece_<scheme>_<bins>."""
    _, scheme, bins = metric.split("_")
    return MetricSpec(metric, f"ECE, {bins} bins of equal {scheme}", "", "lower", decimals=3)


def _task_spec(name: str) -> MetricSpec:
    """<task>/<metric>,<filter>; a metric that is not known here is shown as it is."""
    task, _, metric = name.rpartition("/")
    kind, _, chosen = metric.partition(",")
    shown = kind.replace("_", " ") + ("" if chosen == "none" else f", {chosen}")
    share = kind.startswith(_SHARES)
    more: dict[str, Any] = {"unit": "%", "scale": 100.0, "decimals": 1} if share else {"decimals": 3}
    return MetricSpec(name, f"{task}: {shown}", direction="higher" if share else "lower" if kind in _LOWER else None, **more)
