"""Connections to a PostgreSQL server: where it is, TLS or not, and a small pool."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gharial.adapters.consent import tls_of
from gharial.model.errors import ConfigInvalid, Problem

MAX_CONNECTIONS = 4
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})


@dataclass(frozen=True, slots=True)
class PostgresPlace:
    """A server and a database. `host` is a name, an address, or the folder of its Unix socket."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(default="", repr=False)
    ca: Path | None = None

    @property
    def is_local(self) -> bool:
        """True where no network is crossed, so that a connection needs no TLS."""
        return self.host.startswith("/") or self.host in _LOCAL


def parse_postgres_url(url: str) -> PostgresPlace:
    """Read `postgresql://USER@HOST:PORT/DATABASE`, or `postgresql://USER@/DATABASE?host=/FOLDER` for a Unix socket.

    Raises ValueError, which never quotes the text: somebody may have written a password into it.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or 5432
    except ValueError:
        raise ValueError("what stands as the host or port of url is neither") from None
    options = parse_qs(parts.query)
    socket_folder = options.pop("host", [""])[-1]
    host = parts.hostname or socket_folder
    if parts.scheme != "postgresql" or not parts.username or not host or len(parts.path) < 2 or options:
        raise ValueError("url is postgresql://USER@HOST:PORT/DATABASE, without options")
    if parts.password is not None:
        raise ValueError("no password stands in url; write password: env:NAME or file:PATH")
    if socket_folder and (parts.hostname or not socket_folder.startswith("/")):
        raise ValueError("host= names the folder of a Unix socket, in place of a host")
    return PostgresPlace(host, port, unquote(parts.path[1:]), unquote(parts.username))


class PostgresPool:
    """At most four connections, made when they are needed, and made anew after a failure.

    Across a network TLS is used, with the server's name checked; there is no way without. `setting` is the name in
    gharial.yaml. Raises ConfigInvalid if asyncpg is not installed (`pip install 'gharial[postgres]'`), or `ca` can't be
    used.
    """

    def __init__(self, place: PostgresPlace, setting: str, timeout_s: float, *, read_only: bool = False) -> None:
        try:
            import asyncpg
        except ImportError:
            what = f"{setting} needs asyncpg: pip install 'gharial[postgres]'"
            raise ConfigInvalid([Problem("gharial.yaml", 1, 1, what)]) from None
        self._asyncpg: Any = asyncpg
        self._place = place
        self._timeout_s = timeout_s
        self._settings = {
            "application_name": "gharial",
            "default_transaction_read_only": "on" if read_only else "off",
            "statement_timeout": str(max(1, int(timeout_s * 1000))),
        }
        self.tls: ssl.SSLContext | bool = False
        if place.ca is not None:
            self.tls = tls_of(place.ca, f"{setting}.ca")
        elif not place.is_local:
            self.tls = ssl.create_default_context()
        self._pool: Any = None

    async def open(self) -> Any:
        """Return asyncpg's pool. Raises whatever asyncpg raises."""
        if self._pool is None:
            # Nothing is awaited between the question and the answer: there is never a second pool.
            self._pool = self._asyncpg.create_pool(
                host=self._place.host,
                port=self._place.port,
                database=self._place.database,
                user=self._place.user,
                # Not None: asyncpg would look for one in the environment and in files.
                password=self._place.password,
                ssl=self.tls,
                min_size=0,
                max_size=MAX_CONNECTIONS,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                server_settings=self._settings,
            )
        await self._pool
        return self._pool

    async def close(self) -> None:
        """Close the connections; those that don't close in time are cut."""
        if self._pool is not None:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await self._pool.close()
            except (TimeoutError, OSError, self._asyncpg.PostgresError, self._asyncpg.InterfaceError):
                with contextlib.suppress(self._asyncpg.InterfaceError):
                    self._pool.terminate()
            self._pool = None
