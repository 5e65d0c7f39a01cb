"""The embedded vault: what random tokens stand for, in the same file as the store, and in its transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gharial.adapters.store.sqlite import SqliteStore
from gharial.crypto.vault import Entry
from gharial.model.errors import StoreUnwritable, VaultUnavailable

R = TypeVar("R")


class SqliteVault:
    """Implements `gate.ports.Vault` in a store, which stays the caller's to close.

    A row is durable when the store's transaction is; one commit serves all calls that wait for it.
    """

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def keep(self, entries: Sequence[Entry]) -> Sequence[Entry]:
        """See the port."""

        def run(db: sqlite3.Connection) -> list[Entry]:
            # One thread writes, so nobody comes in between.
            return [_kept(db, entry) for entry in entries]

        return await self._ask(run, writes=True)

    async def find(self, tokens: Sequence[bytes]) -> Mapping[bytes, bytes]:
        """See the port."""

        def run(db: sqlite3.Connection) -> dict[bytes, bytes]:
            rows = ((token, db.execute(_FIND, (token,)).fetchone()) for token in tokens)
            return {token: row[0] for token, row in rows if row is not None}

        return await self._ask(run, writes=False)

    async def _ask(self, run: Callable[[sqlite3.Connection], R], *, writes: bool) -> R:
        try:
            return await self._store.submit(run, writes=writes)
        except StoreUnwritable as error:
            raise VaultUnavailable(str(error)) from None


def _kept(db: sqlite3.Connection, entry: Entry) -> Entry:
    row = db.execute(_KEPT, (entry.lookup,)).fetchone()
    if row is not None:
        return Entry(entry.lookup, *row)
    db.execute(_KEEP, (entry.lookup, entry.token, entry.sealed))
    return entry


_KEPT = "SELECT token, sealed FROM vault_token WHERE lookup = ?"
_KEEP = "INSERT INTO vault_token (lookup, token, sealed) VALUES (?, ?, ?)"
_FIND = "SELECT sealed FROM vault_token WHERE token = ?"
