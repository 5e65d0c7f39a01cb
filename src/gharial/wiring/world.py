"""Time and randomness of the real world, as the rooms want them handed in."""

from __future__ import annotations

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
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
