"""Who consented to what: the port `Consent` over a PostgreSQL server.

Fails closed as the other resolvers do (`adapters.consent`): whoever could not be asked about has consented to nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from gharial.adapters.consent import MAX_KINDS, Consents, Person, Trouble, is_unicode, tls_of
from gharial.model.errors import ConfigInvalid, Problem

_MAX_CONNECTIONS = 4
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})

# The operator's query runs once for each row of `asked`, which makes one round trip of a whole exchange.
_BATCH = """
SELECT asked.number, found.kind
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (space, person, number)
CROSS JOIN LATERAL (SELECT kinds.kind FROM (
{query}
) AS kinds (kind) LIMIT {limit}) AS found
"""


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


class PostgresConsent:
    """Asks a server once per exchange, for everybody in it, within `timeout_s`.

    `query` is one SELECT about `asked.space` and `asked.person`; its only column are the kinds of consent, as texts. It
    runs in transactions that can't write. Connections are made when they are needed, at most four, and made anew after
    a failure. Across a network TLS is used, with the server's name checked; there is no way without.
    Raises ConfigInvalid if asyncpg is not installed (`pip install 'gharial[postgres]'`), or `ca` can't be used.
    """

    def __init__(
        self, place: PostgresPlace, query: str, timeout_s: float = 1.0, trouble: Trouble | None = None
    ) -> None:
        try:
            import asyncpg
        except ImportError:
            what = "consent.postgres needs asyncpg: pip install 'gharial[postgres]'"
            raise ConfigInvalid([Problem("gharial.yaml", 1, 1, what)]) from None
        self._asyncpg: Any = asyncpg
        self._place = place
        self._query = _BATCH.format(query=query.strip().rstrip(";"), limit=MAX_KINDS)
        self._timeout_s = timeout_s
        self._tls: ssl.SSLContext | bool = False
        if place.ca is not None:
            self._tls = tls_of(place.ca, "consent.postgres.ca")
        elif not place.is_local:
            self._tls = ssl.create_default_context()
        self._pool: Any = None
        self.trouble = trouble or Trouble()

    async def fetch(self, people: Sequence[Person]) -> Consents:
        """See `gate.ports.Consent`."""
        asked = [person for person in dict.fromkeys(people) if _can_be_asked(person)]
        if not asked:
            return {}
        try:
            async with asyncio.timeout(self._timeout_s):
                rows = await self._ask(asked)
        except TimeoutError:
            self.trouble.failed("the database did not answer in time")
            return {}
        except Exception as error:  # noqa: BLE001 - what asyncpg raises for a peer that talks nonsense has no one root
            # The type alone: the server's texts may quote a value.
            self.trouble.failed(f"the database can't be asked ({type(error).__name__})")
            return {}
        self.trouble.worked()
        kinds: dict[Person, set[str]] = {person: set() for person in asked}
        for number, kind in rows:
            if isinstance(kind, str):
                kinds[asked[number - 1]].add(kind)
        return {person: frozenset(found) for person, found in kinds.items()}

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

    async def _ask(self, people: Sequence[Person]) -> Sequence[tuple[int, object]]:
        if self._pool is None:
            # Nothing is awaited between the question and the answer: there is never a second pool.
            self._pool = self._asyncpg.create_pool(
                host=self._place.host,
                port=self._place.port,
                database=self._place.database,
                user=self._place.user,
                # Not None: asyncpg would look for one in the environment and in files.
                password=self._place.password,
                ssl=self._tls,
                min_size=0,
                max_size=_MAX_CONNECTIONS,
                timeout=self._timeout_s,
                command_timeout=self._timeout_s,
                server_settings={
                    "application_name": "gharial",
                    "default_transaction_read_only": "on",
                    "statement_timeout": str(max(1, int(self._timeout_s * 1000))),
                },
            )
        await self._pool
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            spaces, texts = zip(*people, strict=True)
            found: Sequence[tuple[int, object]] = await connection.fetch(self._query, list(spaces), list(texts))
            return found


def _can_be_asked(person: Person) -> bool:
    # PostgreSQL's texts hold no NUL; nobody is called so.
    return is_unicode(person) and "\0" not in "".join(person)
