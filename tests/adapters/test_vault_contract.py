"""What every vault promises, whatever it is made of: SQLite in the store's file, or a PostgreSQL server."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sqlite3
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.postgres import INSTALLED, a_postgres, needs_postgres, url_of

from gharial.adapters.memory import MemoryVault
from gharial.adapters.postgres import PostgresPlace, parse_postgres_url
from gharial.adapters.store import SqliteVault, open_store
from gharial.adapters.vault_postgres import PostgresVault
from gharial.crypto.vault import Entry
from gharial.gate.ports import Vault
from gharial.model.errors import VaultUnavailable

pytestmark = pytest.mark.xdist_group("postgres")

TABLE = "gharial_vault_token"


def entries(count: int, seed: int = 1) -> list[Entry]:
    draw = random.Random(seed).randbytes
    return [Entry(draw(16), draw(16), draw(40 + at % 7)) for at in range(count)]


def again(given: list[Entry], seed: int) -> list[Entry]:
    """The same values as somebody else draws tokens for them."""
    return [replace(new, lookup=old.lookup) for old, new in zip(given, entries(len(given), seed), strict=True)]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    if not INSTALLED:
        pytest.skip("needs PostgreSQL: uv sync --group services")
    with a_postgres("") as started:
        yield started


@contextlib.asynccontextmanager
async def a_sqlite(folder: Path) -> AsyncIterator[Vault]:
    store = open_store(folder / "gharial.db")
    try:
        yield SqliteVault(store)
    finally:
        store.close()


@contextlib.asynccontextmanager
async def a_server_vault(server: Any) -> AsyncIterator[PostgresVault]:
    vault = PostgresVault(parse_postgres_url(url_of(server)), 30.0)
    try:
        yield vault
    finally:
        await vault.close()


@contextlib.asynccontextmanager
async def in_memory(vault: Vault) -> AsyncIterator[Vault]:
    yield vault


@pytest.fixture(params=["sqlite", "memory", pytest.param("postgres", marks=pytest.mark.services)])
def reopen(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    """Return what opens the vault of this test, the same one each time: what comes back went through the disk."""
    if request.param == "sqlite":
        return lambda: a_sqlite(tmp_path)
    if request.param == "memory":
        vault = MemoryVault()
        return lambda: in_memory(vault)
    found = request.getfixturevalue("server")
    found.psql(f"DROP TABLE IF EXISTS {TABLE};")
    return lambda: a_server_vault(found)


async def test_the_first_row_of_a_value_stays(reopen):
    """Who comes second gets the row of who came first, in the order of the question, also after a restart."""
    given = entries(50)
    async with reopen() as vault:
        assert list(await vault.keep(given)) == given
        assert list(await vault.keep(again(given, 2)[::-1])) == given[::-1]
    async with reopen() as vault:
        mixed = [*again(given[:3], 3), *entries(2, 4)]
        assert list(await vault.keep(mixed)) == [*given[:3], *mixed[3:]]


async def test_tokens_find_what_is_sealed(reopen):
    """Known tokens give their row's seal, unknown ones nothing, the empty question an empty answer."""
    given = entries(20)
    async with reopen() as vault:
        await vault.keep(given)
        assert await vault.find([*(e.token for e in given), bytes(16), b""]) == {e.token: e.sealed for e in given}
        assert await vault.find([given[0].lookup]) == {}
        assert (dict(await vault.find([])), list(await vault.keep([]))) == ({}, [])


async def test_everybody_gets_the_same_row_however_many_ask_at_once(reopen):
    """Of forty exchanges that show the same people for the first time all get the same tokens."""
    given = entries(30)
    async with reopen() as vault:
        asked = [random.Random(n).sample(again(given, n), 30) for n in range(40)]
        answers = await asyncio.gather(*(vault.keep(one) for one in asked))
    rows = {row for answer in answers for row in answer}
    assert len(rows) == 30
    assert all([r.lookup for r in got] == [e.lookup for e in one] for got, one in zip(answers, asked, strict=True))


async def test_a_token_of_another_value_is_never_taken_over(reopen):
    """A source of randomness that repeats itself is refused, with the whole batch; the row of before stays."""
    first, second, third = entries(3)
    async with reopen() as vault:
        await vault.keep([first])
        with pytest.raises(VaultUnavailable):
            await vault.keep([third, replace(second, token=first.token)])
        assert await vault.find([first.token, third.token]) == {first.token: first.sealed}


async def test_a_sqlite_vault_without_room_refuses_and_keeps_nothing(tmp_path: Path):
    """A full disk: nothing is handed out; when there is room again it goes on."""
    store = open_store(tmp_path / "gharial.db")
    try:
        vault = SqliteVault(store)
        pages = await store.submit(lambda db: db.execute("PRAGMA page_count").fetchone()[0], writes=False)
        await store.submit(lambda db: db.execute(f"PRAGMA max_page_count = {pages + 2}").fetchone(), writes=False)
        given = entries(2000)
        with pytest.raises(VaultUnavailable):
            await vault.keep(given)
        assert await vault.find([entry.token for entry in given]) == {}
        await store.submit(lambda db: db.execute("PRAGMA max_page_count = 100000").fetchone(), writes=False)
        assert list(await vault.keep(given)) == given
    finally:
        store.close()


async def test_a_closed_sqlite_vault_refuses(tmp_path: Path):
    """After the store is closed there is no answer but an error."""
    async with a_sqlite(tmp_path) as vault:
        pass
    with pytest.raises(VaultUnavailable):
        await vault.keep(entries(1))
    with pytest.raises(VaultUnavailable):
        await vault.find([bytes(16)])


async def test_rows_in_the_file_are_what_was_given(tmp_path: Path):
    """The store's file holds exactly the three texts of bytes of each row."""
    given = entries(5)
    async with a_sqlite(tmp_path) as vault:
        await vault.keep(given)
    with contextlib.closing(sqlite3.connect(tmp_path / "gharial.db")) as db:
        rows = db.execute("SELECT lookup, token, sealed FROM vault_token").fetchall()
    assert sorted(rows) == sorted((e.lookup, e.token, e.sealed) for e in given)


@needs_postgres
async def test_gateways_that_share_a_server_agree(server: Any):
    """Two gateways that start together make one table, and give the same values the same tokens."""
    server.psql(f"DROP TABLE IF EXISTS {TABLE};")
    given = entries(200)
    async with a_server_vault(server) as one, a_server_vault(server) as other:
        asked = [(vault, random.Random(n).sample(again(given, n), 150)) for n in range(10) for vault in (one, other)]
        answers = await asyncio.gather(*(vault.keep(rows) for vault, rows in asked))
        assert (one.trouble.failures, other.trouble.failures) == (0, 0)
    assert len({row for answer in answers for row in answer}) == len({r.lookup for a in answers for r in a})


@needs_postgres
async def test_rows_are_synced_whatever_the_database_says(server: Any):
    """A default of `synchronous_commit = off`, which may lose what was acknowledged, does not hold for the vault."""
    server.psql(f"DROP TABLE IF EXISTS {TABLE};")
    async with a_server_vault(server) as vault:
        await vault.keep(entries(1))
    server.psql(
        "CREATE TABLE IF NOT EXISTS seen (setting text); DELETE FROM seen;"
        "CREATE OR REPLACE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO seen VALUES (current_setting('synchronous_commit')); RETURN NEW; END $$;"
        f"CREATE TRIGGER note BEFORE INSERT ON {TABLE} FOR EACH ROW EXECUTE FUNCTION note();"
        "ALTER DATABASE postgres SET synchronous_commit = off;"
    )
    try:
        async with a_server_vault(server) as vault:
            await vault.keep(entries(1, 2))
        assert "on" in str(server.psql("SELECT setting FROM seen;")).split()
    finally:
        server.psql("ALTER DATABASE postgres RESET synchronous_commit;")


@needs_postgres
async def test_a_server_that_loses_a_row_is_refused(server: Any):
    """Where the row is not there after the commit (a trigger, a rule), nothing is handed out."""
    server.psql(f"DROP TABLE IF EXISTS {TABLE};")
    async with a_server_vault(server) as vault:
        await vault.keep(entries(1))
        server.psql(f"CREATE RULE lose AS ON INSERT TO {TABLE} DO INSTEAD NOTHING;")
        with pytest.raises(VaultUnavailable):
            await vault.keep(entries(1, 2))


@needs_postgres
async def test_a_server_fails_and_works_again_without_a_restart(server: Any):
    """Cut connections and a lost table are errors that name no value; the next question is asked anew."""
    server.psql(f"DROP TABLE IF EXISTS {TABLE};")
    given = entries(1)
    async with a_server_vault(server) as vault:
        await vault.keep(given)
        server.psql(f"ALTER TABLE {TABLE} RENAME TO elsewhere;")
        with pytest.raises(VaultUnavailable, match=r"^the database can't be used \(UndefinedTableError\)$"):
            await vault.keep(entries(1, 2))
        server.psql(f"ALTER TABLE elsewhere RENAME TO {TABLE};")
        assert list(await vault.keep(again(given, 3))) == given
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'gharial';")
        with contextlib.suppress(VaultUnavailable):
            await vault.keep(given)
        assert list(await vault.keep(again(given, 3))) == given
        assert vault.trouble.problem == ""


@needs_postgres
async def test_nobody_there_is_an_error_in_time():
    """Where no server listens the call is refused."""
    vault = PostgresVault(PostgresPlace("127.0.0.1", 1, "d", "u"), 5.0)
    with pytest.raises(VaultUnavailable):
        await vault.find([bytes(16)])
    assert vault.trouble.failures == 1
    await vault.close()
