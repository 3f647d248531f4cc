"""A real Apptainer for tests, on a Debian that has none: sid's package with the libraries that it wants, in one folder.

    python tests/services/apptainer.py FOLDER        # prints FOLDER/bin, to be put on PATH

The system's own Apptainer is taken when there is one. Otherwise the package is unpacked beside a loader and C library of its
own, since it wants newer ones than Debian 12 has; nothing of the system but a few Debian packages is added or changed.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSION = "1.4.5-2"
SHA256 = "26cf96e08fccb0e50ea0f285a5a19f940ee873d167a0680584fe6eba7d197d65"
LIBRARIES = ("libc6", "libseccomp2", "libsqlite3-0")
HOST_PACKAGES = {
    "mksquashfs": "squashfs-tools",
    "squashfuse": "squashfuse",
    "newuidmap": "uidmap",
    "debootstrap": "debootstrap",
    "patchelf": "patchelf",
    "ip": "iproute2",
}

# Root in a sandbox may lack a capability that Apptainer asks for; in a user namespace it asks for none. A build wants the
# ids of a whole system there, which only a mapping written from outside gives.
_WRAPPER = """\
#!/bin/sh
if [ "$(id -u)" != 0 ]; then exec '{program}' "$@"; fi
export APPTAINER_CACHEDIR='{folder}/cache' APPTAINER_TMPDIR='{folder}/tmp'
mkdir -p "$APPTAINER_CACHEDIR" "$APPTAINER_TMPDIR"
if [ "$1" = build ]; then exec '{python}' '{this}' --as-root '{program}' "$@"; fi
APPTAINER_USERNS=1 exec '{program}' "$@"
"""


class Unavailable(Exception):
    """Why there is no Apptainer to be had on this machine."""


def apptainer(folder: Path) -> Path:
    """A folder with the program `apptainer` in it: the system's, or one that is made under `folder`, once."""
    if found := shutil.which("apptainer"):
        return Path(found).parent
    folder = folder.resolve()
    if not (folder / "complete").exists():
        install(HOST_PACKAGES)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        _unpack(_download(folder), folder)
        _relocate(folder)
        (folder / "complete").touch()
    _write_wrapper(folder)
    return folder / "bin"


def install(packages: dict[str, str]) -> None:
    """Install the Debian packages whose commands are missing."""
    missing = [package for command, package in packages.items() if not shutil.which(command, path=_SYSTEM_PATH)]
    if not missing:
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Unavailable(f"{', '.join(missing)}: not installed, and only root on Debian can be helped here")
    get = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "-qq"]
    run([*get, "update"])
    run([*get, "install", "-y", "--no-install-recommends", *missing], DEBIAN_FRONTEND="noninteractive")


def mirror() -> str:
    """The Debian archive that this machine's apt uses."""
    listed = run(["apt-get", "indextargets", "--format", "$(REPO_URI)"]).split()
    found = [uri for uri in listed if uri.rstrip("/").endswith("/debian")]
    if not found:
        raise Unavailable("apt names no Debian archive here")
    return found[0]


_SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin:" + os.environ.get("PATH", "/usr/bin:/bin")


def _download(folder: Path) -> list[Path]:
    """The packages, from lists of their own: the machine's sources stay as they are."""
    apt = folder / "apt"
    for part in ("lists/partial", "cache/archives/partial"):
        (apt / part).mkdir(parents=True, exist_ok=True)
    keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
    sources = apt / "sources.list"
    sources.write_text("".join(f"deb [signed-by={keyring}] {mirror()} {suite} main\n" for suite in ("trixie", "sid")))
    settings = {"sourcelist": sources, "sourceparts": "/dev/null"}
    options = [f"-oDir::Etc::{key}={value}" for key, value in settings.items()]
    options += [f"-oDir::State::lists={apt / 'lists'}", f"-oDir::Cache={apt / 'cache'}", "-oAPT::Sandbox::User=root"]
    run(["apt-get", "-qq", *options, "update"])
    wanted = [f"apptainer={VERSION}", *(f"{library}/trixie" for library in LIBRARIES)]
    run(["apt-get", "-qq", *options, "download", *wanted], cwd=apt)
    (package,) = apt.glob("apptainer_*.deb")
    if hashlib.sha256(package.read_bytes()).hexdigest() != SHA256:
        raise Unavailable(f"{package.name}: its SHA-256 is not the pinned one")
    return sorted(apt.glob("*.deb"))


def _unpack(packages: list[Path], folder: Path) -> None:
    for package in packages:
        target = folder / ("root" if package.name.startswith("apptainer_") else "libraries")
        run(["dpkg", "-x", str(package), str(target)])


def _relocate(folder: Path) -> None:
    """Programs that find their own loader, libraries and configuration."""
    root = folder / "root"
    libraries = next((folder / "libraries" / "usr" / "lib").glob("*-linux-gnu"))
    loader = next(libraries.glob("ld-linux-*"))
    starter = next(root.glob("usr/lib/*/apptainer/bin/starter"))
    for program in (root / "usr" / "bin" / "apptainer", starter):
        run(["patchelf", "--set-interpreter", str(loader), "--force-rpath", "--set-rpath", str(libraries), str(program)])
    for name in ("usr/etc", "usr/lib/etc", "usr/lib/var/lib/apptainer/mnt/session"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree(root / "etc" / "apptainer", root / "usr" / "etc" / "apptainer", dirs_exist_ok=True)
    (root / "usr" / "lib" / "etc" / "apptainer").symlink_to("../../etc/apptainer")
    shutil.rmtree(folder / "apt")


def _write_wrapper(folder: Path) -> None:
    """`apptainer` as others may call it: it names this interpreter and this file, so it is written each time."""
    wrapper = folder / "bin" / "apptainer"
    wrapper.parent.mkdir(exist_ok=True)
    program = folder / "root" / "usr" / "bin" / "apptainer"
    temporary = wrapper.with_name(".apptainer.tmp")
    temporary.write_text(_WRAPPER.format(folder=folder, program=program, python=sys.executable, this=Path(__file__).resolve()))
    temporary.chmod(0o755)
    temporary.rename(wrapper)


def run_as_root(command: list[str]) -> int:
    """Run a command as root of a user namespace in which every id is mapped to itself; returns its exit status."""
    from_child, to_parent = os.pipe()
    from_parent, to_child = os.pipe()
    child = os.fork()
    if child == 0:
        import ctypes

        clone_newuser = 0x10000000
        if ctypes.CDLL(None, use_errno=True).unshare(clone_newuser) != 0:
            os._exit(125)
        os.write(to_parent, b".")
        os.read(from_parent, 1)
        os.execvp(command[0], command)
    os.read(from_child, 1)
    for name in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{name}").write_text("0 0 65536\n")
    os.write(to_child, b".")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(command: list[str], cwd: Path | None = None, **environment: str) -> str:
    environment = {**os.environ, "PATH": _SYSTEM_PATH, **environment}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=900, check=False)
    if done.returncode:
        raise Unavailable(f"{' '.join(command)}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout


if __name__ == "__main__":
    if sys.argv[1:2] == ["--as-root"]:
        sys.exit(run_as_root(sys.argv[2:]))
    try:
        print(apptainer(Path(sys.argv[1])))
    except Unavailable as reason:
        sys.exit(f"no Apptainer here: {reason}")
