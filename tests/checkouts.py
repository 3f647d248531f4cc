"""Copies of the checkout in which tests run the real workflow."""

import re
import subprocess
from pathlib import Path

from prefdist.checkouts import copy_checkout, environment_of

ROOT = Path(__file__).resolve().parents[1]


def copy(folder: Path) -> Path:
    """What a run needs of the checkout, in another folder."""
    return copy_checkout(ROOT, folder)


def environment(checkout: Path) -> dict[str, str]:
    return environment_of(checkout) | {"OMP_NUM_THREADS": "1"}


def snakemake(checkout: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["snakemake", "--cores", "2", *arguments]
    return subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False)


def planned(checkout: Path, target: str = "smoke") -> set[str]:
    """Names of the artefacts that a run would make, digests cut off: {"train/dpo-seed0", …, "published/smoke/v1"}."""
    shown = snakemake(checkout, "-n", target)
    assert shown.returncode == 0, shown.stdout + shown.stderr
    outputs = re.findall(r"^    output: (.*)$", shown.stdout + shown.stderr, flags=re.MULTILINE)
    return {re.sub(r"^artefacts/(.*)-[0-9a-f]{10}(/.*|\.json)?$", r"\1", name.split(",")[0]) for name in outputs}
