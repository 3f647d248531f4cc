"""The forecast of a plan: for each artefact its state, class, work and seconds, and what it used if it is made."""

import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prefdist.forecast.classes import Classes, JobClass
from prefdist.forecast.stages import work_of
from prefdist.forecast.states import Made, Records, State, states
from prefdist.forecast.throughput import Measured, Seconds, Throughput, measured, rates
from prefdist.forecast.work import Facts, UnknownWork
from prefdist.plan.graph import Artefact, Plan


@dataclass(frozen=True)
class Line:
    """One artefact. `seconds` and `disk` (bytes) are None where they are unknown, and `why` says why.

    Of a made one, the seconds are forecast from all measurements but its own, on the device that made it.
    """

    artefact: Artefact
    state: State
    job: JobClass
    seconds: Seconds | None
    disk: float | None
    why: str = ""
    made: Made | None = None
    flops: float | None = None


@dataclass(frozen=True)
class Forecast:
    """Lines of all artefacts of a plan, and the most jobs that run at once. `classes` is None for this machine.

    `listed`: models whose shapes are from workflow/hub_models.yaml, as they are not fetched.
    """

    lines: list[Line]
    jobs: int
    classes: Classes | None
    free: int
    listed: tuple[str, ...] = ()

    def of_state(self, state: State) -> list[Line]:
        return [line for line in self.lines if line.state == state]

    def wall_seconds(self) -> float:
        """The least wall time of what is to be made: its longest chain, or all of it shared by the most jobs at once."""
        waiting = {str(line.artefact.path): line for line in self.of_state("to make")}
        ends: dict[str, float] = {}

        def end(path: str) -> float:
            if path not in ends:
                line = waiting[path]
                before = (str(source.path) for source in line.artefact.inputs.values())
                own = line.seconds.middle if line.seconds else 0.0
                ends[path] = own + max((end(source) for source in before if source in waiting), default=0.0)
            return ends[path]

        longest = max(map(end, waiting), default=0.0)
        total = sum(line.seconds.middle for line in waiting.values() if line.seconds)
        return max(longest, total / self.jobs)


class Forecaster:
    """Forecasts of the plans of a checkout, from everything that was made in it."""

    def __init__(self, root: Path) -> None:
        self.root, self.records, self.facts = root, Records(root), Facts(root)
        self.measured = measured(self.records.made(), self.facts)
        self.throughput = Throughput(self.measured)

    def forecast(self, plan: Plan, finals: Iterable[Artefact], classes: Classes | None) -> Forecast:
        """What a run that ends with `finals` costs on the cluster of a profile, or on this machine."""
        made = {str(one.made.artefact.path): one for one in self.measured}
        lines = []
        for path, state in states(plan, finals, self.records).items():
            artefact = plan.artefacts[path]
            job = classes.of(artefact.stage) if classes else local_class()
            lines.append(self._line(artefact, state, job, made.get(path) if state == "cached" else None))
        free, listed = shutil.disk_usage(self.root).free, tuple(sorted(self.facts.listed))
        return Forecast(lines, classes.jobs if classes else os.cpu_count() or 1, classes, free, listed)

    def from_nothing(self, plan: Plan, classes: Classes | None) -> list[Line]:
        """What every artefact of a plan costs, as if nothing of it was made."""
        return [
            self._line(artefact, "to make", classes.of(artefact.stage) if classes else local_class(), None)
            for artefact in plan.artefacts.values()
        ]

    def _line(self, artefact: Artefact, state: State, job: JobClass, made: Measured | None) -> Line:
        kind = made.kind if made else "gpu" if job.gpus else "cpu"
        try:
            work = work_of(artefact, self.facts)
            disk = work.disk or float(rates()["disk"].get(artefact.stage, 0.0))
        except UnknownWork as unknown:
            return Line(artefact, state, job, None, None, str(unknown), made.made if made else None)
        try:
            seconds = self.throughput.seconds(artefact, work, kind, without=lambda one: one.path == str(artefact.path))
        except UnknownWork as unknown:
            return Line(artefact, state, job, None, disk, str(unknown), made.made if made else None, work.total_flops)
        return Line(artefact, state, job, seconds, disk, "", made.made if made else None, work.total_flops)


def local_class() -> JobClass:
    """Of this machine, where there is no cluster."""
    return JobClass("this machine", gpus=int(has_gpu()), is_local=True)


def has_gpu() -> bool:
    """Whether this machine has an NVIDIA driver with a device; nothing is imported for it."""
    return any(Path("/proc/driver/nvidia/gpus").glob("*"))
