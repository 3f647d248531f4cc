"""The costs of a suite's runs on a terminal, beside those that the papers state."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from prefdist.forecast.runs import Cost, Run, Runs, cost
from prefdist.forecast.table import WIDTH, sources
from prefdist.paths import HUB_MODELS
from prefdist.published.records import Cost as Published
from prefdist.published.records import words


def show_runs(runs: Runs, published: Sequence[Published], title: str, unit: str, console: Console | None = None) -> None:
    """A row a run; what runs share, by stage; the sums with and without sharing; what the papers say.

    `unit` is GPU-h or CPU-h.
    """
    console = console or Console(width=WIDTH)
    if not runs.runs:
        console.print(f"{title}: no runs")
        return
    console.print(_by_run(runs, published, title, unit))
    console.print(_shared(runs, unit))
    for sentence in [*_sums(runs, unit), *sources(runs.lines.values()), *(_said(one) for one in published)]:
        console.print(sentence, highlight=False)


def _sums(runs: Runs, unit: str) -> list[str]:
    once, each = runs.made_once(), runs.made_by_each()
    saved = each.hours - once.hours
    share = f" ({saved / each.hours:.0%})" if each.hours else ""
    said = [
        f"all runs, what they share made once: {_hours(once)} {unit}, {_flops(once)} FLOP",
        f"all runs, if each made its own: {_hours(each)} {unit}; sharing saves {_number(saved)}{share}",
        f"made for the suite and for no run: {_hours(runs.beside())} {unit}",
    ]
    if runs.listed:
        said.append(f"not fetched, shapes from {HUB_MODELS}: {', '.join(runs.listed)}")
    if not runs.counted:
        said.append("tokens: the suite's limits, as its text is not made yet; most texts are shorter")
    return said


def _by_run(runs: Runs, published: Sequence[Published], title: str, unit: str) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("run", no_wrap=True)
    for name in ("n", "each", "training", "own", "shared", "alone", "FLOP", "published"):
        table.add_column(name, justify="right", no_wrap=True)
    stated = {run: one for one in published for run in one.runs}
    for run in runs.runs:
        trained = cost(run.trained)
        each = _number(trained.hours / len(run.trained)) if run.trained and not trained.unknown else ""
        costs = [_hours(part) for part in (trained, cost(run.own), cost(run.shared), run.alone)]
        table.add_row(run.name, str(len(run.trained)), each, *costs, _flops(run.alone), _stated(stated.get(run.name), run))
    table.caption = (
        f"n trainings, each of so many {unit}, training in all; own: what else is made for this run alone; alone: with all "
        "that it shares; ?: artefacts of unknown cost; published: of one training"
    )
    table.caption_justify = "left"
    return table


def _stated(one: Published | None, run: Run) -> str:
    return "" if one is None or not run.trained else f"{one.total:.4g} {one.device}"


def _shared(runs: Runs, unit: str) -> Table:
    table = Table(title=f"What runs share, {unit}", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("artefacts", "used by runs", "made once", "made by each", "saved"):
        table.add_column(name, justify="right", no_wrap=True)
    for stage, lines in runs.shared_by_stage().items():
        users = sorted(runs.used_by(line) for line in lines)
        once = cost(lines)
        each = sum((_times(cost([line]), runs.used_by(line)) for line in lines), Cost())
        span = str(users[0]) if users[0] == users[-1] else f"{users[0]} – {users[-1]}"
        table.add_row(stage, str(len(lines)), span, _hours(once), _hours(each), _number(each.hours - once.hours))
    return table


def _times(one: Cost, count: int) -> Cost:
    return Cost(count * one.hours, count * one.flops, count * one.unknown)


def _said(one: Published) -> str:
    took = f"{one.hours:g} h of " if one.hours else ""
    known = words(one.evidence)
    note = f", {one.note}" if one.note else ""
    what = f"{', '.join(one.methods)}: {one.total:.4g} GPU-h, {took}{one.devices} × {one.device}{note}"
    return f"published ({known}: {one.source}): {what}"


def _hours(one: Cost) -> str:
    return _number(one.hours) + (f" + {one.unknown}?" if one.unknown else "")


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _flops(one: Cost) -> str:
    return f"{one.flops:.2g}" if one.flops else "–"
