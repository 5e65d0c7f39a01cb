"""What the watch remembers over a restart: counters, baselines and measures, in an SQLite file of its own.

Written once a second, what changed in it; a crash loses a second of it at most. Budgets are not here: they are exact,
and durable before an answer leaves (`adapters/store`).
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gharial.model.errors import StoreSchema, StoreUnwritable
from gharial.watch.measures import ActiveMeasure

VERSION = 1
MAX_STATE_BYTES = 1_000_000
_SCHEMA = (
    """CREATE TABLE IF NOT EXISTS counter (
        policy TEXT NOT NULL, watch TEXT NOT NULL, who TEXT NOT NULL, window_s INTEGER NOT NULL, state TEXT NOT NULL,
        PRIMARY KEY (policy, watch, who, window_s)
    ) WITHOUT ROWID""",
    "CREATE TABLE IF NOT EXISTS measure (measure TEXT NOT NULL)",
)


@dataclass(frozen=True, slots=True)
class CounterKey:
    """Which counter of which watch; `who` as in `Sight.who`."""

    policy: str
    watch: str
    who: str
    window_s: int


class WatchFile:
    """The file of one gate, which alone writes it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> tuple[dict[CounterKey, Any], list[ActiveMeasure]]:
        """Return all counters and measures, none if there is no file yet.

        Raises StoreSchema for a file of another version or another program, StoreUnwritable if it can't be read.
        """
        if not self._path.exists():
            return {}, []
        try:
            with closing(self._open()) as db:
                version = db.execute("PRAGMA user_version").fetchone()[0]
                if version == 0:
                    # Made, and nothing written yet.
                    return {}, []
                if version != VERSION:
                    raise StoreSchema(f"{self._path} has version {version}, this Gharial knows {VERSION}")
                counters = {
                    CounterKey(policy, watch, who, window_s): json.loads(state)
                    for policy, watch, who, window_s, state in db.execute(
                        "SELECT policy, watch, who, window_s, state FROM counter"
                    )
                }
                measures = [ActiveMeasure(**json.loads(text)) for (text,) in db.execute("SELECT measure FROM measure")]
        except (sqlite3.Error, OSError) as error:
            raise StoreUnwritable(f"{self._path} can't be read ({type(error).__name__})") from None
        except (ValueError, TypeError):
            raise StoreSchema(f"{self._path} was edited or damaged; move it away, and the watch begins anew") from None
        return counters, measures

    def save(self, counters: Mapping[CounterKey, Any], measures: Iterable[ActiveMeasure] | None) -> None:
        """Write these counters (None: it is gone), and all measures unless None, durably and all together.

        Raises StoreUnwritable.
        """
        gone = [(k.policy, k.watch, k.who, k.window_s) for k, state in counters.items() if state is None]
        kept = [
            (k.policy, k.watch, k.who, k.window_s, text)
            for k, state in counters.items()
            if state is not None and len(text := json.dumps(state, separators=(",", ":"))) <= MAX_STATE_BYTES
        ]
        try:
            with closing(self._open()) as db, db:
                for statement in (*_SCHEMA, f"PRAGMA user_version = {VERSION}"):
                    db.execute(statement)
                db.executemany("DELETE FROM counter WHERE policy=? AND watch=? AND who=? AND window_s=?", gone)
                db.executemany("INSERT OR REPLACE INTO counter VALUES (?, ?, ?, ?, ?)", kept)
                if measures is not None:
                    db.execute("DELETE FROM measure")
                    db.executemany(
                        "INSERT INTO measure VALUES (?)", [(json.dumps(asdict(measure)),) for measure in measures]
                    )
        except (sqlite3.Error, OSError) as error:
            raise StoreUnwritable(f"{self._path} can't be written ({type(error).__name__})") from None

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._path.touch(mode=0o600, exist_ok=True)
        db = sqlite3.connect(self._path, timeout=1.0)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        return db


def read_decoys(path: Path, most: int = 100_000) -> list[str]:
    """Return the ids that a file lists, one a line; blank lines and those that begin with '#' are none.

    Raises OSError, and ValueError for more than `most`.
    """
    lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    ids = [line for line in lines if line and not line.startswith("#")]
    if len(ids) > most:
        raise ValueError("too many decoys")
    return ids
