"""How fast requests may follow one another, and how long to wait before one is tried again."""

import email.utils
import random
import threading
import time
from datetime import UTC, datetime

FIRST_WAIT = 1.0
"""Seconds after a first failure; doubled after each further one."""


class Pace:
    """Starts of requests at least 60/requests_per_minute seconds apart, over all threads."""

    def __init__(self, requests_per_minute: float | None) -> None:
        self._gap = 0.0 if requests_per_minute is None else 60.0 / requests_per_minute
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self, stopped: threading.Event) -> None:
        """Until it is this request's turn, or until `stopped`."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + self._gap
        stopped.wait(turn - now)


def backoff(failures: int, retry_after: str | None, patience: float) -> float | None:
    """Seconds to wait after so many failures: what the endpoint asks for, or doubling waits of which a random half is taken
    off.

    retry_after: the header of that name, seconds or a date. None if the endpoint asks for more than `patience`.
    """
    asked = _seconds(retry_after)
    if asked is not None:
        return asked if asked <= patience else None
    longest = min(patience, FIRST_WAIT * 2.0 ** (failures - 1))
    return longest * random.uniform(0.5, 1.0)


def _seconds(retry_after: str | None) -> float | None:
    if retry_after is None:
        return None
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        date = email.utils.parsedate_to_datetime(retry_after)
    except ValueError:
        return None
    return max(0.0, (date.astimezone(UTC) - datetime.now(UTC)).total_seconds())
