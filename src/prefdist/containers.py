"""The container images of the workflow: what each is made from, its identity, and which one this process runs in.

An image is known by its recipe (definitions, what they install with, the lock), since two builds of one recipe differ in
their bytes. The image computes the same digest for itself while it is built.
"""

import hashlib
import json
import os
import platform
from pathlib import Path
from typing import Any

from prefdist.errors import UserError

FOLDER = Path("containers")
LOCKS = Path("requirements")
IMAGES = {"train": ("torch.txt", "lock.txt"), "sample": ("sample.txt",), "sample-cpu": ("sample-cpu.txt",)}
"""Every image and the lock files in it, torch's first. `sample-cpu` is `sample` with a vLLM that needs no GPU."""
VARIABLE = "PREFDIST_IMAGE"
"""Set in an image, to `<name>@<identity>`."""
PYTHON = "PREFDIST_PYTHON"
"""Set outside, to the version of the image's Python: the testbed's text is the library of the interpreter that makes it."""
_SHARED = ("install.sh", "environment.sh", "prefdist")


def definition(image: str) -> str:
    """Name of the definition that an image is built by; `train.def` and `train.Dockerfile` are of one image."""
    return image.removesuffix("-cpu")


def recipe(image: str) -> list[Path]:
    """The files that an image follows from, in the checkout."""
    name = definition(image)
    own = [FOLDER / file for file in (f"{name}.def", f"{name}.Dockerfile", *_SHARED)]
    return own + [LOCKS / lock for lock in IMAGES[image]]


def identity(root: Path, image: str) -> str:
    """12 hex digits over the recipe: what `sha256sum -- * | sha256sum` says of a folder with its files."""
    files = sorted((root / file for file in recipe(image)), key=lambda file: file.name)
    lines = "".join(f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files)
    return hashlib.sha256(lines.encode()).hexdigest()[:12]


def running() -> str | None:
    """`<name>@<identity>` of the image that this process runs in; None outside."""
    return os.environ.get(VARIABLE)


def built(root: Path, image: str) -> dict[str, Any]:
    """What containers/build wrote about an image. UserError if it was not built here, or not from the checkout's recipe."""
    file = FOLDER / f"{image}.sif"
    try:
        record = json.loads((root / file).with_suffix(".json").read_text())
        size = (root / file).stat().st_size
    except (FileNotFoundError, ValueError):
        raise UserError(f"{file}: not built here; make images") from None
    if record["identity"] != identity(root, image):
        raise UserError(f"{file}: built from another definition or lock ({record['identity']}); make images")
    if record["bytes"] != size:
        raise UserError(f"{file}: not the file that containers/build made; make images")
    return dict(record)


def python_version() -> str:
    """Of the interpreter that makes artefacts: this one, or outside an image the one that PREFDIST_PYTHON names."""
    own = platform.python_version()
    return own if running() else os.environ.get(PYTHON, own)


def check_running(root: Path) -> None:
    """UserError if this process runs in an image of another recipe than the checkout's."""
    if image := running():
        name, _, found = image.partition("@")
        if name not in IMAGES or found != (expected := identity(root, name)):
            wanted = f"{name}@{expected}" if name in IMAGES else " or ".join(IMAGES)
            raise UserError(f"the image is {image}, this checkout wants {wanted}; build the image again: make images")
