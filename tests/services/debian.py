"""Packages of Debian that the services of the tests come from, installed when they are missing."""

import os
import shutil
import subprocess

import pytest


def require(*packages: str, commands: tuple[str, ...]) -> None:
    """Install the packages unless their commands are there. Skips the test, with a sentence, where that cannot be done."""
    if all(_found(command) for command in commands):
        return
    names = " ".join(packages)
    if os.getuid() != 0 or shutil.which("apt-get") is None:
        pytest.skip(f"needs Debian's packages {names}; install them as root: apt-get install {names}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    apt = ["apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    subprocess.run([*apt, "update"], env=environment, capture_output=True, timeout=300, check=False)
    install = [*apt, "install", "--no-install-recommends", *packages]
    done = subprocess.run(install, env=environment, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode or not all(_found(command) for command in commands):
        pytest.skip(f"apt-get could not install {names}: {done.stderr.strip()[-300:]}")


def _found(command: str) -> bool:
    return shutil.which(command, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None
