"""Print the lock: pins of all that pyproject.toml's dependencies and its dev extra bring in, as installed here.

    python requirements/freeze.py > requirements/lock.txt

Left out: torch (requirements/torch.txt) and the CUDA packages of its Linux build, which differ by platform. What
torch needs everywhere (sympy, filelock, ...) is pinned here all the same.
"""

import sys
import tomllib
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

PLATFORM = ("nvidia-", "cuda-", "triton")
HEADER = """\
# Every package of prefdist and its dev extra but torch; made by `python requirements/freeze.py`. Not to be edited.
# Complete, so to be installed without dependencies: pip install --no-deps -r requirements/lock.txt"""


def closure(roots: list[str]) -> dict[str, str]:
    """Public version of each package that `roots` need, directly or not, in this environment."""
    pins: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(Requirement(root), "") for root in roots]
    while queue:
        requirement, parent_extra = queue.pop()
        name = canonicalize_name(requirement.name)
        if requirement.marker and not requirement.marker.evaluate({"extra": parent_extra}):
            continue
        if name.startswith(PLATFORM):
            continue
        try:
            found = distribution(name)
        except PackageNotFoundError:
            sys.exit(f"{name} is needed but not installed: run `pip install -e .[dev]` in this environment first")
        if not requirement.specifier.contains(found.version, prereleases=True):
            sys.exit(f"{name} {found.version} is installed, but {requirement} is asked for: mend the environment first")
        pins[name] = Version(found.version).public  # no local part such as +cpu: indexes do not have it
        for extra in {"", *requirement.extras}:
            if (name, extra) not in seen:
                seen.add((name, extra))
                queue += [(Requirement(text), extra) for text in found.requires or ()]
    return pins


if __name__ == "__main__":
    project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))["project"]
    pins = closure(project["dependencies"] + project["optional-dependencies"]["dev"])
    print(HEADER, *(f"{name}=={pins[name]}" for name in sorted(pins) if name != "torch"), sep="\n")
