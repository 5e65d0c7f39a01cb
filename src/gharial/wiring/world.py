"""Time and randomness of the real world, as the rooms want them handed in."""

from __future__ import annotations

import functools
import os
import time
from datetime import UTC, datetime


class SystemClock:
    """Implements `gate.ports.Clock`."""

    def now_s(self) -> float:
        """Seconds since the epoch."""
        return time.time()


def random_bytes(count: int) -> bytes:
    """Return bytes from the operating system's generator."""
    return os.urandom(count)


def iso_time(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the millisecond."""
    whole = int(seconds)
    micros = round((seconds - whole) * 1_000_000)
    if micros >= 1_000_000:
        whole, micros = whole + 1, 0
    return f"{_iso_second(whole)}.{micros // 1000:03d}Z"


@functools.lru_cache(maxsize=8)
def _iso_second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
