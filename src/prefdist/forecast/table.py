"""The forecast on a terminal, 120 columns wide: by class and stage, in all, and beside what was used."""

from collections.abc import Iterable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from prefdist.forecast.classes import JobClass
from prefdist.forecast.forecast import Forecast, Line
from prefdist.forecast.throughput import rates
from prefdist.paths import HUB_MODELS
from prefdist.plan.graph import STAGES

WIDTH = 120
FAR = 3.0
"""Times the largest measured work, from which a forecast is said to extrapolate."""


def show(forecast: Forecast, title: str, console: Console | None = None) -> None:
    """Print what is to be made and what it takes, and for what is made the forecast beside what was used."""
    console = console or Console(width=WIDTH)
    console.print(_jobs(forecast, title))
    for sentence in summary(forecast):
        console.print(sentence, highlight=False)
    for sentence in sources(forecast.of_state("to make")):
        console.print(sentence, highlight=False)
    used = [line for line in forecast.lines if line.made is not None and line.seconds is not None]
    if used:
        console.print()
        console.print(_beside(used))


def _jobs(forecast: Forecast, title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for name in ("class", "stage"):
        table.add_column(name, no_wrap=True)
    for name in ("cached", "to make", "time", "× from – to", "disk"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("estimate", no_wrap=True)
    for job in sorted({line.job for line in forecast.lines}, key=lambda job: (-job.gpus, job.label)):
        of_class = [line for line in forecast.lines if line.job == job]
        for number, stage in enumerate(_stages(of_class)):
            lines = [line for line in of_class if line.artefact.stage == stage]
            table.add_row(job.label if number == 0 else "", stage, *_cells(lines, job))
        table.add_section()
    return table


def _cells(lines: Sequence[Line], job: JobClass) -> tuple[str, ...]:
    cached = sum(line.state == "cached" for line in lines)
    making = [line for line in lines if line.state == "to make"]
    if not making:
        return str(cached), "", "", "", "", ""
    known = [line for line in making if line.seconds is not None]
    low, middle, high = _hours(known)
    time = f"{'GPU' if job.gpus else 'CPU'} {duration(middle)}" if known else "unknown"
    span = f"{low / middle:.2g} – {high / middle:.2g}" if high > low else ""
    disk = [line.disk for line in making if line.disk is not None]
    return str(cached), str(len(making)), time, span, bytes_text(sum(disk)) if disk else "unknown", source(making)


def source(lines: Sequence[Line]) -> str:
    """Where the seconds of some lines come from."""
    known = [line.seconds for line in lines if line.seconds is not None]
    if not known:
        return "size unknown" if any(line.disk is None for line in lines) else "unknown"
    unknown = f", {len(lines) - len(known)} unknown" if len(known) < len(lines) else ""
    least = min(seconds.measured for seconds in known)
    if least == 0:
        return ("assumed" if known[0].assumed else "defaults") + unknown
    larger = max(seconds.larger for seconds in known)
    return f"measured ({least}){f', to {larger:.0f}x larger' if larger > FAR else ''}{unknown}"


def sources(lines: Iterable[Line]) -> list[str]:
    """What stands behind the rates of lines that nothing measured corrects."""
    unmeasured = {line.seconds.assumed for line in lines if line.seconds and not line.seconds.measured}
    kinds = {"defaults": "cpu", "assumed": "gpu"}
    return [f"{name}: {rates()[kind]['source']}" for name, kind in kinds.items() if (kind == "gpu") in unmeasured]


def _stages(lines: Iterable[Line]) -> list[str]:
    """In the order of the workflow."""
    present = {line.artefact.stage for line in lines}
    return [stage for stage in STAGES if stage in present]


def _hours(lines: Iterable[Line]) -> tuple[float, float, float]:
    """Device hours, low, middle and high: wall hours times the GPUs of the class, or its CPUs where it has none."""
    sums = [0.0, 0.0, 0.0]
    for line in lines:
        if line.seconds is not None:
            devices = line.job.gpus or line.job.cpus
            for i, seconds in enumerate((line.seconds.low, line.seconds.middle, line.seconds.high)):
                sums[i] += devices * seconds / 3600
    return sums[0], sums[1], sums[2]


def summary(forecast: Forecast) -> list[str]:
    """Jobs, hours, disk and wall time in all, and warnings: what is unknown, what does not fit."""
    making, cached = forecast.of_state("to make"), forecast.of_state("cached")
    held = sum(line.made.disk for line in cached if line.made)
    said = [f"cached: {len(cached)} artefacts, {bytes_text(held)}; to make: {len(making)}"]
    if not making:
        return said
    for unit, gpu in (("GPU-hours", True), ("CPU-hours", False)):
        lines = [line for line in making if bool(line.job.gpus) == gpu]
        known = [line for line in lines if line.seconds]
        if lines:
            low, middle, high = _hours(known)
            span = f" ({_number(low)} – {_number(high)})" if high > low else ""
            of = (
                f"{len(known)} of {len(lines)} jobs, the others' cost is unknown"
                if len(known) < len(lines)
                else f"{len(lines)} jobs"
            )
            said.append(f"{unit}: {_number(middle)}{span} in {of}{_submitted(forecast, lines)}")
    need = sum(line.disk or 0.0 for line in making)
    least = " or more" if any(line.disk is None for line in making) else ""
    said.append(f"disk: {bytes_text(need)}{least} to be added; {bytes_text(forecast.free)} are free")
    said.append(f"wall time: {duration(forecast.wall_seconds() / 3600)} or more, with {forecast.jobs} jobs at once")
    if forecast.listed:
        said.append(f"not fetched, shapes from {HUB_MODELS}: {', '.join(forecast.listed)}")
    unknown = [line for line in making if line.why]
    if unknown:
        said.append(f"unknown: {'; '.join(sorted({line.why for line in unknown}))}")
    if need > forecast.free:
        said.append(f"WARNING: it does not fit: {bytes_text(need - forecast.free)} are lacking; free some space first")
    late = [line for line in making if line.seconds and line.job.minutes and line.seconds.high > 60 * line.job.minutes]
    if late:
        said.append(
            f"WARNING: {len(late)} jobs may need more than the walltime of their class, the longest "
            f"{max(line.seconds.high for line in late if line.seconds) / 3600:.1f} h; trainings go on from their checkpoints"
        )
    return said


def _submitted(forecast: Forecast, lines: Sequence[Line]) -> str:
    if forecast.classes is None:
        return ""
    stages = [line.artefact.stage for line in lines]
    submitted = forecast.classes.submissions({stage: stages.count(stage) for stage in stages})
    return f" (in groups: {submitted} jobs of Slurm)" if submitted < len(lines) else ""


def ratios(lines: Iterable[Line]) -> list[float]:
    """Seconds forecast over seconds used, of each made artefact."""
    return [line.seconds.middle / line.made.seconds for line in lines if line.seconds and line.made and line.made.seconds]


def _beside(lines: list[Line]) -> Table:
    table = Table(title="Forecast beside used (each from all measurements but its own)", title_justify="left")
    table.add_column("stage", no_wrap=True)
    for name in ("n", "forecast", "used", "ratio [range]", "disk forecast", "disk used"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("estimate", no_wrap=True)
    for stage in _stages(lines):
        of_stage = [line for line in lines if line.artefact.stage == stage]
        table.add_row(stage, *_beside_cells(of_stage), source(of_stage))
    table.add_section()
    table.add_row("all", *_beside_cells(lines), "")
    return table


def _beside_cells(lines: Sequence[Line]) -> tuple[str, ...]:
    forecast = sum(line.seconds.middle for line in lines if line.seconds) / 3600
    used = sum(line.made.seconds for line in lines if line.made) / 3600
    disk = sum(line.disk or 0.0 for line in lines), sum(line.made.disk for line in lines if line.made)
    cells = str(len(lines)), duration(forecast), duration(used), spread(ratios(lines))
    return (*cells, bytes_text(disk[0]), bytes_text(disk[1]))


def spread(values: Sequence[float]) -> str:
    """Median [smallest, largest]."""
    return f"{median(values):.2f} [{min(values):.2f}, {max(values):.2f}]" if values else ""


def _number(value: float) -> str:
    """Two digits that count."""
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def duration(hours: float) -> str:
    """Seconds up to two minutes, minutes up to two hours."""
    seconds = 3600 * hours
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else f"{_number(hours)} h"


def bytes_text(count: float) -> str:
    """In the largest unit of which there is at least one."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} B" if unit == "B" else f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.1f} TiB"
