"""Who consented to what: the port `Consent` over a PostgreSQL server.

Fails closed as the other resolvers do (`adapters.consent`): whoever could not be asked about has consented to nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from gharial.adapters.consent import MAX_KINDS, Consents, Person, Trouble, is_unicode
from gharial.adapters.postgres import PostgresPlace, PostgresPool

# The operator's query runs once for each row of `asked`, which makes one round trip of a whole exchange.
_BATCH = """
SELECT asked.number, found.kind
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS asked (space, person, number)
CROSS JOIN LATERAL (SELECT kinds.kind FROM (
{query}
) AS kinds (kind) LIMIT {limit}) AS found
"""


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
        self._pool = PostgresPool(place, "consent.postgres", timeout_s, read_only=True)
        self._query = _BATCH.format(query=query.strip().rstrip(";"), limit=MAX_KINDS)
        self._timeout_s = timeout_s
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
        await self._pool.close()

    async def _ask(self, people: Sequence[Person]) -> Sequence[tuple[int, object]]:
        pool = await self._pool.open()
        async with pool.acquire() as connection, connection.transaction(readonly=True):
            spaces, texts = zip(*people, strict=True)
            found: Sequence[tuple[int, object]] = await connection.fetch(self._query, list(spaces), list(texts))
            return found


def _can_be_asked(person: Person) -> bool:
    # PostgreSQL's texts hold no NUL; nobody is called so.
    return is_unicode(person) and "\0" not in "".join(person)
