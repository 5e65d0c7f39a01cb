"""What random tokens cost: a look-up beside bare sqlite3 on the same file, new ones beside a bare transaction.

python bench/vault.py [--rows N] [--json FILE]

Every answer is checked: a wrong one ends the bench with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from machine import describe_machine, machine_line

from gharial.adapters.store import SqliteVault, open_store
from gharial.crypto.keyset import create_keyset
from gharial.crypto.token import Binding
from gharial.crypto.vault import TOKEN_BYTES, Entry, EntryMaker
from gharial.gate.vault import ExchangeTokens, TokenBook

BATCH = 100
ROUNDS = 5
GOALS = {"look-up, of 100, from the vault": 6.0, "look-up, of 100, from memory": 1.0}
"""At most so many times what bare sqlite3 takes per look-up of the same rows."""

Work = Callable[[], Awaitable[None]]


async def best_us(work: Work, values: int) -> float:
    """Return microseconds per value: the best of several rounds, the one least disturbed by the rest of the machine."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        count = 0
        while (took := time.perf_counter() - began) < 0.3:
            await work()
            count += 1
        found.append(took / count / values)
    return min(found) * 1e6


def plain(number: int) -> bytes:
    """A value as steps hand it over: its type and its text."""
    return f"sann.person-{number}@ex.example".encode()


async def measure(rows: int, folder: Path) -> dict[str, float]:
    """Return microseconds per value of each rung, in a vault of `rows` rows."""
    keyset = create_keyset(os.urandom, 1.0)
    binding = Binding("default", "email", "client", "acme")
    maker = EntryMaker(keyset, binding)
    store = open_store(folder / "gharial.db")
    vault = SqliteVault(store)
    try:
        entries = [maker.make(plain(number), os.urandom(TOKEN_BYTES)) for number in range(rows)]
        for start in range(0, rows, 2_000):
            await vault.keep(entries[start : start + 2_000])
        step = max(1, rows // 1_000)
        return await _rungs(vault, folder, maker, entries[::step], [plain(n) for n in range(0, rows, step)])
    finally:
        store.close()


async def _rungs(
    vault: SqliteVault, folder: Path, maker: EntryMaker, entries: list[Entry], plains: list[bytes]
) -> dict[str, float]:
    bare = sqlite3.connect(folder / "gharial.db")
    bare_new = sqlite3.connect(folder / "bare.db", isolation_level=None)
    bare_new.execute("PRAGMA journal_mode = WAL")
    bare_new.execute("PRAGMA synchronous = FULL")
    bare_new.execute("CREATE TABLE t (lookup BLOB PRIMARY KEY, token BLOB UNIQUE, sealed BLOB) WITHOUT ROWID")
    at, book = 0, TokenBook(vault, os.urandom)

    def some(count: int) -> range:
        nonlocal at
        at = (at + count) % (len(entries) - count)
        return range(at, at + count)

    async def look_bare() -> None:
        for n in some(BATCH):
            row = bare.execute(
                "SELECT token, sealed FROM vault_token WHERE lookup = ?", (entries[n].lookup,)
            ).fetchone()
            assert row[0] == entries[n].token

    def look(count: int, *, fresh: bool) -> Work:
        async def run() -> None:
            tokens = ExchangeTokens(TokenBook(vault, os.urandom) if fresh else book)
            wanted = some(count)

            async def work() -> list[bytes]:
                return [tokens.token_of(maker, plains[n]) for n in wanted]

            assert await tokens.run(work) == [entries[n].token for n in wanted]

        return run

    async def resolve() -> None:
        wanted = some(BATCH)
        found = await vault.find([entries[n].token for n in wanted])
        assert len(found) == BATCH

    def insert_bare(count: int) -> Work:
        async def run() -> None:
            bare_new.execute("BEGIN IMMEDIATE")
            bare_new.executemany(
                "INSERT INTO t VALUES (?, ?, ?)",
                [(os.urandom(16), os.urandom(16), os.urandom(48)) for _ in range(count)],
            )
            bare_new.execute("COMMIT")

        return run

    def insert(count: int) -> Work:
        async def run() -> None:
            tokens = ExchangeTokens(book)
            new = [b"s" + os.urandom(20) for _ in range(count)]

            async def work() -> list[bytes]:
                return [tokens.token_of(maker, one) for one in new]

            assert len(set(await tokens.run(work))) == count

        return run

    def both(count: int) -> list[tuple[str, Work, int]]:
        return [
            (f"new, of {count}, bare sqlite3", insert_bare(count), count),
            (f"new, of {count}", insert(count), count),
        ]

    for _ in range(0, len(entries) - BATCH, BATCH):
        await look(BATCH, fresh=False)()
    rungs = [
        ("look-up, of 100, bare sqlite3", look_bare, BATCH),
        ("look-up, of 100, from memory", look(BATCH, fresh=False), BATCH),
        ("look-up, of 100, from the vault", look(BATCH, fresh=True), BATCH),
        ("look-up, of 1, from the vault", look(1, fresh=True), 1),
        ("come back, of 100", resolve, BATCH),
        *both(1),
        *both(BATCH),
    ]
    found = {name: await best_us(work, values) for name, work, values in rungs}
    bare.close()
    bare_new.close()
    return found


def main() -> int:
    """Print the table; 1 if a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    machine = describe_machine()
    print(machine_line(machine), f"\n{options.rows:,} rows, store in a folder of the system's for temporary files\n")
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(options.rows, Path(folder)))
    missed = 0
    print("| rung | µs per value | x bare sqlite3 | goal |\n|---|--:|--:|--:|")
    for name, us in found.items():
        kind = (
            "look-up, of 100, bare sqlite3"
            if not name.startswith("new")
            else f"{name.removesuffix(', bare sqlite3')}, bare sqlite3"
        )
        ratio, goal = us / found[kind], GOALS.get(name)
        missed += goal is not None and ratio > goal
        print(f"| {name} | {us:,.2f} | {ratio:.2f} | {goal or ''} |")
    if options.json:
        options.json.write_text(json.dumps({"machine": machine, "rows": options.rows, "us": found}, indent=1))
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
