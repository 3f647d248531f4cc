"""The container images of the workflow: what each is made from, its identity, and which one this process runs in.

An image is known by its recipe (definitions, what they install with, the lock), since two builds of one recipe differ in
their bytes. The image computes the same digest for itself while it is built.
"""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from prefdist.errors import UserError

FOLDER = Path("containers")
LOCKS = Path("requirements")
IMAGES = {"train": ("torch.txt", "lock.txt"), "sample": ("sample.txt",), "sample-cpu": ("sample-cpu.txt",)}
"""Every image and the lock files in it, torch's first. `sample-cpu` is `sample` with a vLLM that needs no GPU."""
VARIABLE = "PREFDIST_IMAGE"
"""Set in an image, to `<name>@<identity>`."""
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


def record(root: Path, image: str) -> dict[str, Any] | None:
    """What containers/build wrote about an image that it built; None if it was not built here."""
    file = root / FOLDER / f"{image}.json"
    try:
        content = json.loads(file.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        raise UserError(f"{file}: not a record of containers/build; build the image again: make images") from None
    return content if isinstance(content, dict) else None


def check_running(root: Path) -> None:
    """UserError if this process runs in an image of another recipe than the checkout's."""
    if image := running():
        name, _, found = image.partition("@")
        if name not in IMAGES or found != (expected := identity(root, name)):
            wanted = f"{name}@{expected}" if name in IMAGES else " or ".join(IMAGES)
            raise UserError(f"the image is {image}, this checkout wants {wanted}; build the image again: make images")
