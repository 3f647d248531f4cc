"""How long work takes: from rates that are assumed, corrected by what like work took here.

The reference of a work is start + Σ passes·seconds a pass + Σ operations/(operations a second), with the committed rates
(rates.yaml). What was measured, of any suite, gives factors on it: seconds used over reference. The forecast is the reference
times the median factor of the artefacts of the same stage and kind of device, and its range that of their middle 80 %.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import yaml

from prefdist.forecast.stages import work_of
from prefdist.forecast.states import Made
from prefdist.forecast.training import variety
from prefdist.forecast.work import Facts, UnknownWork, Work
from prefdist.plan.graph import Artefact

NETWORK = ("model", "dataset", "judge")
"""Stages that wait for the network."""


@cache
def rates() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("rates.yaml").read_text())
    return loaded


def reference_seconds(artefact: Artefact, work: Work, kind: str) -> float:
    """The reference of an artefact's work on a kind of device, cpu or gpu."""
    of = rates()[kind]
    slow = sum(of["passes"][phase] * count for phase, count in work.passes.items())
    dense = sum(flops / float(of["flops"][phase]) for phase, flops in work.flops.items())
    return float(of["start"] + rates()["stages"].get(artefact.stage, 0.0) + slow + dense)


@dataclass(frozen=True)
class Measured:
    """A made artefact, its work, and the factor of its seconds on the reference."""

    made: Made
    work: Work
    reference: float

    @property
    def path(self) -> str:
        return str(self.made.artefact.path)

    @property
    def kind(self) -> str:
        return device_kind(self.made.device)

    @property
    def factor(self) -> float:
        return self.made.seconds / self.reference


@dataclass(frozen=True)
class Seconds:
    """A forecast: low, middle and high are equal where nothing was `measured`, which counts what was.

    `larger`: how many times the largest measured work this one's is. `assumed`: the rates themselves were not measured.
    """

    low: float
    middle: float
    high: float
    measured: int = 0
    larger: float = 0.0
    assumed: bool = False


def device_kind(device: str) -> str:
    return "cpu" if device == "cpu" else "gpu"


def measured(made: Iterable[Made], facts: Facts) -> list[Measured]:
    """The made artefacts whose work can be told."""
    found = []
    for one in made:
        try:
            work = work_of(one.artefact, facts)
        except UnknownWork:
            continue
        found.append(Measured(one, work, reference_seconds(one.artefact, work, device_kind(one.device))))
    return found


class Throughput:
    """Forecasts of seconds from what was measured."""

    def __init__(self, known: Iterable[Measured]) -> None:
        self._known: dict[tuple[str, str], list[Measured]] = {}
        for one in known:
            self._known.setdefault((one.made.artefact.stage, one.kind), []).append(one)

    def seconds(
        self, artefact: Artefact, work: Work, kind: str, *, without: Callable[[Measured], bool] = lambda _: False
    ) -> Seconds:
        """Of an artefact's work; measurements that `without` names are left out. UnknownWork for a download never seen."""
        reference = reference_seconds(artefact, work, kind)
        alike = [one for one in self._known.get((artefact.stage, kind), []) if not without(one)]
        if artefact.stage == "train":
            same = [one for one in alike if variety(one.made.artefact) == variety(artefact)]
            alike = same or alike
        if not alike:
            if artefact.stage in NETWORK:
                raise UnknownWork("downloads depend on the network")
            return Seconds(reference, reference, reference, assumed=kind == "gpu")
        factors = [one.factor for one in alike]
        low, high = _middle(factors)
        largest = max(one.reference for one in alike)
        middle = median(factors) * reference
        return Seconds(low * reference, middle, high * reference, len(alike), reference / largest)


def _middle(values: list[float]) -> tuple[float, float]:
    """The range of the middle 80 %, of all below ten values."""
    if len(values) < 10:
        return min(values), max(values)
    tenths = quantiles(values, n=10, method="inclusive")
    return tenths[0], tenths[-1]
