"""What a killed Snakemake leaves behind, so that the same command just goes on: its lock, and its jobs in Slurm's queue.

A running job is left alone: the job that is to replace it waits for the artefact's lock and keeps what the first one made. A
pending job would start some day beside the next run, and is cancelled.
"""

import fcntl
import subprocess
import sys
from pathlib import Path
from typing import IO

_ALIVE = Path(".snakemake/prefdist.alive")
_held: list[IO[str]] = []


def claim(folder: Path) -> bool:
    """Say that a Snakemake is alive in a folder, for as long as this process lives. Whether it is the only one.

    Each holds a shared lock, which the kernel takes back however a process ends, on whatever node; whoever gets it alone knows
    that the locks of Snakemake's own in there are of the dead, and removes them.
    """
    file = folder / _ALIVE
    file.parent.mkdir(exist_ok=True)
    handle = file.open("a+")
    _held.append(handle)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        alone = False
    else:
        alone = True
        for lock in (folder / ".snakemake/locks").glob("*.lock"):
            print(f"{lock}: left by a Snakemake that was killed; removed", file=sys.stderr)
            lock.unlink()
    fcntl.flock(handle, fcntl.LOCK_SH)
    return alone


def sweep(folder: Path, prefix: str) -> None:
    """Cancel the user's pending Slurm jobs that were submitted from a folder under names with this prefix; name the running."""
    fields = ["squeue", "--me", "--noheader", "--format=%i|%T|%j|%k|%Z"]
    asked = subprocess.run(fields, capture_output=True, text=True, check=False)
    if asked.returncode:
        print(f"squeue failed, so jobs of an earlier run may still be queued: {asked.stderr.strip()}", file=sys.stderr)
        return
    jobs = [line.split("|", 4) for line in asked.stdout.splitlines()]
    own = [job for job in jobs if job[2].startswith(f"{prefix}_") and Path(job[4]) == folder]
    pending = [number for number, state, *_ in own if state == "PENDING"]
    if pending:
        print(f"cancelled, pending since an earlier run: Slurm jobs {', '.join(pending)}", file=sys.stderr)
        subprocess.run(["scancel", *pending], check=True)
    for number, state, _, comment, _ in own:
        if state != "PENDING":
            print(
                f"{state.lower()} since an earlier run: Slurm job {number}, {comment}; what it makes is kept", file=sys.stderr
            )
