"""A base image where no image registry can be reached: Debian 12 with Python, from packages.

python tests/services/base_image.py FOLDER       # prints the folder, for `containers/build --base`
"""

import shutil
import sys
from pathlib import Path

from services.apptainer import Unavailable, install, mirror, run

PACKAGES = ("python3", "python3-venv", "ca-certificates", "git", "g++", "libc6-dev")


def base_image(folder: Path) -> Path:
    """The folder with the system in it, made once."""
    folder = folder.resolve()
    if folder.exists():
        return folder
    install({"debootstrap": "debootstrap"})
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.parent.mkdir(parents=True, exist_ok=True)
    run(["debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", "bookworm", str(temporary), mirror()])
    shutil.rmtree(temporary / "dev")  # device nodes cannot be copied in a user namespace
    (temporary / "dev").mkdir()
    for unused in ("var/cache/apt/archives", "usr/share/doc", "usr/share/locale", "usr/share/man"):
        shutil.rmtree(temporary / unused)
    return temporary.rename(folder)


if __name__ == "__main__":
    try:
        print(base_image(Path(sys.argv[1])))
    except Unavailable as reason:
        sys.exit(f"no base image here: {reason}")
