"""What workflow/published/<work>.yaml may say: a work's numbers, each with its source and how well it is known.

Left out: hyper-parameters, which the suites hold, and numbers of other works that one of the four quotes.
"""

from pathlib import Path
from typing import Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from prefdist.config.common import Strict
from prefdist.errors import UserError
from prefdist.paths import PUBLISHED

Evidence = Literal["paper", "abstract", "note", "authors_code", "second_hand"]
EVIDENCE: dict[Evidence, str] = {
    "paper": "the paper's own text, of the version named",
    "abstract": "the paper's abstract",
    "note": "the note's own text",
    "authors_code": "the authors' released code: its README or training log, at the commit named",
    "second_hand": "somebody else's text on the paper: UNVERIFIED, not known to be the paper's",
}


def words(tag: Evidence) -> str:
    """A tag as it is shown."""
    return tag.replace("_", " ").replace("authors", "authors'")


class Metric(Strict):
    """A column of a published table. `ours` is the metric of our tables that measures the same."""

    title: str
    unit: str = ""
    spread: Literal["sd_over_seeds", "none"] = Field("none", description="what stands behind ±: a standard deviation, nothing")
    seeds: int | None = Field(None, gt=1, description="how many the spread is over")
    prompts: int | None = Field(None, gt=0, description="how many each seed was measured on")
    proportion: bool = Field(False, description="the value is a percentage of the prompts, so its error over them is binomial")
    decimals: int = Field(2, ge=0)
    ours: str | None = None
    table: str = Field("table.csv", description="file of a release that has the metric")
    caveat: str | None = Field(None, description="how ours differs from theirs, though it measures the same")
    apart: str | None = Field(None, description="why none of ours measures the same")

    @model_validator(mode="after")
    def _consistent(self) -> "Metric":
        if (self.spread == "sd_over_seeds") != (self.seeds is not None):
            raise ValueError("spread sd_over_seeds and seeds go together")
        if (self.ours is None) == (self.apart is None):
            raise ValueError("give ours, or say in apart why none of ours measures the same")
        return self


class Ours(Strict):
    """The run of a suite that trains the same model by the same method."""

    suite: str
    run: str


class Row(Strict):
    """A method in a setting; each value is a number, or [number, spread] where its metric has one."""

    setting: str
    method: str
    values: dict[str, float | tuple[float, float]] = Field(min_length=1)
    ours: Ours | None = None


class Table(Strict):
    """A table, or a list of numbers that belong together."""

    table: str
    title: str
    evidence: Evidence
    source: str
    protocol: str = Field(description="how it was measured, as far as that is known")
    settings: dict[str, list[str]] = Field(description="model -> its names on the hub, one of which a suite of ours must use")
    metrics: dict[str, Metric]
    rows: list[Row] = Field(min_length=1)

    @model_validator(mode="after")
    def _consistent(self) -> "Table":
        seen = set()
        for row in self.rows:
            where = f"{row.setting}, {row.method}"
            if where in seen:
                raise ValueError(f"rows: {where}: twice")
            seen.add(where)
            if row.setting not in self.settings:
                raise ValueError(f"rows: {where}: setting is not one of {', '.join(self.settings)}")
            for name, value in row.values.items():
                if name not in self.metrics:
                    raise ValueError(f"rows: {where}: {name} is not one of {', '.join(self.metrics)}")
                if isinstance(value, tuple) != (self.metrics[name].spread != "none"):
                    raise ValueError(f"rows: {where}: {name}: [value, spread] where its metric has a spread, else a value")
            if row.ours and not self.settings[row.setting]:
                raise ValueError(f"rows: {where}: ours: setting {row.setting} names no model of the hub to compare by")
        return self


class Cost(Strict):
    """What a work says that its runs took: each of `methods` took `hours` of `devices` devices, or `device_hours` in all."""

    methods: list[str] = Field(min_length=1)
    hours: float | None = Field(None, gt=0, description="wall time")
    device_hours: float | None = Field(None, gt=0, description="where these were published instead")
    devices: int = Field(gt=0)
    device: str
    evidence: Evidence
    source: str
    suite: str = Field(description="that of ours whose forecast stands beside it")
    runs: list[str] = Field(default_factory=list, description="of that suite, beside each of which it is shown")
    note: str = ""

    @property
    def total(self) -> float:
        """Device hours of one run. One of the two is there."""
        return self.device_hours or self.devices * (self.hours or 0.0)

    @model_validator(mode="after")
    def _one_of_two(self) -> "Cost":
        if (self.hours is None) == (self.device_hours is None):
            raise ValueError("give hours or device_hours")
        return self


class Claim(Strict):
    """A statement that is no cell of a table. `checked` is the file of this checkout that tests it."""

    text: str
    evidence: Evidence
    source: str
    checked: str | None = None


class Work(Strict):
    """A paper, or a note."""

    work: str
    title: str
    arxiv: str | None
    version: str | None = Field(description="of the text that the tag `paper` stands for; None if only other texts were read")
    known: str = Field(description="what of the work its numbers rest on")
    tables: list[Table] = Field(default_factory=list)
    costs: list[Cost] = Field(default_factory=list)
    claims: list[Claim] = Field(default_factory=list)
    left_out: list[str] = Field(default_factory=list, description="numbers that are not known, or not well enough")

    @model_validator(mode="after")
    def _consistent(self) -> "Work":
        tags = [one.evidence for one in self.tables] + [one.evidence for one in self.costs]
        tags += [one.evidence for one in self.claims]
        if self.version is None and "paper" in tags:
            raise ValueError("version: the tag `paper` needs the version of the text that was read")
        return self


def load_works(root: Path) -> list[Work]:
    """The checked works of a checkout, in the order of their files' names. UserError names file, key and value."""
    return [_load(root, path.relative_to(root)) for path in sorted((root / PUBLISHED).glob("*.yaml"))]


def _load(root: Path, path: Path) -> Work:
    try:
        mapping = yaml.safe_load((root / path).read_text())
    except yaml.YAMLError as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    try:
        work = Work.model_validate(mapping)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(map(str, problem["loc"]))
        found = "" if problem["type"] in ("value_error", "missing") else f", found {problem['input']!r}"
        text = problem["msg"].removeprefix("Value error, ")
        raise UserError(f"{path}: {f'{where}: ' if where else ''}{text}{found}") from error
    if work.work != path.stem:
        raise UserError(f"{path}: work: {work.work!r} must be the file's name, {path.stem!r}")
    return work
