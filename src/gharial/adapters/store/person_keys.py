"""The embedded key store of people: in the same file as the store, so that a destroyed key leaves no byte behind.

SQLite moves rows about in its file, and may leave copies where they were. So the wrapped keys are a table of their own,
to which rows are only ever added at the end; one that is destroyed is overwritten where it stands, by as many zeros.
The log, which has copies as well, is emptied each time.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from gharial.adapters.store.sqlite import SqliteStore
from gharial.crypto.subject import WRAPPED_BYTES, PersonKey
from gharial.model.errors import StoreUnwritable, VaultUnavailable

R = TypeVar("R")


class SqlitePersonKeys:
    """Implements `gate.ports.PersonKeys` in a store, which stays the caller's to close."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    async def keep(self, rows: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """See the port."""
        return await self._ask(lambda db: [_kept(db, row) for row in rows], writes=True)

    async def find(self, handles: Sequence[bytes]) -> Mapping[bytes, PersonKey]:
        """See the port."""

        def run(db: sqlite3.Connection) -> dict[bytes, PersonKey]:
            found = (db.execute(_BY_HANDLE, (handle,)).fetchone() for handle in handles)
            return {row[1]: _row(row) for row in found if row is not None}

        return await self._ask(run, writes=False)

    async def erase(self, tombstones: Sequence[PersonKey]) -> Sequence[PersonKey]:
        """See the port."""
        try:
            rows = await self._store.submit(lambda db: [_erased(db, row) for row in tombstones], writes=True)
            emptied = await self._store.submit(
                lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0, writes=False
            )
        except StoreUnwritable as error:
            raise VaultUnavailable(str(error)) from None
        if not emptied:
            raise VaultUnavailable(
                "the key is destroyed, but its bytes may still be in the store's log, which another program reads: end "
                "that program, and erase once more"
            )
        return rows

    async def forget(self, people: Sequence[str]) -> int:
        """See the port."""
        return await self._ask(
            lambda db: sum(db.execute(_FORGET, (person,)).rowcount for person in people), writes=True
        )

    async def _ask(self, run: Callable[[sqlite3.Connection], R], *, writes: bool) -> R:
        try:
            return await self._store.submit(run, writes=writes)
        except StoreUnwritable as error:
            raise VaultUnavailable(str(error)) from None


def _row(row: tuple[str, bytes, bytes | None, float, float | None]) -> PersonKey:
    person, handle, wrapped, created_s, erased_s = row
    return PersonKey(person, handle, b"" if erased_s is not None else wrapped or b"", created_s, erased_s)


def _kept(db: sqlite3.Connection, row: PersonKey) -> PersonKey:
    found = db.execute(_BY_PERSON, (row.person,)).fetchone()
    if found is not None:
        return _row(found)
    number = db.execute("INSERT INTO person_key (wrapped) VALUES (?)", (row.wrapped,)).lastrowid
    db.execute(_ADD, (row.handle, row.person, number, row.created_s, None))
    return row


def _erased(db: sqlite3.Connection, tombstone: PersonKey) -> PersonKey:
    found = db.execute(_BY_PERSON, (tombstone.person,)).fetchone()
    if found is None:
        db.execute(_ADD, (tombstone.handle, tombstone.person, None, 0.0, tombstone.erased_s))
        return tombstone
    db.execute(_DESTROY, (WRAPPED_BYTES, tombstone.person))
    db.execute(_MARK, (tombstone.erased_s, tombstone.person))
    return _row(db.execute(_BY_PERSON, (tombstone.person,)).fetchone())


_COLUMNS = "SELECT digest, handle, wrapped, created_s, erased_s FROM person LEFT JOIN person_key USING (number)"
_BY_PERSON = f"{_COLUMNS} WHERE digest = ?"
_BY_HANDLE = f"{_COLUMNS} WHERE handle = ?"
_ADD = "INSERT INTO person (handle, digest, number, created_s, erased_s) VALUES (?, ?, ?, ?, ?)"
# Of the same size: anything else would move the row, and its neighbours, to another place.
_DESTROY = "UPDATE person_key SET wrapped = zeroblob(?) WHERE number = (SELECT number FROM person WHERE digest = ?)"
_MARK = "UPDATE person SET erased_s = coalesce(erased_s, ?) WHERE digest = ?"
_FORGET = "UPDATE person SET digest = '' WHERE digest = ? AND erased_s IS NOT NULL"
