"""The audit file: durable when it says so, whole lines only, and closed to everything while its disk fails."""

from __future__ import annotations

import asyncio
import errno
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.effort import examples

from gharial.adapters.audit_file import AuditFile, RealDisk, measure_fdatasync_p50_s, open_audit
from gharial.model.errors import AuditUnwritable

WRITE_FOR_EVER = """
import asyncio, itertools, os, sys
from pathlib import Path
from gharial.adapters.audit_file import open_audit

async def clerk(audit, name):
    for n in itertools.count():
        line = b'{"id":"%s-%d","pad":"%s"}' % (name, n, b"x" * (n % 300))
        await audit.append(line, durable=n % 5 != 0)
        if n % 5:
            os.write(1, line + b"\\n")

async def main():
    audit = open_audit(Path(sys.argv[1]), rotate_bytes=100_000)
    await asyncio.gather(*(clerk(audit, b"c%d" % i) for i in range(20)))

asyncio.run(main())
"""

FULL_DISK = """
import asyncio, resource, signal, sys, threading
from pathlib import Path
from gharial.adapters.audit_file import open_audit
from gharial.model.errors import AuditUnwritable

def limit(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

async def main():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    back = threading.Event()
    audit = open_audit(Path(sys.argv[1]), probe_every_s=0.01, on_change=lambda ok: back.set() if ok else None)
    acknowledged, refused = [], 0
    limit(10_001)
    for n in range(200):
        line = b'{"id":%d,"pad":"%s"}' % (n, b"x" * 100)
        try:
            await audit.append(line, durable=True)
            acknowledged.append(line)
        except AuditUnwritable as err:
            assert "File too large" in str(err), err
            refused += 1
    assert (len(acknowledged), refused) == (84, 116), (len(acknowledged), refused)
    assert not audit.writable
    limit(resource.RLIM_INFINITY)
    assert back.wait(10)
    await audit.append(b'{"id":"after"}', durable=True)
    audit.close()
    first, second = sorted(Path(sys.argv[1]).iterdir())
    assert first.read_bytes().splitlines() == acknowledged
    assert second.read_bytes() == b'{"id":"after"}\\n'
    print("held")

asyncio.run(main())
"""


class FaultyDisk(RealDisk):
    """The real disk, counting its syncs; calls named in `faults` fail with that error instead."""

    def __init__(self) -> None:
        self.faults: dict[str, int] = {}
        self.syncs = 0
        self.opened: list[Path] = []
        self.gate = threading.Event()  # a write waits for it, so that a test can fill the queue meanwhile
        self.gate.set()

    def _fail(self, call: str) -> None:
        if call in self.faults:
            code = self.faults[call]
            raise OSError(code, os.strerror(code))

    def open_new(self, path: Path) -> int:
        self._fail("open_new")
        self.opened.append(path)
        return super().open_new(path)

    def write(self, fd: int, data: memoryview) -> int:
        self.gate.wait()
        if "write" in self.faults:
            super().write(fd, data[: len(data) // 2])  # half of it arrives before the disk is full
        self._fail("write")
        return super().write(fd, data[:1000])  # short writes are legal

    def sync(self, fd: int) -> None:
        self.syncs += 1
        self._fail("sync")
        super().sync(fd)

    def truncate(self, fd: int, size: int) -> None:
        self._fail("truncate")
        super().truncate(fd, size)


class Recovery:
    """What `on_change` reports, and a way to wait for the recovery."""

    def __init__(self) -> None:
        self.told: list[bool] = []
        self._back = threading.Event()

    def __call__(self, writable: bool) -> None:
        self.told.append(writable)
        if writable:
            self._back.set()

    async def wait(self) -> None:
        assert await asyncio.to_thread(self._back.wait, 10)


@pytest.fixture
def disk() -> FaultyDisk:
    return FaultyDisk()


@pytest.fixture
def recovery() -> Recovery:
    return Recovery()


@pytest.fixture
def audit(tmp_path: Path, disk: FaultyDisk, recovery: Recovery) -> Iterator[AuditFile]:
    audit = open_audit(tmp_path / "audit", disk=disk, probe_every_s=0.005, on_change=recovery)
    yield audit
    disk.faults.clear()
    disk.gate.set()
    audit.close()


def files(audit: AuditFile) -> list[bytes]:
    return [path.read_bytes() for path in sorted(audit.folder.glob("audit-*.jsonl"))]


async def test_waiting_lines_share_one_write_and_one_sync(audit, disk):
    """Group commit: what queues up behind a slow write becomes durable by one fdatasync, in its order."""
    disk.gate.clear()
    first = asyncio.ensure_future(audit.append(b"first", durable=True))
    rest = [asyncio.ensure_future(audit.append(b"%d" % n, durable=True)) for n in range(300)]
    await asyncio.sleep(0)  # lets all of them be queued
    disk.gate.set()
    await asyncio.gather(first, *rest)
    assert disk.syncs <= 3
    assert files(audit)[0].splitlines() == [b"first", *(b"%d" % n for n in range(300))]


async def test_a_line_that_is_not_durable_waits_for_nobody_and_keeps_its_place(audit, disk):
    """Without `durable` append returns while the disk is still busy, and the line stands before a later one."""
    disk.gate.clear()
    await audit.append(b"a", durable=False)
    await audit.append(b"b", durable=False)
    disk.gate.set()
    await audit.append(b"c", durable=True)
    assert files(audit) == [b"a\nb\nc\n"]
    assert disk.syncs == 1


def test_what_was_acknowledged_survives_kill_9(tmp_path):
    """Every durable line whose append returned is on disk and whole after SIGKILL, over several rotations."""
    for round_, acknowledgements in enumerate((1, 100, 3000)):
        folder = tmp_path / str(round_)
        child = subprocess.Popen([sys.executable, "-c", WRITE_FOR_EVER, str(folder)], stdout=subprocess.PIPE)
        assert child.stdout
        lines = [child.stdout.readline() for _ in range(acknowledgements)]
        child.send_signal(signal.SIGKILL)
        lines += child.stdout.readlines()
        child.wait()
        acknowledged = [line for line in lines if line.endswith(b"\n")]
        there = [line for path in sorted(folder.iterdir()) for line in path.read_bytes().splitlines(keepends=True)]
        assert len(acknowledged) >= acknowledgements
        assert set(acknowledged) <= set(there)
        for line in there[:-1]:
            json.loads(line)


def test_a_really_full_disk_refuses_cuts_the_half_line_and_recovers(tmp_path):
    """At a real limit of file size: refusals, no half line, what was acknowledged is there, then a new file."""
    command = [sys.executable, "-c", FULL_DISK, str(tmp_path / "audit")]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("held\n", "")


class FullDevice(RealDisk):
    """A disk on which every file is /dev/full."""

    def open_new(self, path: Path) -> int:
        return os.open("/dev/full", os.O_WRONLY)

    def remove(self, path: Path) -> None:
        return None

    def is_linked(self, fd: int) -> bool:
        return True


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
async def test_dev_full_refuses_durable_lines_and_then_every_line(tmp_path):
    """On the kernel's own full device nothing is acknowledged."""
    audit = open_audit(tmp_path, disk=FullDevice(), probe_every_s=0.005)
    for durable in (True, True, False):
        with pytest.raises(AuditUnwritable, match="No space left"):
            await audit.append(b"line", durable=durable)
    audit.close()


@pytest.mark.parametrize("call", ["write", "sync", "is_linked"])
async def test_after_a_failure_the_file_is_abandoned_and_a_new_one_begun(tmp_path, recovery, call):
    """All waiters and later appends are refused; then a new file goes on, and the old one holds whole lines."""

    class Disk(FaultyDisk):
        def is_linked(self, fd: int) -> bool:
            self._fail("is_linked")
            return super().is_linked(fd)

    disk = Disk()
    audit = open_audit(tmp_path, disk=disk, probe_every_s=0.005, on_change=recovery)
    await audit.append(b"good", durable=True)
    disk.faults[call] = errno.EIO
    if call != "sync":
        disk.faults["open_new"] = errno.ENOSPC  # keeps the probe from succeeding before the test has looked
    waiting = [audit.append(b"lost %d" % n, durable=True) for n in range(3)]
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [AuditUnwritable] * 3
    for durable in (False, True):
        with pytest.raises(AuditUnwritable):
            await audit.append(b"refused", durable=durable)
    assert not audit.writable
    disk.faults.clear()
    await recovery.wait()
    await audit.append(b"after", durable=True)
    audit.close()
    assert files(audit) == [b"good\n", b"after\n"]
    assert recovery.told == [False, True]


async def test_a_tail_that_cannot_be_cut_away_is_never_continued(audit, disk, recovery):
    """If even the truncation fails, the torn line is the last of its file: no good line follows it."""
    await audit.append(b"good", durable=True)
    disk.faults |= {"write": errno.ENOSPC, "truncate": errno.EIO, "open_new": errno.ENOSPC}
    with pytest.raises(AuditUnwritable):
        await audit.append(b"torn-line", durable=True)
    disk.faults.clear()
    await recovery.wait()
    await audit.append(b"after", durable=True)
    assert files(audit) == [b"good\ntorn-", b"after\n"]


async def test_lines_nobody_waited_for_outlive_the_failure(audit, disk, recovery):
    """Accepted lines that were not durable yet are written first after the recovery, in their order."""
    disk.gate.clear()
    disk.faults |= {"write": errno.ENOSPC, "open_new": errno.ENOSPC}
    for n in range(3):
        await audit.append(b"kept %d" % n, durable=False)
    lost = asyncio.ensure_future(audit.append(b"lost", durable=True))
    await asyncio.sleep(0)  # lets it be queued
    disk.gate.set()
    with pytest.raises(AuditUnwritable):
        await lost
    disk.faults.clear()
    await recovery.wait()
    await audit.append(b"after", durable=True)
    assert files(audit) == [b"", b"kept 0\nkept 1\nkept 2\nafter\n"]


async def test_a_failed_probe_leaves_nothing_behind(audit, disk, recovery):
    """However often the disk is probed, no probe file stays in the folder."""
    disk.faults["sync"] = errno.EIO
    with pytest.raises(AuditUnwritable):
        await audit.append(b"lost", durable=True)
    while disk.syncs < 10:
        await asyncio.to_thread(lambda: None)
    disk.faults.clear()
    await recovery.wait()
    assert [path.name for path in audit.folder.iterdir() if not path.name.startswith("audit-")] == []


async def test_too_much_waiting_is_refused(tmp_path, disk):
    """The queue is bounded in bytes; beyond it append refuses at once."""
    audit = open_audit(tmp_path, disk=disk, max_waiting_bytes=100)
    disk.gate.clear()
    await audit.append(b"x" * 60, durable=False)
    with pytest.raises(AuditUnwritable, match="too much waits"):
        await audit.append(b"x" * 60, durable=False)
    disk.gate.set()
    audit.close()


@settings(max_examples=examples(25))
@given(st.lists(st.tuples(st.integers(1, 60), st.booleans()), max_size=40), st.integers(10, 200))
def test_rotation_loses_and_splits_nothing(tmp_path_factory, lines, rotate_bytes):
    """Law: the files in the order of their names hold exactly the lines, whole; none but a single line's outgrows."""
    folder = tmp_path_factory.mktemp("audit")
    want = [bytes([97 + n % 26]) * length for n, (length, _) in enumerate(lines)]

    async def write() -> None:
        audit = open_audit(folder, rotate_bytes=rotate_bytes)
        await asyncio.gather(*(audit.append(line, durable=d) for line, (_, d) in zip(want, lines, strict=True)))
        audit.close()

    asyncio.run(write())
    bodies = [path.read_bytes() for path in sorted(folder.iterdir())]
    assert b"".join(bodies).splitlines() == want
    assert all(body.endswith(b"\n") and (len(body) <= rotate_bytes or body.count(b"\n") == 1) for body in bodies)


async def test_names_sort_in_the_order_of_writing_even_if_the_clock_goes_back(tmp_path):
    """Each start and each rotation begins a file that sorts last; nothing there is overwritten or continued."""
    (tmp_path / "audit-20300101T000000.000000Z-000007.jsonl").write_bytes(b'whole\n{"torn')
    clock = itertools.count(1_700_000_000.0, -1000)
    for text in (b"one", b"two"):
        audit = open_audit(tmp_path, rotate_bytes=5, now_s=lambda: float(next(clock)))
        await audit.append(text, durable=True)
        await audit.append(text, durable=True)
        audit.close()
    assert files(audit) == [b'whole\n{"torn', b"one\n", b"one\n", b"two\n", b"two\n"]


async def test_two_gateways_in_one_folder_keep_apart(tmp_path):
    """Even with the same start and number two writers never share a file."""
    one = open_audit(tmp_path, now_s=lambda: 0.0)
    two = open_audit(tmp_path, now_s=lambda: 0.0)
    await one.append(b"one", durable=True)
    await two.append(b"two", durable=True)
    one.close()
    two.close()
    assert files(one) == [b"one\n", b"two\n"]


async def test_a_file_that_somebody_removed_is_not_written_on(audit):
    """A line is not acknowledged into a file without a name; a new file is begun."""
    await audit.append(b"one", durable=True)
    next(audit.folder.iterdir()).unlink()
    await audit.append(b"two", durable=True)
    assert files(audit) == [b"two\n"]


async def test_folder_and_files_are_private(tmp_path):
    """The folder is 0700 and its files 0600, whatever the umask."""
    before = os.umask(0)
    try:
        audit = open_audit(tmp_path / "new" / "audit")
        await audit.append(b"line", durable=True)
    finally:
        os.umask(before)
    assert audit.folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in audit.folder.iterdir()] == [0o600]
    audit.close()


async def test_a_start_without_a_line_leaves_no_file(tmp_path):
    """Restarts do not fill the folder with empty files."""
    open_audit(tmp_path).close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("line", [b"", b"one\n", b'{"a":\n1}', b"one\rtwo"])
async def test_a_line_that_is_not_one_line_is_a_bug(audit, line):
    """A record that would be read as two is not written at all."""
    with pytest.raises(ValueError, match="one line"):
        await audit.append(line, durable=True)


def test_a_folder_that_cannot_be_written_is_told_at_the_start(tmp_path):
    """No gateway starts whose audit has no place."""
    (tmp_path / "file").touch()
    with pytest.raises(AuditUnwritable, match=r"Not a directory|File exists"):
        open_audit(tmp_path / "file")
    with pytest.raises(AuditUnwritable):
        measure_fdatasync_p50_s(tmp_path / "nowhere")


def test_the_sync_time_of_the_disk_is_measured(tmp_path):
    """The figure is a plausible time, and the folder is as before."""
    assert 0 < measure_fdatasync_p50_s(tmp_path, samples=5) < 5
    assert list(tmp_path.iterdir()) == []
