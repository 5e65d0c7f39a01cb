"""The few lines that a process of the gateway writes on standard error: an event, and facts that hold no value.

Nothing is logged per call (that is the audit's), so this needs no logging library and none of its start-up time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import Any, Protocol

from gharial.wiring.world import iso_time


class Log(Protocol):
    """Writes one event with its facts."""

    def __call__(self, event: str, /, **facts: str) -> None: ...


def make_log(process: str) -> Log:
    """Return a log of one process: readable lines on a terminal, JSON lines elsewhere."""
    readable = sys.stderr.isatty()

    def log(event: str, /, **facts: str) -> None:
        at = iso_time(time.time())
        if readable:
            words = " ".join(f"{name}={value}" for name, value in facts.items())
            line = f"{at} {process}: {event} {words}".rstrip()
        else:
            line = json.dumps({"time": at, "process": process, "event": event, **facts})
        # On a full disk the log can't be written either, and the audit's writer, which says so here, must go on.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)  # noqa: T201 - standard error is where a log of ours goes

    return log


def tell_crashes(loop: asyncio.AbstractEventLoop, log: Log) -> None:
    """Have the loop tell of what nobody caught by its type alone.

    Left to itself a loop prints a traceback, and the text of an exception may quote a payload.
    """

    def tell(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        log("task.crashed", error=type(error).__name__ if error is not None else "unknown")

    loop.set_exception_handler(tell)
