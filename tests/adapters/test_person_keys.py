"""Where keys of people are kept: what is there first stays, and of a destroyed key no byte is left in any file."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gharial.adapters.memory import MemoryPersonKeys
from gharial.adapters.store import SqlitePersonKeys, open_store
from gharial.crypto.keyset import create_keyset
from gharial.crypto.subject import PersonKey, find_subject, new_person_key
from gharial.gate.ports import PersonKeys
from gharial.model.errors import VaultUnavailable

KEYSET = create_keyset(random.Random(51).randbytes, 1.0)


def a_row(person: str, seed: int = 1) -> PersonKey:
    return new_person_key(KEYSET, "default", person, random.Random(f"{person}{seed}").randbytes, 7.0)


def a_tombstone(person: str, at_s: float = 9.0) -> PersonKey:
    return PersonKey(person, random.Random(f"grave {person} {at_s}").randbytes(16), b"", 0.0, at_s)


@pytest.fixture(params=["sqlite", "memory"])
def keys(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PersonKeys]:
    if request.param == "memory":
        yield MemoryPersonKeys()
        return
    store = open_store(tmp_path / "gharial.db")
    yield SqlitePersonKeys(store)
    store.close()


def bytes_of(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file())


async def test_the_first_key_of_a_person_stays(keys: PersonKeys):
    """Whoever asks later gets the one that is there, by person and by handle; others are missing."""
    ann, bob = a_row("ann"), a_row("bob")
    assert list(await keys.keep([ann])) == [ann]
    assert list(await keys.keep([bob, a_row("ann", 2)])) == [bob, ann]
    assert dict(await keys.find([ann.handle, b"?" * 16])) == {ann.handle: ann}


async def test_an_erased_person_has_a_grave_and_no_key(keys: PersonKeys):
    """Found as erased by handle; a new key is not taken; the time of the first erasure stays."""
    ann, bob = a_row("ann"), a_row("bob")
    await keys.keep([ann, bob])
    (grave,) = await keys.erase([a_tombstone("ann")])
    assert grave == PersonKey("ann", ann.handle, b"", 7.0, 9.0)
    assert list(await keys.erase([a_tombstone("ann", 11.0)])) == [grave]
    assert list(await keys.keep([a_row("ann", 2), bob])) == [grave, bob]
    assert dict(await keys.find([ann.handle])) == {ann.handle: grave}


async def test_somebody_who_was_never_seen_can_be_erased(keys: PersonKeys):
    """There is a grave, and no key is made from then on."""
    tombstone = a_tombstone("nobody")
    assert list(await keys.erase([tombstone])) == [tombstone]
    assert list(await keys.keep([a_row("nobody")])) == [tombstone]


async def test_what_is_forgotten_is_the_person_not_the_grave(keys: PersonKeys):
    """A new key is taken then; the old handle is still of an erased person. Who was not erased is not forgotten."""
    ann, bob = a_row("ann"), a_row("bob")
    await keys.keep([ann, bob])
    await keys.erase([a_tombstone("ann"), a_tombstone("never")])
    assert await keys.forget(["ann", "bob", "never", "who"]) == 2
    new = a_row("ann", 2)
    assert list(await keys.keep([new, a_row("bob", 2)])) == [new, bob]
    assert (await keys.find([ann.handle]))[ann.handle].erased_s == 9.0
    await keys.erase([a_tombstone("ann", 12.0)])
    assert await keys.forget(["ann"]) == 1


async def test_no_file_holds_a_byte_of_a_destroyed_key(tmp_path: Path):
    """Of thousands of keys, kept at many times and erased at random: not in the database, nor in its log, nor later."""
    draw = random.Random(3)
    store = open_store(tmp_path / "gharial.db")
    keys = SqlitePersonKeys(store)
    rows = [a_row(f"p{number}") for number in range(3_000)]
    gone: list[PersonKey] = []
    for start in range(0, len(rows), 500):
        await keys.keep(rows[start : start + 500])
        chosen = draw.sample([row for row in rows[: start + 500] if row not in gone], 60)
        await keys.erase([a_tombstone(row.person) for row in chosen])
        gone += chosen
        data = bytes_of(tmp_path)
        # The last 48 bytes are key and authenticator; any part of them would be one too many.
        assert not [row.person for row in gone if any(row.wrapped[at : at + 16] in data for at in (5, 17, 33, 49))]
    living = next(row for row in rows if row not in gone)
    assert living.wrapped in bytes_of(tmp_path)
    assert find_subject(KEYSET, "default", (await keys.find([living.handle]))[living.handle]) is not None
    store.close()


async def test_while_another_program_reads_the_log_the_erasure_is_not_reported(tmp_path: Path):
    """The key is dead at once; that its bytes are gone is only said when they are, by erasing once more."""
    store = open_store(tmp_path / "gharial.db")
    keys = SqlitePersonKeys(store)
    ann = a_row("ann")
    await keys.keep([ann])
    reader = sqlite3.connect(tmp_path / "gharial.db")
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM person").fetchone()
    with pytest.raises(VaultUnavailable, match="erase once more"):
        await keys.erase([a_tombstone("ann")])
    assert (await keys.find([ann.handle]))[ann.handle].erased_s == 9.0
    reader.close()
    await keys.erase([a_tombstone("ann", 11.0)])
    assert ann.wrapped[17:] not in bytes_of(tmp_path)
    store.close()


WRITER = """
import asyncio, sys
sys.path.insert(0, sys.argv[2])
from pathlib import Path
from test_person_keys import a_row, a_tombstone
from gharial.adapters.store import SqlitePersonKeys, open_store

async def main():
    keys = SqlitePersonKeys(open_store(Path(sys.argv[1])))
    for number in range(100000):
        await keys.keep([a_row(f"p{number}")])
        print("kept", number, flush=True)
        if number % 3 == 0:
            await keys.erase([a_tombstone(f"p{number}")])
            print("erased", number, flush=True)

asyncio.run(main())
"""


async def test_kill_9_between_loses_no_key_and_brings_none_back(tmp_path: Path):
    """What was acknowledged holds: kept keys are there, destroyed ones are in no file, not even in the log."""
    process = subprocess.Popen(  # noqa: ASYNC220 - our own, and read line by line
        [sys.executable, "-c", WRITER, str(tmp_path / "gharial.db"), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    seen: dict[int, str] = {}
    for line in process.stdout:
        what, number = line.split()
        seen[int(number)] = what
        if len(seen) == 150:
            os.kill(process.pid, signal.SIGKILL)
            break
    for line in process.stdout:
        words = line.split()
        if len(words) == 2:
            seen[int(words[1])] = words[0]
    process.wait()
    process.stdout.close()
    data = bytes_of(tmp_path)
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in sorted(tmp_path.glob("gharial.db*")):  # noqa: ASYNC240
        shutil.copy(file, copy)
    store = open_store(copy / "gharial.db")
    rows = {number: a_row(f"p{number}") for number in seen}
    found = await SqlitePersonKeys(store).find([row.handle for row in rows.values()])
    store.close()
    last = max(seen)
    for number, what in seen.items():
        if what == "erased":
            assert found[rows[number].handle].erased_s == 9.0
            assert rows[number].wrapped[17:] not in data
        elif number != last:
            assert found[rows[number].handle] == rows[number]
