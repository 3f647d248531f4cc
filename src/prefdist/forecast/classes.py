"""What the cluster gives to the jobs of a stage, as the Slurm profile says: the one place where that is written."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefdist.errors import UserError

_MINUTES = {"s": 1 / 60, "m": 1.0, "h": 60.0, "d": 1440.0}


@dataclass(frozen=True)
class JobClass:
    """A kind of job: its name and partition, its GPUs and CPUs, and the walltime of its first attempt in minutes.

    `minutes` is None where there is no limit, or an expression says it when the job is submitted. `is_local`: of this machine,
    where all jobs are of one class.
    """

    name: str
    partition: str = ""
    gpus: int = 0
    cpus: int = 1
    minutes: float | None = None
    is_local: bool = False

    @property
    def label(self) -> str:
        """Name, partition, devices and walltime."""
        device = f"{self.gpus} GPU" if self.gpus else f"{self.cpus} CPU"
        limit = f"{self.minutes / 60:.3g} h" if self.minutes is not None else ""
        return f"{self.name} ({', '.join(filter(None, (self.partition, device, limit)))})"


class Classes:
    """The classes of a profile folder, by stage, and how many jobs run at once."""

    def __init__(self, profile: Path, root: Path) -> None:
        self.file = profile / "config.yaml"
        try:
            config = yaml.safe_load((root / self.file).read_text())
        except (OSError, yaml.YAMLError) as error:
            raise UserError(f"{self.file}: no profile of Snakemake there ({error}); name a folder that holds one") from error
        if not isinstance(config, dict):
            raise UserError(f"{self.file}: a profile is a mapping of keys, found {type(config).__name__}")
        self._config: Mapping[str, Any] = config
        self.jobs = int(self._needed(config, "jobs", "the most jobs at once"))

    def of(self, stage: str) -> JobClass:
        """The class of a stage's rule: its own resources on top of the profile's defaults.

        UserError, naming file and key, for a rule that has none of its own or lacks a partition or a walltime.
        """
        rules = self._config.get("set-resources") or {}
        own = self._needed(rules, stage, "the class of its jobs, as the other rules have", "set-resources.")
        resources = {**_mapping(self._config.get("default-resources")), **_mapping(own)}
        where = f"set-resources.{stage}."
        runtime = self._needed(resources, "runtime", "minutes", where)
        gpus = _gpus(resources)
        cpus = resources.get("cpus_per_task") or _mapping(self._config.get("set-threads")).get(stage) or 1
        partition = self._needed(resources, "slurm_partition", "a partition", where)
        return JobClass(self._name(own), str(partition), gpus, int(cpus), _minutes(runtime))

    def _name(self, own: Any) -> str:
        """What the profile's own key `classes` calls these resources."""
        classes = _mapping(self._config.get("classes"))
        return next((name for name, resources in classes.items() if resources == own), "rule's own")

    def submissions(self, jobs: Mapping[str, int]) -> int:
        """Slurm jobs that so many jobs of each stage become when groups are submitted as one."""
        groups, sizes = _mapping(self._config.get("groups")), _mapping(self._config.get("group-components"))
        together: dict[str, int] = {}
        for stage, count in jobs.items():
            group = groups.get(stage, f"rule {stage}")
            together[group] = together.get(group, 0) + count
        return sum(-(-count // int(sizes.get(group, 1))) for group, count in together.items())

    def _needed(self, among: Mapping[str, Any], key: str, what: str, where: str = "") -> Any:
        if among.get(key) is None:
            raise UserError(f"{self.file}: {where}{key} is missing; give {what}")
        return among[key]


def _mapping(value: Any) -> dict[str, Any]:
    """Of a mapping, or of Snakemake's list of name=value."""
    if isinstance(value, list):
        return dict(str(item).partition("=")[::2] for item in value)
    return dict(value or {})


def _gpus(resources: Mapping[str, Any]) -> int:
    """`gpu: 2`, or `gres: gpu:2` or `gpu:a100:2`."""
    if "gpu" in resources:
        return int(resources["gpu"])
    count = re.fullmatch(r"gpu(?::[^:]*[^:\d][^:]*)?(?::(\d+))?", str(resources.get("gres", "")))
    return int(count[1] or 1) if count else 0


def _minutes(runtime: Any) -> float | None:
    """Minutes, or a number with a unit, at the first attempt; None for any other expression."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([smhd]?)(?: \* attempt)?", str(runtime).strip())
    return float(found[1]) * _MINUTES[found[2] or "m"] if found else None
