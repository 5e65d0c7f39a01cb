"""The embedded store on a real disk: one owner, crashes, full disks, other versions."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gharial.adapters.store import open_store
from gharial.adapters.store.schema import APPLICATION_ID, STEPS, migrate, read_version
from gharial.gate.ports import Charge, ClientRecord, CredentialRecord
from gharial.model.errors import StoreInUse, StoreSchema, StoreUnwritable

EXEMPLAR = Path(__file__).parent.parent / "exemplars" / "store" / "v1" / "gharial.db"

CHARGE_FOR_EVER = """
import asyncio, itertools, os, sys
from pathlib import Path
from gharial.adapters.store import open_store
from gharial.gate.ports import Charge

async def clerk(store, name):
    for n in itertools.count():
        await store.charge([Charge(f"default\\x1f{name}\\x1f", "p", "g", f"{name}-{n}-{half}", 1.0) for half in "ab"])
        os.write(1, f"{name}-{n}\\n".encode())

async def main(store):
    await asyncio.gather(*(clerk(store, f"c{i}") for i in range(20)))

asyncio.run(main(open_store(Path(sys.argv[1]))))
"""

FULL_DISK = """
import asyncio, resource, signal, sys
from pathlib import Path
from gharial.adapters.store import open_store
from gharial.gate.ports import Charge
from gharial.model.errors import StoreUnwritable

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = open_store(Path(sys.argv[1]))
    acknowledged, refused = [], 0
    limit(1_000_000)
    for n in range(200):
        people = [f"{n}-{i}-" + "x" * 200 for i in range(20)]
        try:
            await store.charge([Charge("p", "p", "g", person, 1.0) for person in people])
            acknowledged += people
        except StoreUnwritable:
            refused += 1
    assert refused > 5, refused
    assert len(acknowledged) > 100, len(acknowledged)
    # A full disk refuses writes; what is there can still be read.
    assert {c.person for c in await store.load_charges(0)} == set(acknowledged)
    limit(resource.RLIM_INFINITY)
    await store.charge([Charge("p", "p", "g", "after", 1.0)])
    store.close()
    store = open_store(Path(sys.argv[1]))
    assert {c.person for c in await store.load_charges(0)} == {*acknowledged, "after"}
    print("held")

asyncio.run(main())
"""


def run_child(code: str, *args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("acknowledgements", [1, 50, 400, 1500])
def test_what_was_acknowledged_survives_kill_9(tmp_path, acknowledgements):
    """Every charge whose call returned is there after SIGKILL amid 20 concurrent callers, and no half call."""
    path = tmp_path / "gharial.db"
    child = subprocess.Popen([sys.executable, "-c", CHARGE_FOR_EVER, str(path)], stdout=subprocess.PIPE)
    assert child.stdout
    lines = [child.stdout.readline() for _ in range(acknowledgements)]
    child.send_signal(signal.SIGKILL)
    lines += child.stdout.readlines()
    child.wait()
    acknowledged = {line.decode().strip() for line in lines if line.endswith(b"\n")}
    assert len(acknowledged) >= acknowledgements
    store = open_store(path)
    try:
        there = {c.person for c in asyncio.run(store.load_charges(0.0))}
    finally:
        store.close()
    assert {f"{call}-{half}" for call in acknowledged for half in "ab"} <= there
    assert {person[:-2] for person in there if person.endswith("a")} == {p[:-2] for p in there if p.endswith("b")}


def test_a_full_disk_refuses_exactly_what_is_not_durable_and_recovers(tmp_path):
    """Beyond a real limit of file size calls are refused, what was acknowledged stays, and space brings it back."""
    done = run_child(FULL_DISK, tmp_path / "gharial.db")
    assert (done.stdout, done.stderr) == ("held\n", "")


async def test_concurrent_calls_share_a_commit(tmp_path):
    """200 calls at once take far fewer than 200 commits."""
    store = open_store(tmp_path / "gharial.db")
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL: the log is synced at every commit
    await asyncio.gather(*(store.charge([Charge("p", "p", "g", str(n), 1.0)]) for n in range(200)))
    store.close()
    assert 1 <= statements.count("COMMIT") <= 20


async def test_too_many_waiting_calls_are_refused(tmp_path):
    """The queue is bounded: while the disk holds everything up, further calls are refused at once."""
    path = tmp_path / "gharial.db"
    store = open_store(path, max_waiting=3)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    calls = [asyncio.ensure_future(store.charge([Charge("p", "p", "g", str(n), 1.0)])) for n in range(3)]
    await asyncio.sleep(0)  # lets the three be queued
    with pytest.raises(StoreUnwritable, match="too many"):
        await store.charge([Charge("p", "p", "g", "4", 1.0)])
    other.execute("ROLLBACK")
    await asyncio.gather(*calls)
    other.close()
    store.close()


async def test_a_lock_that_a_person_holds_refuses_and_passes(tmp_path):
    """Someone with a shell on the file makes writes fail as unwritable, not hang; afterwards they work."""
    path = tmp_path / "gharial.db"
    store = open_store(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnwritable, match="SQLITE_BUSY"):
        await store.charge([Charge("p", "p", "g", "a", 1.0)])
    other.execute("ROLLBACK")
    await store.charge([Charge("p", "p", "g", "a", 1.0)])
    other.close()
    store.close()


def test_files_are_private_even_if_they_were_not(tmp_path):
    """The store, its log and its lock are for their owner alone, also when the file was there with a wider mode."""
    path = tmp_path / "run" / "gharial.db"
    path.parent.mkdir()
    path.touch(0o644)
    store = open_store(path)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    store.close()
    assert modes == dict.fromkeys(("gharial.db", "gharial.db-wal", "gharial.db-shm", "gharial.db.lock"), 0o600)


def test_a_second_owner_is_refused_by_any_name(tmp_path):
    """No second open, through a link or in another process, gets the store; the first one goes on."""
    path = tmp_path / "gharial.db"
    store = open_store(path)
    (tmp_path / "link.db").symlink_to(path)
    for name in (path, tmp_path / "link.db"):
        with pytest.raises(StoreInUse, match=f"process {os.getpid()}: two owners of one budget are none"):
            open_store(name)
    child = run_child(
        "import sys, pathlib; from gharial.adapters.store import open_store; open_store(pathlib.Path(sys.argv[1]))",
        path,
    )
    assert "StoreInUse" in child.stderr
    asyncio.run(store.charge([Charge("p", "p", "g", "a", 1.0)]))
    store.close()
    open_store(path).close()


async def test_a_lost_lock_ends_the_first_owner(tmp_path):
    """When the lock file was deleted and a second owner came, the first one writes nothing more."""
    path = tmp_path / "gharial.db"
    first = open_store(path)
    (tmp_path / "gharial.db.lock").unlink()
    second = open_store(path)
    with pytest.raises(StoreUnwritable, match="taken the store over"):
        await first.charge([Charge("p", "p", "g", "first", 1.0)])
    await second.charge([Charge("p", "p", "g", "second", 1.0)])
    assert [c.person for c in await second.load_charges(0.0)] == ["second"]
    first.close()
    second.close()


@pytest.mark.parametrize("replace", [False, True])
async def test_a_store_that_was_removed_under_the_gateway_refuses(tmp_path, replace):
    """Charges are not acknowledged into a file that has no name any more or is not the one that was opened."""
    path = tmp_path / "gharial.db"
    store = open_store(path)
    path.unlink()
    if replace:
        path.touch()
    with pytest.raises(StoreUnwritable):
        await store.charge([Charge("p", "p", "g", "a", 1.0)])
    store.close()


async def test_the_store_that_version_1_wrote_is_read(tmp_path):
    """A file that an earlier release wrote opens, with everything in it."""
    path = Path(shutil.copy(EXEMPLAR, tmp_path))
    store = open_store(path)
    clients, keys = await store.load_clients()
    assert clients == [ClientRecord("acme-billing", "finance", ("partner",), "billing", ("purpose",), 1000.0, 3000.0)]
    assert keys == [CredentialRecord("k-1", "acme-billing", "api_key", b"\x00\x01hash", 1000.0, 3000.0)]
    assert list(await store.load_charges(0.0)) == [
        Charge("default\x1facme-billing\x1f", "customer-data", "support-view", "digest-1", 1500.25),
        Charge("default\x1facme-billing\x1f", "customer-data", "support-view", "digest-2", 1600.5),
    ]
    (incident,) = await store.load_incidents()
    assert (incident.incident_id, incident.people_clear, incident.grant) == ("inc-1", 60, "support-view")
    assert await store.waiting_alarms() == [(1, b'{"type":"gharial.incident","incident":"inc-1"}')]
    store.close()


async def test_a_backup_made_while_the_gateway_runs_is_whole(tmp_path):
    """SQLite's own backup, as docs/operations.md says, holds what was acknowledged before it and opens as a store."""
    store = open_store(tmp_path / "gharial.db")
    await store.charge([Charge("p", "p", "g", "a", 1.0)])
    source, target = sqlite3.connect(tmp_path / "gharial.db"), sqlite3.connect(tmp_path / "backup.db")
    source.backup(target)
    source.close()
    target.close()
    await store.charge([Charge("p", "p", "g", "b", 2.0)])
    store.close()
    restored = open_store(tmp_path / "backup.db")
    assert [c.person for c in await restored.load_charges(0.0)] == ["a"]
    restored.close()


def test_a_newer_store_is_left_alone(tmp_path):
    """A file of a newer schema is refused with what to do, and stays byte for byte."""
    path = tmp_path / "gharial.db"
    open_store(path).close()
    with sqlite3.connect(path) as db:
        db.execute(f"PRAGMA user_version = {len(STEPS) + 1}")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreSchema, match=rf"schema version {len(STEPS) + 1}.*Install the Gharial that wrote it"):
        open_store(path)
    assert path.read_bytes() == before


def test_a_foreign_database_is_left_alone(tmp_path):
    """Another program's database, or a file that is none, is refused with what to do, and stays byte for byte."""
    foreign = tmp_path / "foreign.db"
    with sqlite3.connect(foreign) as db:
        db.execute("CREATE TABLE t (x)")
    db.close()
    noise = tmp_path / "noise.db"
    noise.write_bytes(b"not a database at all " * 100)
    for path, says in ((foreign, "another program"), (noise, "not a SQLite database")):
        before = path.read_bytes()
        with pytest.raises(StoreSchema, match=says):
            open_store(path)
        assert path.read_bytes() == before


def test_a_damaged_store_is_refused(tmp_path):
    """A store with a page overwritten does not open as if the charges in it had never been."""
    path = Path(shutil.copy(EXEMPLAR, tmp_path))
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xa5" * 4096)
    with pytest.raises(StoreSchema, match="damaged"):
        open_store(path)


def test_a_store_that_cannot_be_made_says_so(tmp_path):
    """A path below a file is the disk's refusal, in words."""
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnwritable, match="can't be"):
        open_store(tmp_path / "file" / "gharial.db")


def test_an_older_store_is_migrated_in_one_transaction(tmp_path):
    """Steps that are missing run in their order; if one fails the file is of its old version, whole."""
    db = sqlite3.connect(tmp_path / "old.db", isolation_level=None)
    one, two = ("CREATE TABLE a (x)",), ("ALTER TABLE a ADD COLUMN y", "CREATE TABLE b (z)")
    migrate(db, 0, (one,))
    db.execute("INSERT INTO a VALUES (7)")
    with pytest.raises(sqlite3.Error):
        migrate(db, 1, (one, two, ("CREATE TABLE b (z)",)))
    assert read_version(db, tmp_path, newest=3) == 1
    assert db.execute("SELECT * FROM a").fetchall() == [(7,)]
    migrate(db, 1, (one, two))
    assert read_version(db, tmp_path, newest=3) == 2
    assert db.execute("SELECT x, y FROM a").fetchall() == [(7, None)]
    assert db.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    db.close()
