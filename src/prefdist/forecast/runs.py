"""What each run of a suite costs from nothing, what of it runs share, and what it would cost if every run made its own.

A run's artefacts are those that its evaluation and its policies are made from. What two runs are made from is made once, and
that is what caching saves. Nothing is left out because it is made already: this is a suite's cost, not that of the next start.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

from prefdist.forecast.classes import Classes
from prefdist.forecast.forecast import Forecaster, Line
from prefdist.plan.graph import STAGES, Artefact, Plan


@dataclass(frozen=True)
class Cost:
    """Device hours and operations of some artefacts; `unknown` of them are not in the sums."""

    hours: float = 0.0
    flops: float = 0.0
    unknown: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(self.hours + other.hours, self.flops + other.flops, self.unknown + other.unknown)


@dataclass(frozen=True)
class Run:
    """A run's lines: its own trainings, what else is made for it alone, and what it shares with others.

    Its own trainings are there even where another run samples the same policy in another way.
    """

    name: str
    trained: list[Line]
    own: list[Line]
    shared: list[Line]

    @property
    def alone(self) -> "Cost":
        """With all that it shares."""
        return cost([*self.trained, *self.own, *self.shared])


class Runs:
    """The runs of a plan, by the roles of its final artefact's inputs: <what>/<run>, or <what>/<run>/<seed>.

    `listed`: models whose shapes are from workflow/hub_models.yaml; `counted`: whether tokens were counted in made text.
    """

    def __init__(self, plan: Plan, lines: Iterable[Line], listed: tuple[str, ...] = (), counted: bool = True) -> None:
        self.listed, self.counted = listed, counted
        self.lines = {str(line.artefact.path): line for line in lines}
        self._trained = {
            name: [str(one.path) for role, one in plan.final.inputs.items() if role.startswith(f"policy/{name}/")]
            for name in _roots(plan.final)
        }
        self._closures = {name: _closure(roots) for name, roots in _roots(plan.final).items()}
        self.users = {
            path: sum(path in closure for closure in self._closures.values()) for path in set().union(*self._closures.values())
        }

    @cached_property
    def runs(self) -> list[Run]:
        found = []
        for name, closure in self._closures.items():
            lines = {path: self.lines[path] for path in self.lines if path in closure}
            trained = [lines.pop(path) for path in self._trained[name] if path in lines]
            own = [line for path, line in lines.items() if self.users[path] == 1]
            found.append(Run(name, trained, own, [line for path, line in lines.items() if self.users[path] > 1]))
        return found

    def shared_by_stage(self) -> dict[str, list[Line]]:
        """What two runs or more are made from, in the order of the workflow."""
        shared = [self.lines[path] for path in self.lines if self.users.get(path, 0) > 1]
        grouped = {stage: [line for line in shared if line.artefact.stage == stage] for stage in STAGES}
        return {stage: lines for stage, lines in grouped.items() if lines}

    def used_by(self, line: Line) -> int:
        """How many runs are made from it."""
        return self.users.get(str(line.artefact.path), 0)

    def made_once(self) -> Cost:
        """Of all that any run is made from."""
        return cost([line for path, line in self.lines.items() if path in self.users])

    def made_by_each(self) -> Cost:
        """The same, if every run made its own."""
        return sum((run.alone for run in self.runs), Cost())

    def beside(self) -> Cost:
        """Of what no run is made from: baselines, calibration, the tables of the suite and its ablations."""
        return cost([line for path, line in self.lines.items() if path not in self.users])


def runs_of(forecaster: Forecaster, plan: Plan, classes: Classes | None) -> Runs:
    """Of a plan, on the cluster of a profile or on this machine."""
    lines, facts = forecaster.from_nothing(plan, classes), forecaster.facts
    return Runs(plan, lines, tuple(sorted(facts.listed)), facts.counted)


def cost(lines: Sequence[Line]) -> Cost:
    """GPU hours, or CPU hours where no class has a GPU, which are then those of this machine."""
    return sum((_cost(line) for line in lines), Cost())


def _cost(line: Line) -> Cost:
    """Jobs without a GPU cost no GPU-hours; an unknown one of them hides none."""
    if not line.job.gpus and not line.job.is_local:
        return Cost()
    if line.seconds is None:
        return Cost(unknown=1)
    return Cost((line.job.gpus or line.job.cpus) * line.seconds.middle / 3600, line.flops or 0.0)


def _roots(final: Artefact) -> dict[str, list[Artefact]]:
    names = final.spec.get("families") or final.spec.get("runs") or []
    roots: dict[str, list[Artefact]] = {name: [] for name in names}
    for role, artefact in final.inputs.items():
        parts = role.split("/")
        if len(parts) > 1 and parts[1] in roots:
            roots[parts[1]].append(artefact)
    return {name: found for name, found in roots.items() if found}


def _closure(roots: list[Artefact]) -> set[str]:
    waiting, seen = list(roots), set[str]()
    while waiting:
        artefact = waiting.pop()
        if str(artefact.path) not in seen:
            seen.add(str(artefact.path))
            waiting += artefact.inputs.values()
    return seen
