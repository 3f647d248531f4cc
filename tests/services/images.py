"""Images for tests: Apptainer on PATH, and an image of the checkout built if it is not there or of another recipe.

What is fetched and made is kept under the checkout's build/, or where PREFDIST_TEST_CACHE says, so that a second run is quick.
"""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from services.apptainer import Unavailable, apptainer
from services.base_image import base_image

from prefdist import containers
from prefdist.errors import UserError

__all__ = ["Unavailable", "built", "environment"]

ROOT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("PREFDIST_TEST_CACHE", ROOT / "build"))


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
