"""What one measurement is: wall time, processor time and peak memory of one process."""

import resource
import time
from pathlib import Path

import torch

MIB = 1024 * 1024


class Clock:
    """Times of the moments that were marked, in seconds of wall time and of processor time (all threads)."""

    def __init__(self) -> None:
        self.marks: list[tuple[float, float]] = []

    def mark(self) -> float:
        """Usable where the loop asks for a number to log."""
        self.marks.append((time.perf_counter(), time.process_time()))
        return self.marks[-1][0]

    def between(self, first: int, last: int) -> dict[str, float]:
        """From mark `first` to mark `last`."""
        start, stop = self.marks[first], self.marks[last]
        return {"wall_seconds": stop[0] - start[0], "cpu_seconds": stop[1] - start[1]}


def peak_memory() -> int:
    """Largest resident memory of this process so far, in MiB; ru_maxrss also counts what a parent had before exec."""
    status = Path("/proc/self/status")
    if status.is_file():
        kib = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(kib) // 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // MIB  # macOS counts bytes


def peak_gpu_memory() -> int:
    """Most that tensors of this process took on its GPU so far, in MiB; 0 without one."""
    return torch.cuda.max_memory_allocated() // MIB if torch.cuda.is_available() else 0
