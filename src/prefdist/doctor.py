"""What a machine has and lacks for each use of the project, in plain words: `prefdist doctor`.

Every check looks at the machine itself, changes nothing, and asks no other machine but Slurm's controller.
"""

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from prefdist import containers
from prefdist.errors import UserError

PROFILE = Path("slurm/config.yaml")
GIB = 2**30
DEMO_DISK, IMAGE_DISK, DEMO_MEMORY = 3, 12, 4
"""GiB: artefacts, report and checkpoints of the testbed; wheels, unpacked image and image; two trainings side by side."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at: what it is, and if it is missing, what to do."""

    ok: bool
    what: str


Check = Callable[[Path], Iterator[Finding]]


@dataclass(frozen=True)
class Use:
    purpose: str
    checks: tuple[Check, ...]


def examine(use: str, root: Path) -> list[Finding]:
    return [finding for check in USES[use].checks for finding in check(root)]


def _python(root: Path) -> Iterator[Finding]:
    found = f"Python {platform.python_version()}"
    enough = sys.version_info >= (3, 11)
    yield Finding(enough, found if enough else f"{found}: 3.11 or newer is needed; make setup PYTHON=python3.11")


def _compiler(root: Path) -> Iterator[Finding]:
    yield from _commands({"cc": "C compiler"}, "install gcc or clang (Debian: apt-get install gcc libc6-dev)")


def _disk(gib: int) -> Check:
    def check(root: Path) -> Iterator[Finding]:
        free = shutil.disk_usage(root).free / GIB
        text = f"disk: {free:.0f} GiB free in the working folder, {gib} wanted"
        yield Finding(free >= gib, text if free >= gib else f"{text}; make room, or work on another file system")

    return check


def _memory(root: Path) -> Iterator[Finding]:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    text = f"memory: {total:.0f} GiB, {DEMO_MEMORY} wanted"
    yield Finding(total >= DEMO_MEMORY, text if total >= DEMO_MEMORY else f"{text}; run with --cores 1, or on a larger machine")


def _slurm(root: Path) -> Iterator[Finding]:
    commands = {name: f"Slurm's {name}" for name in ("sbatch", "srun", "squeue", "scancel", "sinfo")}
    missing = [name for name in commands if not shutil.which(name)]
    yield from _commands(commands, "work on the cluster's login node, or load its Slurm module")
    if "sinfo" in missing:
        return
    asked = _ask("sinfo", "--noheader", "--format=%R|%G")
    if asked.returncode:
        yield Finding(
            False, f"Slurm's controller does not answer ({_last_line(asked.stderr)}); ask the cluster's administrator"
        )
        return
    rows = [line.split("|", 1) for line in asked.stdout.splitlines()]
    yield Finding(True, "Slurm's controller answers")
    yield from _partitions(root, {name: any(r[0] == name and "gpu" in r[1] for r in rows) for name, _ in rows})


def _partitions(root: Path, has_gpus: dict[str, bool]) -> Iterator[Finding]:
    """The partitions that the profile names, among those of the cluster; `has_gpus` by name."""
    profile = yaml.safe_load((root / PROFILE).read_text())
    asked = [resources for resources in profile.get("set-resources", {}).values()]
    asked.append(profile.get("default-resources", {}))
    wanted: dict[str, bool] = {}
    for resources in (each for each in asked if "slurm_partition" in each):
        name = resources["slurm_partition"]
        wanted[name] = wanted.get(name, False) or bool(resources.get("gpu"))
    for name, gpu in sorted(wanted.items()):
        there = ", ".join(sorted(has_gpus))
        if name not in has_gpus:
            yield Finding(False, f"partition {name}: {PROFILE} names it, the cluster has {there}; change it in {PROFILE}")
        elif gpu and not has_gpus[name]:
            yield Finding(False, f"partition {name}: {PROFILE} asks for GPUs there, and it has none; change it in {PROFILE}")
        else:
            yield Finding(True, f"partition {name}{', with GPUs' if gpu else ''}")


def _apptainer(root: Path) -> Iterator[Finding]:
    program = shutil.which("apptainer") or shutil.which("singularity")
    if not program:
        yield Finding(False, "Apptainer: no apptainer on PATH; load its module or install it (apptainer.org)")
        return
    asked = _ask(program, "--version")
    works = asked.returncode == 0
    yield Finding(works, asked.stdout.strip() if works else f"Apptainer does not start: {_last_line(asked.stderr)}")


def _image(*images: str) -> Check:
    """One of them is built, and from the recipe as it is."""

    def check(root: Path) -> Iterator[Finding]:
        findings = [_built(root, image) for image in images]
        yield next((finding for finding in findings if finding.ok), findings[0])

    return check


def _built(root: Path, image: str) -> Finding:
    try:
        return Finding(True, f"{containers.FOLDER}/{image}.sif: {image}@{containers.built(root, image)['identity']}")
    except UserError as error:
        return Finding(False, str(error))


def _git(root: Path) -> Iterator[Finding]:
    yield from _commands({"git": "git"}, "install git")


def _remote(root: Path) -> Iterator[Finding]:
    asked = _ask(sys.executable, "-m", "dvc", "remote", "list", cwd=root)
    names = [line.split()[0] for line in asked.stdout.splitlines() if line.strip()]
    add = "dvc remote add --default NAME URL (s3://…, ssh://…, a folder)"
    yield Finding(bool(names), f"DVC remote: {', '.join(names)}" if names else f"DVC remote: none configured; {add}")


def _driver(root: Path) -> Iterator[Finding]:
    asked = _ask("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader")
    cards = asked.stdout.strip().splitlines() if asked.returncode == 0 else []
    yield Finding(bool(cards), f"GPU: {'; '.join(cards)}" if cards else "GPU: nvidia-smi shows none; use a node with a driver")


def _cuda(root: Path) -> Iterator[Finding]:
    import torch

    there = torch.cuda.is_available()
    text = f"torch {torch.__version__}"
    yield Finding(there, f"{text} sees a GPU" if there else f"{text} sees no GPU; it wants a driver and a CUDA build of torch")


def _token(root: Path) -> Iterator[Finding]:
    from huggingface_hub import get_token

    there = get_token() is not None
    yield Finding(
        there, "hub token: present" if there else "hub token: none; hf auth login, or HF_TOKEN, for models behind a licence"
    )


def _commands(names: dict[str, str], advice: str) -> Iterator[Finding]:
    for name, meaning in names.items():
        there = bool(shutil.which(name))
        yield Finding(there, meaning if there else f"{meaning}: no {name} on PATH; {advice}")


def _ask(*command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    """What a command says within 30 seconds; a command that is not there, or never answers, has failed."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, **options)
    except (OSError, subprocess.TimeoutExpired) as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1]


USES = {
    "demo": Use("make demo, on this machine", (_python, _compiler, _disk(DEMO_DISK), _memory)),
    "test": Use("make test", (_python, _compiler, _disk(DEMO_DISK), _memory, _git)),
    "slurm": Use("snakemake --profile slurm", (_slurm,)),
    "containers": Use("snakemake --sdm apptainer", (_apptainer, _disk(IMAGE_DISK), _image("train"))),
    "sample": Use("vLLM in its image", (_apptainer, _image("sample", "sample-cpu"))),
    "dvc": Use("dvc push, dvc pull", (_git, _remote)),
    "gpu": Use("training on this machine's GPU", (_driver, _cuda)),
    "hub": Use("models and data of the hub", (_token,)),
}
"""Each with what it is for."""
