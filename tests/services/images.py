"""Images for tests: Apptainer on PATH, and an image of the checkout built if it is not there or of another recipe.

What is fetched and made is kept under the checkout's build/, or where PREFDIST_TEST_CACHE says, so that a second run is quick.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from services.apptainer import Unavailable, apptainer, install
from services.base_image import base_image

from prefdist import containers
from prefdist.errors import UserError

__all__ = ["Container", "built", "environment", "skip_without"]

ROOT = Path(__file__).resolve().parents[2]
INSIDE = "/work"
CACHE = Path(os.environ.get("PREFDIST_TEST_CACHE", ROOT / "build"))


@contextmanager
def skip_without(what: str) -> Iterator[None]:
    """Skip the test, with the reason, where what cannot be had on this machine."""
    try:
        yield
    except Unavailable as reason:
        pytest.skip(f"no {what} here: {reason}")


def environment() -> dict[str, str]:
    """The caller's, with Apptainer on PATH and the checkout's code."""
    path = f"{apptainer(CACHE / 'apptainer')}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}


def built(image: str, given: Mapping[str, str]) -> Path:
    """The image's file: the checkout's own when it is of the recipe as it is."""
    file = ROOT / containers.FOLDER / f"{image}.sif"
    try:
        containers.built(ROOT, image)
    except UserError:
        base = base_image(CACHE / "base")
        build = [sys.executable, "containers/build", image, "--base", str(base)]
        done = subprocess.run(build, cwd=ROOT, env=given, capture_output=True, text=True, timeout=3000, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return file


class Container:
    """An image built by buildah from its Dockerfile, and a container of it; all storage is in a folder of its own."""

    def __init__(self, image: str, storage: Path, given: Mapping[str, str]) -> None:
        install({"buildah": "buildah"})
        configuration = storage / "storage.conf"
        configuration.write_text(f'[storage]\ndriver = "overlay"\ngraphroot = "{storage}/root"\nrunroot = "{storage}/run"\n')
        self._given = {**given, "CONTAINERS_STORAGE_CONF": str(configuration)}
        base = self._buildah("from", "scratch")
        self._buildah("add", "--quiet", base, str(base_image(CACHE / "base")), "/")
        self._buildah("commit", "--quiet", base, "localhost/base")
        build = [sys.executable, "containers/build", image, "--engine", "buildah", "--base", "localhost/base"]
        tag = self._run(build).splitlines()[-1]
        self._container = self._buildah("from", tag)
        configured = json.loads(self._buildah("inspect", "--type", "image", tag))["OCIv1"]["config"]
        self.user: str = configured["User"]
        self._entrypoint: list[str] = configured["Entrypoint"]

    def run(self, command: Sequence[str], folder: Path) -> str:
        """What a command prints that is started as the image says, in a working folder."""
        mount = ["--volume", f"{folder}:{INSIDE}", "--workingdir", INSIDE]
        return self._buildah("run", "--isolation", "chroot", *mount, self._container, "--", *self._entrypoint, *command)

    def remove(self) -> None:
        self._buildah("rm", "--all")
        self._buildah("rmi", "--all", "--force")

    def _buildah(self, *arguments: str) -> str:
        return self._run(["buildah", *arguments])

    def _run(self, command: Sequence[str]) -> str:
        done = subprocess.run(command, cwd=ROOT, env=self._given, capture_output=True, text=True, timeout=1200, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout.strip()
