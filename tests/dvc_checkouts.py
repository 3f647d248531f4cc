"""Checkouts that are git and DVC repositories, in which tests run the real commands."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from checkouts import ROOT, copy, environment

FILES = ("dvc.yaml", ".dvc", ".dvcignore", ".gitignore", ".gitattributes")


def repository(folder: Path) -> Path:
    """This checkout as a fresh repository: no cache, no lock, no remote."""
    copy(folder)
    for name in FILES:
        source, ignore = ROOT / name, shutil.ignore_patterns("cache", "tmp", "config.local")
        shutil.copytree(source, folder / name, ignore=ignore) if source.is_dir() else shutil.copy(source, folder / name)
    git(folder, "init", "-q")
    commit(folder, "the code")
    return folder


def commit(checkout: Path, message: str) -> None:
    git(checkout, "add", "--all")
    git(checkout, "commit", "-q", "-m", message)


def git(checkout: Path, *arguments: str) -> str:
    person = {f"GIT_{role}_{what}": "test@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    environ = {**environment(checkout), **person}
    done = subprocess.run(["git", *arguments], cwd=checkout, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clone(checkout: Path, folder: Path) -> Path:
    git(checkout, "clone", "-q", str(checkout), str(folder))
    if (checkout / ".dvc/config.local").exists():
        shutil.copy(checkout / ".dvc/config.local", folder / ".dvc")
    return folder


def run(checkout: Path, *command: str, seconds: int = 600) -> subprocess.CompletedProcess[str]:
    """A command that may fail, its two streams as one."""
    environ = {**environment(checkout), "COLUMNS": "300"}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    return subprocess.run(command, cwd=checkout, env=environ, text=True, timeout=seconds, check=False, **streams)


def dvc(checkout: Path, *arguments: str) -> str:
    done = run(checkout, "dvc", *arguments)
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


def shown_json(checkout: Path, *arguments: str) -> Any:
    """What DVC shows, as JSON; that nobody made some of the ablations is said on the other stream."""
    command = ["dvc", *arguments, "--json"]
    done = subprocess.run(command, cwd=checkout, env=environment(checkout), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def files_with(text: str, folders: list[Path]) -> list[Path]:
    """Files in which a text occurs, as it is."""
    files = [Path(at) / name for folder in folders for at, _, names in os.walk(folder) for name in names]
    return [file for file in files if file.is_file() and text.encode() in file.read_bytes()]
