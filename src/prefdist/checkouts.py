"""Copies of a checkout, in which the workflow runs apart: to make a release again, to kill runs, to test."""

import os
import shutil
import sys
from pathlib import Path

_NEEDED = ("Snakefile", "workflow", "src", "profiles", "slurm", "requirements", "pyproject.toml")


def copy_checkout(root: Path, folder: Path) -> Path:
    """What a run needs of the checkout at `root`, in a folder that is made for it; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in _NEEDED:
        source = root / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        elif source.is_file():
            shutil.copy(source, folder / name)
    return folder


def environment_of(checkout: Path) -> dict[str, str]:
    """Variables with which this interpreter's commands (rules call `prefdist`) read the sources of the checkout."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**os.environ, "PYTHONPATH": str(checkout / "src"), "PATH": path}
