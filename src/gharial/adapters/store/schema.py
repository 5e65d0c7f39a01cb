"""The shape of the SQLite store: whose file it is, which version, and the numbered steps from each to the next."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from gharial.model.errors import StoreSchema

APPLICATION_ID = 0x47484152
"""`GHAR` in the file's header (PRAGMA application_id), so that another program's database is told apart."""

Step = tuple[str, ...]

# Step n (counted from 1) turns a store of version n-1 into one of version n. Steps are added, never edited: stores that
# releases wrote are on other people's disks (tests/exemplars/store/).
STEPS: tuple[Step, ...] = (
    (
        # The secret of the process that owns the store now; see SqliteStore.
        "CREATE TABLE owner (one INTEGER PRIMARY KEY CHECK (one = 1), token TEXT NOT NULL)",
        # A row per person and budget; at_s is the last time that the person was charged to it.
        """CREATE TABLE charge (
            principal TEXT NOT NULL, policy TEXT NOT NULL, grant_name TEXT NOT NULL, person TEXT NOT NULL,
            at_s REAL NOT NULL,
            PRIMARY KEY (principal, policy, grant_name, person)
        ) WITHOUT ROWID""",
        "CREATE INDEX charge_at ON charge (at_s)",
        # Lists (roles, may_assert) are JSON arrays of strings.
        """CREATE TABLE client (
            number INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, team TEXT NOT NULL, roles TEXT NOT NULL,
            purpose TEXT NOT NULL, may_assert TEXT NOT NULL, created_s REAL NOT NULL, revoked_s REAL
        )""",
        """CREATE TABLE credential (
            number INTEGER PRIMARY KEY, credential_id TEXT NOT NULL UNIQUE,
            client TEXT NOT NULL REFERENCES client (name),
            kind TEXT NOT NULL, hash BLOB NOT NULL, created_s REAL NOT NULL, revoked_s REAL
        )""",
        """CREATE TABLE incident (
            incident_id TEXT PRIMARY KEY, key TEXT NOT NULL, detector TEXT NOT NULL, severity TEXT NOT NULL,
            principal TEXT NOT NULL, client TEXT NOT NULL, user TEXT NOT NULL, route TEXT NOT NULL,
            policy TEXT NOT NULL, grant_name TEXT NOT NULL, limit_people INTEGER NOT NULL, window_s INTEGER NOT NULL,
            opened_s REAL NOT NULL, last_seen_s REAL NOT NULL, people_clear INTEGER NOT NULL,
            people_withheld INTEGER NOT NULL, measure TEXT NOT NULL, exchange_id TEXT NOT NULL
        ) WITHOUT ROWID""",
        "CREATE INDEX incident_opened ON incident (opened_s)",
        # AUTOINCREMENT, so that the number of a delivered alarm is never given to another.
        """CREATE TABLE alarm (
            number INTEGER PRIMARY KEY AUTOINCREMENT, incident_id TEXT NOT NULL, body BLOB NOT NULL
        )""",
    ),
    (
        # The history of policies: what was active from when on.
        """CREATE TABLE publication (
            number INTEGER PRIMARY KEY AUTOINCREMENT, policy TEXT NOT NULL, version INTEGER NOT NULL,
            action TEXT NOT NULL, at_s REAL NOT NULL, digest TEXT NOT NULL, text TEXT NOT NULL,
            forced INTEGER NOT NULL, failed_tests INTEGER NOT NULL
        )""",
    ),
    (
        # Keys that were once in use, so that an older key file is told from a newer one. No material.
        """CREATE TABLE known_key (
            keyset_id TEXT NOT NULL, key_id INTEGER NOT NULL, destroyed INTEGER NOT NULL,
            PRIMARY KEY (keyset_id, key_id)
        ) WITHOUT ROWID""",
    ),
    (
        # The newest revision of each keyset that was in use.
        "CREATE TABLE known_keyset (keyset_id TEXT PRIMARY KEY, revision INTEGER NOT NULL) WITHOUT ROWID",
    ),
    (
        # Random tokens: a keyed digest of the value, the token, and the value, sealed.
        """CREATE TABLE vault_token (
            lookup BLOB PRIMARY KEY, token BLOB NOT NULL UNIQUE, sealed BLOB NOT NULL
        ) WITHOUT ROWID""",
    ),
    (
        # Keys of people, wrapped; see person_keys.py for why they stand alone.
        "CREATE TABLE person_key (number INTEGER PRIMARY KEY, wrapped BLOB NOT NULL)",
        # Whose they are; without `number` somebody of whom there was none when he was erased.
        """CREATE TABLE person (
            handle BLOB PRIMARY KEY, digest TEXT NOT NULL, number INTEGER, created_s REAL NOT NULL, erased_s REAL
        ) WITHOUT ROWID""",
        "CREATE UNIQUE INDEX person_digest ON person (digest) WHERE digest <> ''",
    ),
)


def read_version(db: sqlite3.Connection, path: Path, *, newest: int = len(STEPS)) -> int:
    """Return the schema version of an opened file, 0 for an empty one; nothing is written.

    Raises StoreSchema if the file is not a store of Gharial, is damaged, or is newer than `newest`.
    """
    try:
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
        if (application, version, tables) == (0, 0, 0):
            return 0
        if application != APPLICATION_ID or version < 1:
            raise StoreSchema(
                f"{path} is a SQLite database of another program; nothing in it was changed. "
                "Give `store` in gharial.yaml a path of its own."
            )
        if version > newest:
            raise StoreSchema(
                f"{path} has schema version {version}, this Gharial knows versions up to {newest}; nothing in it was "
                "changed. Install the Gharial that wrote it, or restore the backup made before the upgrade."
            )
        (health,) = db.execute("PRAGMA quick_check(1)").fetchone()
    except sqlite3.OperationalError:
        raise  # the disk's fault or the lock's, not the file's
    except sqlite3.DatabaseError:
        raise StoreSchema(
            f"{path} is not a SQLite database, or is damaged; nothing in it was changed. "
            "Restore a backup, or move the file away to begin with an empty store."
        ) from None
    if health != "ok":
        raise StoreSchema(f"{path} is damaged; nothing in it was changed. Restore a backup.")
    return int(version)


def migrate(db: sqlite3.Connection, version: int, steps: Sequence[Step] = STEPS) -> None:
    """Bring a store of `version` to the newest one, all steps in one transaction: after an error it is as before.

    The connection is in autocommit mode (`isolation_level=None`). Raises sqlite3.Error.
    """
    if version == len(steps):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for step in steps[version:]:
            for statement in step:
                db.execute(statement)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {len(steps)}")
        db.execute("COMMIT")
    except sqlite3.Error:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise
