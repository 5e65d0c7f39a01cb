"""Audit records as JSON lines in files of their own: appended, rotated, never rewritten, on disk when it says so."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from gharial.adapters.group_thread import GroupThread, Reply, answer_all
from gharial.model.errors import AuditUnwritable

MAX_WAITING_BYTES = 16_000_000
"""How much may wait for the disk; beyond it appending is refused."""

LINGER_S = 0.01
"""How long a line that nobody waits for may stay in memory, so that many are written with one write."""

_PROBE_BYTES = 65_536  # what must fit on the disk again before lines are taken
_NAME = re.compile(r"audit-(\d{8}T\d{6}\.\d{6}Z)-(\d{6,})\.jsonl")


class Disk(Protocol):
    """The few system calls that the audit file makes; each raises OSError. Tests count them and let them fail."""

    def open_new(self, path: Path) -> int:
        """Make a file that is not there yet, mode 0600, for appending, and make its name durable."""

    def write(self, fd: int, data: memoryview) -> int:
        """Append `data` or the first part of it; return how many bytes."""

    def sync(self, fd: int) -> None:
        """Return when everything written is on disk (fdatasync)."""

    def truncate(self, fd: int, size: int) -> None:
        """Cut the file back to `size` bytes."""

    def is_linked(self, fd: int) -> bool:
        """Whether the file still has a name."""

    def close(self, fd: int) -> None:
        """Close the file."""

    def remove(self, path: Path) -> None:
        """Remove a file."""


class RealDisk:
    """`Disk` on the operating system."""

    def open_new(self, path: Path) -> int:
        """See Disk."""
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError:
            os.close(fd)
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        return fd

    def write(self, fd: int, data: memoryview) -> int:
        """See Disk."""
        return os.write(fd, data)

    def sync(self, fd: int) -> None:
        """See Disk."""
        if sys.platform == "darwin":
            fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync alone leaves data in the drive's cache there
        else:
            os.fdatasync(fd)

    def truncate(self, fd: int, size: int) -> None:
        """See Disk."""
        os.ftruncate(fd, size)

    def is_linked(self, fd: int) -> bool:
        """See Disk."""
        return os.fstat(fd).st_nlink > 0

    def close(self, fd: int) -> None:
        """See Disk."""
        os.close(fd)

    def remove(self, path: Path) -> None:
        """See Disk."""
        path.unlink()


@dataclass(frozen=True, slots=True, eq=False)
class _Line:
    data: bytes = field(repr=False)
    reply: Reply | None  # None: not durable, nobody waits


@dataclass(slots=True, eq=False)
class _File:
    """The file that is written now. `size`: bytes of accepted lines; `unsynced`: some may not be on disk yet."""

    path: Path
    fd: int
    size: int = 0
    unsynced: bool = False


def open_audit(
    folder: Path,
    *,
    rotate_bytes: int = 256_000_000,
    max_waiting_bytes: int = MAX_WAITING_BYTES,
    probe_every_s: float = 1.0,
    now_s: Callable[[], float] = time.time,
    disk: Disk | None = None,
    on_change: Callable[[bool], None] = lambda _: None,
) -> AuditFile:
    """Begin a new audit file in `folder` (made with mode 0700 if it is not there); the caller closes it.

    `on_change(writable)` is called from the writer thread when the audit becomes unwritable, and when it recovers.
    Raises AuditUnwritable if no file can be begun.
    """
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        last = max((m.groups() for m in map(_NAME.fullmatch, os.listdir(folder)) if m), default=("", "0"))
        audit = AuditFile(
            folder, last, rotate_bytes, max_waiting_bytes, probe_every_s, now_s, disk or RealDisk(), on_change
        )
    except OSError as err:
        raise AuditUnwritable(f"audit files can't be written in {folder}: {_why(err)}") from None
    return audit


class AuditFile:
    """Implements `gate.ports.Audit`. Use `open_audit`.

    One thread collects the lines that wait, writes them with one write and, if one of them is durable, one fdatasync,
    and then answers. After any error the file is cut back to its last accepted line and *abandoned*: once an fsync has
    failed, a later one on the same file may say yes to data that is gone. Then every append is refused until a probe
    (written, synced and removed again, every `probe_every_s`) succeeds, which begins a new file. Lines that were
    accepted as not durable are kept in memory meanwhile and go first into the new file; of those it may then hold a
    line twice that the abandoned one has as well.
    """

    def __init__(
        self,
        folder: Path,
        last: tuple[str, ...],
        rotate_bytes: int,
        max_waiting_bytes: int,
        probe_every_s: float,
        now_s: Callable[[], float],
        disk: Disk,
        on_change: Callable[[bool], None],
    ) -> None:
        self.folder = folder
        self._rotate_bytes = rotate_bytes
        self._probe_every_s = probe_every_s
        self._now_s = now_s
        self._disk = disk
        self._on_change = on_change
        self._last_start, self._last_number = last[0], int(last[1])
        self._kept: list[_Line] = []
        self._announced = True
        self._broken = ""  # why nothing can be written, or empty
        self._closed = False
        self._file: _File | None = self._begin_file()
        self._thread = GroupThread[_Line](
            "gharial-audit",
            handle=self._handle,
            abandon=self._abandon,
            weigh=lambda line: len(line.data),
            max_waiting=max_waiting_bytes,
            max_group=4096,
            pause_s=lambda: self._probe_every_s if self._broken else None,
            linger_s=LINGER_S,
        )

    @property
    def writable(self) -> bool:
        """False from a failed write until a probe has succeeded."""
        return not self._broken

    async def append(self, line: bytes, *, durable: bool) -> None:
        """See the port.

        Raises ValueError for an empty line and for one that holds a newline: such a line would be read as two records.
        """
        if not durable:
            self.note(line)
            return
        reply = Reply.here()
        self._submit(line, reply)
        await reply.future

    def note(self, line: bytes) -> None:
        """See the port. Written in its order, within `LINGER_S` or with the next durable line. Raises as `append`."""
        self._submit(line, None)

    def _submit(self, line: bytes, reply: Reply | None) -> None:
        if not line or b"\n" in line or b"\r" in line:
            raise ValueError("an audit record is one line, not empty, without its newline")
        if self._broken:
            raise AuditUnwritable(self._broken)
        if not self._thread.submit(_Line(line + b"\n", reply), urgent=reply is not None):
            raise AuditUnwritable(f"the audit in {self.folder} is closed, or too much waits for its disk")

    def close(self) -> None:
        """Write what waits, sync, and close the file; one without a line is removed. A second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._thread.stop()
        if self._broken:
            self._probe()  # the last chance of the lines that were kept
        if self._file:
            with contextlib.suppress(OSError):
                self._finish(self._file)

    # --- in the writer thread --------------------------------------------------------------------------------------

    def _handle(self, group: list[_Line]) -> None:
        if self._broken:
            self._probe()
        self._refuse(group if self._broken else self._append(group))

    def _abandon(self, lines: list[_Line]) -> None:
        self._broken = f"the audit in {self.folder}: the writer thread has ended"
        self._refuse(lines)

    def _refuse(self, lines: list[_Line]) -> None:
        """Tell the waiting callers that their answers must not leave; keep the lines that nobody waits for."""
        self._kept += [line for line in lines if not line.reply]
        answer_all([(line.reply, AuditUnwritable(self._broken)) for line in lines if line.reply])

    def _append(self, lines: list[_Line]) -> list[_Line]:
        """Write the lines, file by file, and answer those that wait. Return what an error left unwritten."""
        while lines:
            try:
                file = self._file_for(len(lines[0].data))
                size, count = file.size, 0
                while count < len(lines) and (size == 0 or size + len(lines[count].data) <= self._rotate_bytes):
                    size += len(lines[count].data)
                    count += 1
                self._write(file, lines[:count])
            except OSError as err:
                self._break(err)
                return lines
            answer_all([(line.reply, None) for line in lines[:count] if line.reply])
            lines = lines[count:]
        return []

    def _write(self, file: _File, lines: list[_Line]) -> None:
        """Append the lines; sync if somebody waits for one. Raises OSError, and `file.size` is as before."""
        data = b"".join([line.data for line in lines])
        _write_all(self._disk, file.fd, data)
        if any(line.reply for line in lines):
            self._disk.sync(file.fd)
            file.unsynced = False
        else:
            file.unsynced = True
        file.size += len(data)

    def _file_for(self, length: int) -> _File:
        """Return a file with room for a line of `length`, a new one if need be. Raises OSError."""
        file = self._file
        if file and not self._disk.is_linked(file.fd):
            # Somebody removed it: what is written there would be on no disk.
            self._file = None
            self._disk.close(file.fd)
        elif file and file.size and file.size + length > self._rotate_bytes:
            self._finish(file)
        if not self._file:
            self._file = self._begin_file()
        return self._file

    def _begin_file(self) -> _File:
        """Make a file whose name sorts behind all that are there, also after the clock was set back."""
        start = datetime.fromtimestamp(self._now_s(), UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self._last_start = max(self._last_start, start)
        while True:
            self._last_number += 1
            path = self.folder / f"audit-{self._last_start}-{self._last_number:06d}.jsonl"
            try:
                return _File(path, self._disk.open_new(path))
            except FileExistsError:
                continue  # another gateway writes into the same folder

    def _finish(self, file: _File) -> None:
        """Sync and close a file; remove it if it holds nothing. Raises OSError."""
        if file.unsynced:
            self._disk.sync(file.fd)
        # Before close: whatever close answers, its number may belong to another file from then on.
        self._file = None
        self._disk.close(file.fd)
        if not file.size:
            self._disk.remove(file.path)

    def _break(self, err: OSError) -> None:
        """Cut the file back to its last accepted line, let go of it for good, and refuse from now on."""
        file, self._file = self._file, None
        if file:
            # If this fails, a torn line stays at the end of a file that nothing is appended to any more.
            with contextlib.suppress(OSError):
                self._disk.truncate(file.fd, file.size)
            with contextlib.suppress(OSError):
                self._disk.close(file.fd)
        self._broken = f"audit files can't be written in {self.folder}: {_why(err)}"
        self._announce(writable=False)

    def _probe(self) -> None:
        """See whether the disk takes data again; if so, begin a new file with the lines that were kept."""
        try:
            with _probe_file(self._disk, self.folder) as fd:
                _write_all(self._disk, fd, bytes(_PROBE_BYTES))
                self._disk.sync(fd)
        except OSError as err:
            self._broken = f"audit files can't be written in {self.folder}: {_why(err)}"
            return
        kept, self._kept, self._broken = self._kept, [], ""
        self._refuse(self._append(kept))
        if not self._broken:
            self._announce(writable=True)

    def _announce(self, *, writable: bool) -> None:
        if writable != self._announced:
            self._announced = writable
            self._on_change(writable)


def _write_all(disk: Disk, fd: int, data: bytes) -> None:
    with memoryview(data) as rest:
        done = 0
        while done < len(rest):
            done += disk.write(fd, rest[done:])


@contextlib.contextmanager
def _probe_file(disk: Disk, folder: Path) -> Iterator[int]:
    path = folder / f".probe-{secrets.token_hex(8)}"
    fd = disk.open_new(path)
    try:
        yield fd
    finally:
        try:
            disk.close(fd)
        finally:
            disk.remove(path)


def measure_fdatasync_p50_s(folder: Path, *, samples: int = 50) -> float:
    """Return the median time in seconds of appending 512 bytes and fdatasync on the disk of `folder`.

    It bounds what one durable audit line costs alone. Raises AuditUnwritable if the folder can't be written.
    """
    disk = RealDisk()
    times: list[float] = []
    try:
        with _probe_file(disk, folder) as fd:
            for _ in range(samples):
                start = time.perf_counter()
                _write_all(disk, fd, b"0" * 512)
                disk.sync(fd)
                times.append(time.perf_counter() - start)
    except OSError as err:
        raise AuditUnwritable(f"{folder} can't be written: {_why(err)}") from None
    return statistics.median(times)


def _why(err: OSError) -> str:
    return err.strerror or errno.errorcode.get(err.errno or 0, "I/O error")
