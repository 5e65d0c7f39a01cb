"""What random tokens stand for, in a PostgreSQL database that several gateways may share."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

from gharial.adapters.consent import Trouble
from gharial.adapters.postgres import PostgresPlace, PostgresPool
from gharial.crypto.vault import Entry
from gharial.model.errors import VaultUnavailable

R = TypeVar("R")

_LOCK = 0x47484152_0001
"""The advisory lock under which gateways that start together make the table, one after the other."""

_CREATE = """
CREATE TABLE IF NOT EXISTS gharial_vault_token (
    lookup bytea PRIMARY KEY, token bytea NOT NULL UNIQUE, sealed bytea NOT NULL
)"""
# On any conflict: where two gateways write one row at once, the server may meet the token's index first.
# In the order of the lookups, so that two gateways with the same rows wait for each other and never both at once.
_KEEP = """
INSERT INTO gharial_vault_token (lookup, token, sealed)
SELECT * FROM unnest($1::bytea[], $2::bytea[], $3::bytea[]) AS row (lookup, token, sealed) ORDER BY lookup
ON CONFLICT DO NOTHING"""
# After a commit, or in a later statement: it sees the rows that another gateway was faster with.
_KEPT = "SELECT lookup, token, sealed FROM gharial_vault_token WHERE lookup = ANY ($1::bytea[])"
_FIND = "SELECT token, sealed FROM gharial_vault_token WHERE token = ANY ($1::bytea[])"


class PostgresVault:
    """Implements `gate.ports.Vault` at a server, within `timeout_s` for each batch. Makes its table at the first use.

    Rows are written with `synchronous_commit = on`, whatever the server's default, and only read back after the commit.
    Raises ConfigInvalid as PostgresPool does.
    """

    def __init__(self, place: PostgresPlace, timeout_s: float = 2.0, trouble: Trouble | None = None) -> None:
        self._pool = PostgresPool(place, "vault.postgres", timeout_s)
        self._timeout_s = timeout_s
        self._has_table = False
        self.trouble = trouble or Trouble()

    async def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See the port."""
        if not entries:
            return []
        lookups = [entry.lookup for entry in entries]

        async def run(connection: Any) -> dict[bytes, Entry]:
            found = await _kept(connection, lookups)
            new = [entry for entry in entries if entry.lookup not in found]
            if new:
                columns = [entry.lookup for entry in new], [entry.token for entry in new], [e.sealed for e in new]
                async with connection.transaction():
                    await connection.execute("SET LOCAL synchronous_commit = on")
                    await connection.execute(_KEEP, *columns)
                    if len(await _kept(connection, columns[0])) < len(set(columns[0])):
                        # Another value has such a token: the whole batch is undone.
                        raise VaultUnavailable("a token came a second time")
                found |= await _kept(connection, columns[0])
            return found

        found = await self._ask(run)
        if len(found) != len(lookups):
            raise VaultUnavailable("the vault lost rows while they were written")
        return [found[lookup] for lookup in lookups]

    async def find(self, tokens: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See the port."""

        async def run(connection: Any) -> dict[bytes, bytes]:
            return {row[0]: row[1] for row in await connection.fetch(_FIND, list(tokens))}

        return await self._ask(run) if tokens else {}

    async def close(self) -> None:
        """Close the connections; those that don't close in time are cut."""
        await self._pool.close()

    async def _ask(self, run: Callable[[Any], Awaitable[R]]) -> R:
        try:
            async with asyncio.timeout(self._timeout_s):
                pool = await self._pool.open()
                async with pool.acquire() as connection:
                    if not self._has_table:
                        await _make_table(connection)
                        self._has_table = True
                    found = await run(connection)
        except TimeoutError:
            raise self._failed("the database did not answer in time") from None
        except Exception as error:  # noqa: BLE001 - what asyncpg raises for a peer that talks nonsense has no one root
            # The type alone: the server's texts may quote what was to be stored.
            raise self._failed(f"the database can't be used ({type(error).__name__})") from None
        self.trouble.worked()
        return found

    def _failed(self, why: str) -> VaultUnavailable:
        self.trouble.failed(why)
        return VaultUnavailable(why)


async def _make_table(connection: Any) -> None:
    """Make the table where it is missing; a user who may not make tables can have it made by somebody else."""
    if await connection.fetchval("SELECT to_regclass('gharial_vault_token')") is not None:
        return
    async with connection.transaction():
        await connection.execute("SELECT pg_advisory_xact_lock($1)", _LOCK)
        await connection.execute(_CREATE)


async def _kept(connection: Any, lookups: Sequence[bytes]) -> dict[bytes, Entry]:
    return {row[0]: Entry(*row) for row in await connection.fetch(_KEPT, list(lookups))}
