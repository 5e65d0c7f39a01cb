"""The embedded store: SQLite with one owner and one writer thread, where one commit serves everyone who waits."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gharial.adapters.group_thread import GroupThread, Reply, answer_all
from gharial.adapters.store.ownership import OwnerLock
from gharial.adapters.store.schema import migrate, read_version
from gharial.crypto.keyset_history import Known, KnownKey
from gharial.gate.ports import Charge, ClientRecord, CredentialRecord, IncidentRecord
from gharial.model.errors import AlreadyExists, GharialError, NotFound, StoreInUse, StoreUnwritable
from gharial.model.publication import PublicationRecord

MAX_WAITING = 4096
"""How many calls may wait for the writer thread; one more is refused."""

_DELETE_ROWS = 5000  # per transaction of housekeeping, so that a charge never waits for a long delete
_BUSY_TIMEOUT_S = 1.0  # for a person's `sqlite3` shell that holds the file's lock; nobody else may

# What sqlite3 raises for data that it can't hold (lone surrogates, integers beyond 64 bit): this call's own failure.
_UNFIT = (ValueError, OverflowError, TypeError)

R = TypeVar("R")
_Run = Callable[[sqlite3.Connection], object]


@dataclass(frozen=True, slots=True, eq=False)
class _Job:
    run: _Run = field(repr=False)
    writes: bool
    reply: Reply


def open_store(path: Path, *, max_waiting: int = MAX_WAITING) -> SqliteStore:
    """Open the store at `path`, making it (mode 0600) or migrating it if need be; the caller closes it.

    Blocks for the disk. Raises StoreInUse if another process has it open, StoreSchema if the file is newer, damaged or
    not a store, StoreUnwritable if the disk does not let us.
    """
    path = path.resolve()  # two names of one file share one lock
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as err:
        raise StoreUnwritable(f"{path.parent} can't be made: {err.strerror}") from None
    lock = OwnerLock(path)
    try:
        return SqliteStore(path, lock, max_waiting=max_waiting)
    except BaseException:
        lock.release()
        raise


class SqliteStore:
    """Implements `gate.ports.Store`. Use `open_store`.

    Durable means: the transaction is in the write-ahead log and the log is synced (`synchronous=FULL`). A call that
    could not be made durable raises StoreUnwritable, and so does a read that fails; the next call tries again, so the
    store recovers by itself when the disk does. Methods may be called from any event loop; `close` from anywhere.
    """

    def __init__(self, path: Path, lock: OwnerLock, *, max_waiting: int = MAX_WAITING) -> None:
        self.path = path
        self._lock = lock
        self._token = secrets.token_hex(16)
        try:
            self._db = _connect(path, self._token)
            self._file = _identity(path)
        except (sqlite3.Error, OSError) as err:
            raise StoreUnwritable(f"{path} can't be opened: {_why(err)}") from None
        self._thread = GroupThread[_Job](
            "gharial-store",
            handle=self._handle,
            abandon=self._abandon,
            weigh=lambda _: 1,
            max_waiting=max_waiting,
            max_group=512,
        )
        self._closed = False

    def close(self) -> None:
        """Finish what waits, close the file, let go of the store. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._thread.stop()
        try:
            self._db.close()
        except sqlite3.Error:
            pass  # everything acknowledged is in the log; the next owner's open reads it from there
        finally:
            self._lock.release()

    # --- charges ---------------------------------------------------------------------------------------------------

    async def charge(self, charges: Sequence[Charge]) -> None:
        """See the port. The time of a person who is there already moves forward, never back."""
        rows = [(c.principal, c.policy, c.grant, c.person, c.at_s) for c in charges]
        if rows:
            await self._write(lambda db: db.executemany(_CHARGE, rows) and None)

    async def load_charges(self, since_s: float) -> Sequence[Charge]:
        """See the port."""
        return await self._read(lambda db: [_charge(row) for row in db.execute(_CHARGES_SINCE, (since_s,))])

    async def delete_charges(self, before_s: float) -> int:
        """Forget charges before `before_s` (older than the longest window); return how many there were."""
        deleted = 0
        while True:
            rows = await self._write(lambda db: db.execute(_DELETE_CHARGES, (before_s, _DELETE_ROWS)).rowcount)
            deleted += rows
            if rows < _DELETE_ROWS:
                return deleted

    # --- clients ---------------------------------------------------------------------------------------------------

    async def add_client(self, client: ClientRecord, credentials: Sequence[CredentialRecord]) -> None:
        """See the port. Raises AlreadyExists for a credential id that is taken, too; then nothing is added."""
        if any(c.client != client.name for c in credentials):
            raise ValueError("a credential names another client")

        def run(db: sqlite3.Connection) -> None:
            if db.execute("SELECT 1 FROM client WHERE name = ?", (client.name,)).fetchone():
                raise AlreadyExists(f"there is a client named {client.name} already")
            db.execute(_ADD_CLIENT, _client_row(client))
            for c in credentials:
                if db.execute("SELECT 1 FROM credential WHERE credential_id = ?", (c.credential_id,)).fetchone():
                    raise AlreadyExists(f"there is a credential {c.credential_id} already")
                db.execute(_ADD_CREDENTIAL, (c.credential_id, c.client, c.kind, c.hash, c.created_s, c.revoked_s))

        await self._write(run)

    async def revoke_client(self, name: str, at_s: float) -> None:
        """See the port. The time of an earlier revocation stays."""

        def run(db: sqlite3.Connection) -> None:
            if not db.execute(
                "UPDATE client SET revoked_s = coalesce(revoked_s, ?) WHERE name = ?", (at_s, name)
            ).rowcount:
                raise NotFound(f"there is no client named {name}")
            db.execute("UPDATE credential SET revoked_s = coalesce(revoked_s, ?) WHERE client = ?", (at_s, name))

        await self._write(run)

    async def load_clients(self) -> tuple[Sequence[ClientRecord], Sequence[CredentialRecord]]:
        """See the port."""

        def run(db: sqlite3.Connection) -> tuple[list[ClientRecord], list[CredentialRecord]]:
            clients = [_client(row) for row in db.execute(_CLIENTS)]
            return clients, [CredentialRecord(*row) for row in db.execute(_CREDENTIALS)]

        return await self._read(run)

    # --- incidents and alarms --------------------------------------------------------------------------------------

    async def put_incident(self, incident: IncidentRecord, alarm: bytes | None) -> None:
        """See the port."""
        row = tuple(getattr(incident, name) for name in _INCIDENT_FIELDS)

        def run(db: sqlite3.Connection) -> None:
            db.execute(_PUT_INCIDENT, row)
            if alarm is not None:
                db.execute("INSERT INTO alarm (incident_id, body) VALUES (?, ?)", (incident.incident_id, alarm))

        await self._write(run)

    async def load_incidents(self, limit: int = 1000) -> Sequence[IncidentRecord]:
        """See the port."""
        return await self._read(lambda db: [IncidentRecord(*row) for row in db.execute(_INCIDENTS, (limit,))])

    async def waiting_alarms(self, limit: int = 100) -> Sequence[tuple[int, bytes]]:
        """See the port."""
        return await self._read(
            lambda db: list(db.execute("SELECT number, body FROM alarm ORDER BY number LIMIT ?", (limit,)))
        )

    async def alarm_delivered(self, number: int) -> None:
        """See the port. A number that is not on the queue is fine: it was taken off before."""
        await self._write(lambda db: db.execute("DELETE FROM alarm WHERE number = ?", (number,)) and None)

    # --- the history of policies ------------------------------------------------------------------------------------

    async def add_publications(self, records: Sequence[PublicationRecord]) -> None:
        """See the port."""
        rows = [tuple(getattr(record, name) for name in _PUBLICATION_FIELDS) for record in records]

        def run(db: sqlite3.Connection) -> None:
            db.executemany(_ADD_PUBLICATION, rows)

        await self._write(run)

    async def load_publications(self, limit: int = 1000) -> Sequence[PublicationRecord]:
        """See the port."""
        return await self._read(lambda db: [_publication(row) for row in db.execute(_PUBLICATIONS, (limit,))])

    # --- keys that were in use --------------------------------------------------------------------------------------

    async def load_known_keys(self) -> Known:
        """See `gate.ports.KeyMemory`."""

        def run(db: sqlite3.Connection) -> Known:
            keys = frozenset(KnownKey(row[0], row[1], bool(row[2])) for row in db.execute(_KNOWN_KEYS))
            return Known(keys, dict(db.execute(_KNOWN_KEYSETS)))

        return await self._read(run)

    async def remember_keys(self, known: Known, *, alone: bool = False) -> None:
        """See `gate.ports.KeyMemory`."""
        rows = [(key.keyset_id, key.key_id, key.destroyed) for key in known.keys]

        def run(db: sqlite3.Connection) -> None:
            if alone:
                db.execute("DELETE FROM known_key")
                db.execute("DELETE FROM known_keyset")
            db.executemany(_REMEMBER_KEY, rows)
            db.executemany(_REMEMBER_KEYSET, list(known.revisions.items()))

        await self._write(run)

    # --- the writer thread -----------------------------------------------------------------------------------------

    async def _write(self, run: Callable[[sqlite3.Connection], R]) -> R:
        return await self.submit(run, writes=True)

    async def _read(self, run: Callable[[sqlite3.Connection], R]) -> R:
        return await self.submit(run, writes=False)

    async def submit(self, run: Callable[[sqlite3.Connection], R], *, writes: bool) -> R:
        """Run a job in the store's own thread, for the other parts that live in its file; see SqliteStore."""
        job = _Job(run, writes, Reply.here())
        if not self._thread.submit(job):
            raise StoreUnwritable(f"{self.path} is closed, or too many calls wait for it")
        result: R = await job.reply.future
        return result

    def _handle(self, group: list[_Job]) -> None:
        """Run all writes of the group in one transaction, then its reads, which so never see what may not last."""
        writes = [job for job in group if job.writes]
        if writes:
            answer_all(self._commit(writes))
        reads = [job for job in group if not job.writes]
        if reads:
            answer_all([(job.reply, self._look(job)) for job in reads])

    def _abandon(self, jobs: list[_Job]) -> None:
        answer_all([(job.reply, StoreUnwritable(f"{self.path}: the writer thread has ended")) for job in jobs])

    def _commit(self, jobs: list[_Job]) -> list[tuple[Reply, object]]:
        """Return each job's answer: its result or own refusal once durable, else StoreUnwritable for every one."""
        try:
            if _identity(self.path) != self._file:
                raise OSError(0, "the file was removed or replaced while it was in use; restart the gateway")
            self._db.execute("BEGIN IMMEDIATE")
            self._refuse_if_lost()
            answers = [(job.reply, self._run_one(job)) for job in jobs]
            self._db.execute("COMMIT")
        except (sqlite3.Error, OSError, StoreInUse) as err:
            why = _why(err)
            self._roll_back()
            return [(job.reply, StoreUnwritable(f"{self.path} can't be written: {why}")) for job in jobs]
        return answers

    def _refuse_if_lost(self) -> None:
        """Raise StoreInUse if another process made itself the owner although we hold the lock.

        A lock file that somebody deleted, or a file system without locks, lets that happen; the budgets of two owners
        would add up, so the one that lost stops writing.
        """
        row = self._db.execute("SELECT token FROM owner").fetchone()
        if row != (self._token,):
            raise StoreInUse("another process has taken the store over")

    def _run_one(self, job: _Job) -> object:
        """Run one job within the group's transaction, all of it or nothing, without an effect on the others.

        An error that ended the whole transaction (a full disk) is raised.
        """
        self._db.execute("SAVEPOINT job")
        try:
            answer = job.run(self._db)
        except (GharialError, *_UNFIT, sqlite3.Error) as err:
            if not self._db.in_transaction:
                raise sqlite3.OperationalError(_why(err)) from None
            self._db.execute("ROLLBACK TO job")
            self._db.execute("RELEASE job")
            # Texts of the last two kinds may quote what was to be stored.
            return err if isinstance(err, GharialError) else StoreUnwritable(f"{self.path}: {_why(err)}")
        self._db.execute("RELEASE job")
        return answer

    def _roll_back(self) -> None:
        try:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
        except sqlite3.Error:
            pass  # SQLite has rolled back already, or does so when BEGIN fails next time: nothing is acknowledged

    def _look(self, job: _Job) -> object:
        try:
            return job.run(self._db)
        except (sqlite3.Error, *_UNFIT) as err:
            return StoreUnwritable(f"{self.path} can't be read: {_why(err)}")


def _connect(path: Path, token: str) -> sqlite3.Connection:
    """Open the file: private, checked, migrated, marked as ours. Raises StoreSchema, sqlite3.Error, OSError."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    if path.stat().st_mode & 0o077:
        path.chmod(0o600)  # SQLite gives the log beside it the same mode
    db = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    try:
        version = read_version(db, path)
        if db.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
            raise sqlite3.OperationalError("its file system has no write-ahead logging")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: fsync alone leaves data in the drive's cache
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
        db.execute("PRAGMA trusted_schema = OFF")
        migrate(db, version)
        db.execute("INSERT INTO owner VALUES (1, ?) ON CONFLICT (one) DO UPDATE SET token = excluded.token", (token,))
    except BaseException:
        db.close()
        raise
    return db


def _identity(path: Path) -> tuple[int, int]:
    stat = path.stat()
    return stat.st_dev, stat.st_ino


def _why(err: BaseException) -> str:
    """Say what went wrong without the data: a name from SQLite's or the system's own list."""
    if isinstance(err, OSError):
        return err.strerror or "I/O error"
    if isinstance(err, GharialError):
        return str(err)
    return getattr(err, "sqlite_errorname", None) or (
        str(err) if isinstance(err, sqlite3.OperationalError) else "the record can't be stored"
    )


# --- rows and records --------------------------------------------------------------------------------------------

_INCIDENT_FIELDS = tuple(IncidentRecord.__dataclass_fields__)
_INCIDENT_COLUMNS = tuple("grant_name" if name == "grant" else name for name in _INCIDENT_FIELDS)

_CHARGE = """INSERT INTO charge (principal, policy, grant_name, person, at_s) VALUES (?, ?, ?, ?, ?)
    ON CONFLICT (principal, policy, grant_name, person) DO UPDATE SET at_s = max(at_s, excluded.at_s)"""
_CHARGES_SINCE = """SELECT principal, policy, grant_name, person, at_s FROM charge WHERE at_s >= ?
    ORDER BY at_s, principal, policy, grant_name, person"""
_DELETE_CHARGES = """DELETE FROM charge WHERE (principal, policy, grant_name, person) IN
    (SELECT principal, policy, grant_name, person FROM charge WHERE at_s < ? LIMIT ?)"""
_ADD_CLIENT = """INSERT INTO client (name, team, roles, purpose, may_assert, created_s, revoked_s)
    VALUES (?, ?, ?, ?, ?, ?, ?)"""
_ADD_CREDENTIAL = """INSERT INTO credential (credential_id, client, kind, hash, created_s, revoked_s)
    VALUES (?, ?, ?, ?, ?, ?)"""
_CLIENTS = "SELECT name, team, roles, purpose, may_assert, created_s, revoked_s FROM client ORDER BY number"
_CREDENTIALS = "SELECT credential_id, client, kind, hash, created_s, revoked_s FROM credential ORDER BY number"
# The names are a fixed list of our own, not data.
_PUT_INCIDENT = (
    f"INSERT INTO incident ({', '.join(_INCIDENT_COLUMNS)}) VALUES ({', '.join('?' * len(_INCIDENT_COLUMNS))}) "  # noqa: S608
    f"ON CONFLICT (incident_id) DO UPDATE SET {', '.join(f'{c} = excluded.{c}' for c in _INCIDENT_COLUMNS[1:])}"
)
_INCIDENTS = f"SELECT {', '.join(_INCIDENT_COLUMNS)} FROM incident ORDER BY opened_s DESC, incident_id DESC LIMIT ?"  # noqa: S608

_KNOWN_KEYS = "SELECT keyset_id, key_id, destroyed FROM known_key ORDER BY keyset_id, key_id"
_KNOWN_KEYSETS = "SELECT keyset_id, revision FROM known_keyset"
_REMEMBER_KEYSET = """INSERT INTO known_keyset (keyset_id, revision) VALUES (?, ?)
    ON CONFLICT (keyset_id) DO UPDATE SET revision = max(revision, excluded.revision)"""
_REMEMBER_KEY = """INSERT INTO known_key (keyset_id, key_id, destroyed) VALUES (?, ?, ?)
    ON CONFLICT (keyset_id, key_id) DO UPDATE SET destroyed = max(destroyed, excluded.destroyed)"""

_PUBLICATION_FIELDS = tuple(name for name in PublicationRecord.__dataclass_fields__ if name != "number")
_ADD_PUBLICATION = (
    f"INSERT INTO publication ({', '.join(_PUBLICATION_FIELDS)}) "  # noqa: S608
    f"VALUES ({', '.join('?' * len(_PUBLICATION_FIELDS))})"
)
_PUBLICATIONS = f"SELECT {', '.join(_PUBLICATION_FIELDS)}, number FROM publication ORDER BY number DESC LIMIT ?"  # noqa: S608


def _publication(row: tuple[Any, ...]) -> PublicationRecord:
    found = dict(zip((*_PUBLICATION_FIELDS, "number"), row, strict=True))
    return PublicationRecord(**{**found, "forced": bool(found["forced"])})


def _charge(row: tuple[str, str, str, str, float]) -> Charge:
    principal, policy, grant, person, at_s = row
    # A budget's three names occur once per person: interned, a million charges do not hold three million texts.
    return Charge(sys.intern(principal), sys.intern(policy), sys.intern(grant), person, at_s)


def _client_row(client: ClientRecord) -> tuple[object, ...]:
    roles, may_assert = json.dumps(client.roles), json.dumps(client.may_assert)
    return client.name, client.team, roles, client.purpose, may_assert, client.created_s, client.revoked_s


def _client(row: tuple[str, str, str, str, str, float, float | None]) -> ClientRecord:
    name, team, roles, purpose, may_assert, created_s, revoked_s = row
    return ClientRecord(
        name, team, tuple(json.loads(roles)), purpose, tuple(json.loads(may_assert)), created_s, revoked_s
    )
