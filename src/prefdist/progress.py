"""How far long work is, on stderr."""

import sys
import time

EVERY = 5.0
"""Seconds between two lines."""


class Progress:
    """A line every few seconds: how many of `total` are done, a note, time left. `start` were done by an earlier run."""

    def __init__(self, what: str, total: int, start: int = 0, *, shown: bool = True) -> None:
        self.what, self.total, self.start, self.shown = what, total, start, shown
        self.began = self.last = time.monotonic()

    def show(self, done: int, note: str = "") -> None:
        now = time.monotonic()
        if not self.shown or (now - self.last < EVERY and done < self.total):
            return
        self.last = now
        left = (now - self.began) / max(1, done - self.start) * (self.total - done)
        parts = [f"{self.what} {done}/{self.total}", note, f"{left:.0f} s left"]
        print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)
