"""Recordings as JSON lines in a file of mode 0600: made and written by a thread, bounded in time, number and size.

Whatever goes wrong here ends the recording and touches nothing else: exchanges only put themselves on a queue, and
where that is full they are counted as lost. A part of the disk is left free for those who need it more.
"""

from __future__ import annotations

import contextlib
import enum
import errno
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gharial.adapters.audit_file import Disk, RealDisk
from gharial.adapters.group_thread import GroupThread
from gharial.gate.recording import Describer, Sighting
from gharial.model.errors import AlreadyExists, GharialError, RequestMalformed
from gharial.model.recording import dump_exchange

MAX_WAITING_BYTES = 64_000_000
"""How much, bodies for the most part, may wait to be recorded; what comes beyond it is lost."""
KEEP_FREE_BYTES = 256_000_000
"""What a recording leaves free on the disk: the audit is written there too, and without it nothing may leave."""
_OVERHEAD_BYTES = 1_000
_LOOK_EVERY_S = 0.5


class Ended(enum.StrEnum):
    """Why a recording ended."""

    STOPPED = "stopped"
    TIME = "time"
    EXCHANGES = "exchanges"
    SIZE = "size"
    DISK = "disk"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Bounds:
    """When a recording ends by itself. `routes`: names of those that are recorded; none means all."""

    until_s: float
    exchanges: int
    size_bytes: int
    routes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class RecordingState:
    """Where a recording stands. `ended` is None while it runs; `lost` counts exchanges that are not in the file."""

    path: Path
    until_s: float
    exchanges: int
    size_bytes: int
    lost: int
    ended: Ended | None


def free_bytes(folder: Path) -> int:
    """Return what is free on the disk of a folder for whoever is not root."""
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


class RecordingFile:
    """Implements `gate.recording.Recorder`; `close` it. Begins with an empty file, which must not be there before.

    `on_end` is called once, from any thread, when it takes no more. Raises AlreadyExists, and RequestMalformed where
    no file can be made.
    """

    def __init__(
        self,
        path: Path,
        bounds: Bounds,
        describer: Describer,
        *,
        now_s: Callable[[], float],
        on_end: Callable[[], None],
        disk: Disk | None = None,
        free_bytes: Callable[[Path], int] = free_bytes,
        max_waiting_bytes: int = MAX_WAITING_BYTES,
    ) -> None:
        self._path = path
        self._bounds = bounds
        self._describer = describer
        self._now_s = now_s
        self._on_end = on_end
        self._disk = disk or RealDisk()
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        self._exchanges = 0
        self._size = 0
        self._lost = 0
        self._ended: Ended | None = None
        self._fd: int | None = _open_new(self._disk, path)
        self._thread = GroupThread[Sighting](
            "gharial-recording",
            handle=self._handle,
            abandon=self._abandon,
            weigh=lambda seen: len(seen.body) + _OVERHEAD_BYTES,
            max_waiting=max_waiting_bytes,
            max_group=64,
            pause_s=lambda: None if self._ended else _LOOK_EVERY_S,
        )

    @property
    def state(self) -> RecordingState:
        """Where it stands now."""
        with self._lock:
            return RecordingState(
                self._path, self._bounds.until_s, self._exchanges, self._size, self._lost, self._ended
            )

    def wants(self, route: str) -> bool:
        """See Recorder."""
        return self._ended is None and (not self._bounds.routes or route in self._bounds.routes)

    def take(self, sighting: Sighting) -> None:
        """See Recorder."""
        if self._ended is None and not self._thread.submit(sighting):
            self._lose(1)

    def close(self) -> None:
        """Write what waits and end the recording; returns when that is done. A second call does nothing."""
        self._thread.stop()
        self._end(Ended.STOPPED)

    # --- in the thread ------------------------------------------------------------------------------------------

    def _handle(self, group: list[Sighting]) -> None:
        for seen in group:
            if self._ended is not None:
                return
            if seen.at_s >= self._bounds.until_s:
                self._end(Ended.TIME)
                return
            self._record(seen)
        if self._ended is None and self._now_s() >= self._bounds.until_s:
            self._end(Ended.TIME)

    def _record(self, seen: Sighting) -> None:
        try:
            line = dump_exchange(self._describer.describe(seen)) + b"\n"
        except (GharialError, UnicodeEncodeError):
            # A body that could be read once can be read twice; but a claim may hold what is no text.
            self._lose(1)
            return
        except Exception:  # noqa: BLE001 - this thread's outermost boundary: the text of a bug could quote a body
            self._lose(1)
            self._end(Ended.FAILED)
            return
        if self._size + len(line) > self._bounds.size_bytes:
            self._end(Ended.SIZE)
        elif not self._write(line):
            self._end(Ended.DISK)
        else:
            with self._lock:
                self._exchanges += 1
                self._size += len(line)
            if self._exchanges >= self._bounds.exchanges:
                self._end(Ended.EXCHANGES)

    def _write(self, line: bytes) -> bool:
        """Append a whole line, or leave the file as it was and return False."""
        fd = self._fd
        if fd is None:
            return False
        try:
            if self._free_bytes(self._path.parent) < KEEP_FREE_BYTES + len(line):
                return False
            rest = memoryview(line)
            while rest:
                rest = rest[self._disk.write(fd, rest) :]
        except OSError:
            with contextlib.suppress(OSError):
                self._disk.truncate(fd, self._size)
            return False
        return True

    def _abandon(self, group: list[Sighting]) -> None:
        """The thread ends by a bug of ours: so does the recording, and nothing else."""
        self._lose(len(group))
        self._end(Ended.FAILED)

    def _lose(self, count: int) -> None:
        with self._lock:
            self._lost += count

    def _end(self, why: Ended) -> None:
        with self._lock:
            if self._ended is not None:
                return
            self._ended = why
            fd, self._fd = self._fd, None
        if fd is not None:
            with contextlib.suppress(OSError):
                self._disk.sync(fd)
            with contextlib.suppress(OSError):
                self._disk.close(fd)
        self._on_end()


def _open_new(disk: Disk, path: Path) -> int:
    try:
        return disk.open_new(path)
    except FileExistsError:
        raise AlreadyExists(f"{path} is there already; a recording never writes over a file") from None
    except OSError as error:
        name = errno.errorcode.get(error.errno or 0, "unknown")
        raise RequestMalformed(f"{path} can't be written: {error.strerror or name}") from None
