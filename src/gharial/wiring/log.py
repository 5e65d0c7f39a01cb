"""The few lines that a process of the gateway writes on standard error: an event, and facts that hold no value."""

from __future__ import annotations

import sys
from typing import Protocol

import structlog


class Log(Protocol):
    """Writes one event with its facts."""

    def __call__(self, event: str, /, **facts: str) -> object: ...


def make_log(process: str) -> Log:
    """Return a log of one process: readable lines on a terminal, JSON lines elsewhere."""
    renderer: structlog.typing.Processor
    if sys.stderr.isatty():
        renderer = structlog.dev.ConsoleRenderer()
    else:
        renderer = structlog.processors.JSONRenderer()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(sys.stderr),
        processors=[structlog.processors.TimeStamper(fmt="iso", utc=True), renderer],
        process=process,
    )

    def log(event: str, /, **facts: str) -> object:
        return logger.msg(event, **facts)

    return log
