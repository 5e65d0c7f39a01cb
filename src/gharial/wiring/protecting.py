"""What `gharial protect` does: a JSON document as a whole, or rows of NDJSON in constant memory, through one gate."""

from __future__ import annotations

import contextlib
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from gharial.adapters.replace_file import sync_folder
from gharial.gate.direct import JSON, LINES
from gharial.gate.vouch import Caller
from gharial.model.errors import (
    BodyTooLarge,
    ConfigInvalid,
    Fault,
    GharialError,
    MediaUnreadable,
    OutputUnwritable,
    Problem,
)
from gharial.policy.facts import Value
from gharial.policy.samples import caller_of
from gharial.wiring.library import Gharial
from gharial.wiring.policy_explain import facts_of_words

MAX_PENDING_ROWS = 64
"""Rows that are under way at once: their records reach the disk with one write."""

MAX_PENDING_BYTES = 8_000_000
"""How many bytes of rows may be under way before the first of them is waited for."""

MAX_ROWS_NAMED = 10
"""Refused rows that are named; the others are counted."""

_DISCARD_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Asking:
    """Who asks, in the words of the command line, and for what."""

    as_: str
    stated: Mapping[str, Value] = field(default_factory=dict)
    route: str = ""
    params: Mapping[str, str] = field(default_factory=dict)


@dataclass(slots=True)
class Rows:
    """What came of rows. `refused` counts them by the code of their refusal; `first` are (row, code), from 1."""

    read_bytes: int = 0
    written: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    first: list[tuple[int, str]] = field(default_factory=list)

    @property
    def number(self) -> int:
        """How many rows have been decided."""
        return self.written + self.refused.total()


class Sink(Protocol):
    """Where bytes go."""

    def write(self, data: bytes, /) -> object: ...


class Protector:
    """One gate, one caller, one route: what a run of the command has in common."""

    def __init__(self, gate: Gharial, asking: Asking) -> None:
        """Raises ConfigInvalid, CallerInvalid, RouteUnfit for words that can't be read."""
        self._gate = gate
        self._asking = asking
        policy = gate.policy_of(asking.route, asking.params)
        found, _ = caller_of(facts_of_words(policy, asking.as_, asking.stated))
        self._caller = Caller(
            client=found.client,
            user=found.user,
            team=found.team,
            roles=found.roles,
            claims=found.claims,
            purpose=found.purpose,
            country=found.country,
            network=found.network,
        )

    def document(self, source: BinaryIO) -> bytes:
        """Return one JSON document protected. Raises GharialError; of one that is too large no more is read."""
        return self._submit(source.read(self._gate.max_bytes + 1), JSON).result()

    def rows(self, source: BinaryIO, sink: Sink, on_progress: Callable[[Rows], None]) -> Rows:
        """Protect NDJSON row by row, in order. A row that can't be read is left out and counted; blank lines are not.

        A row is read as an answer of one line is (docs/formats.md, Rows), not as a document. Raises GharialError for
        what is no row's own fault (a full disk, a key that is missing, a policy that can't read rows): what was written
        by then are whole rows.
        """
        done = Rows()
        waiting: deque[tuple[int, Future[bytes] | None]] = deque()
        pending = 0
        try:
            for line, length in self._lines(source):
                waiting.append((length, None if line is None else self._submit(line, LINES)))
                pending += length
                while len(waiting) >= MAX_PENDING_ROWS or (pending > MAX_PENDING_BYTES and waiting):
                    pending -= self._settle(waiting.popleft(), sink, done)
                    on_progress(done)
            while waiting:
                self._settle(waiting.popleft(), sink, done)
                on_progress(done)
        finally:
            for _, future in waiting:
                if future is not None:
                    future.cancel()
        return done

    def _submit(self, text: bytes, media_type: str) -> Future[bytes]:
        asking = self._asking
        return self._gate.submit(
            text, caller=self._caller, route=asking.route, params=asking.params, media_type=media_type
        )

    def _settle(self, row: tuple[int, Future[bytes] | None], sink: Sink, done: Rows) -> int:
        """Wait for a row and write it, or count why not. Return its length."""
        length, future = row
        done.read_bytes += length
        try:
            if future is None:
                raise BodyTooLarge
            text = future.result()
        except GharialError as error:
            # What the policy says of lines holds for every row alike.
            if error.fault is not Fault.UPSTREAM or isinstance(error, MediaUnreadable):
                raise
            done.refused[error.code] += 1
            if len(done.first) < MAX_ROWS_NAMED:
                done.first.append((done.number, error.code))
            return length
        sink.write(text.removesuffix(b"\n") + b"\n")
        done.written += 1
        return length

    def _lines(self, source: BinaryIO) -> Iterator[tuple[bytes | None, int]]:
        """Yield (row, its length as it was read); None for a row that is longer than a body may be."""
        limit = self._gate.max_bytes
        while line := source.readline(limit + 2):
            length = len(line)
            row = line.rstrip(b"\r\n")
            if len(row) > limit:
                while not line.endswith(b"\n") and (line := source.readline(_DISCARD_BYTES)):
                    pass
                yield None, length
            elif row.strip(b" \t\r"):
                yield row, length


def read_params(words: tuple[str, ...]) -> dict[str, str]:
    """Read `NAME=VALUE` words. Raises ConfigInvalid, which quotes none of them."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name or name in found:
            raise ConfigInvalid([Problem("--param", 1, 1, "write each parameter once, as NAME=VALUE")])
        found[name] = value
    return found


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Yield a file, mode 0600, that comes to stand at `path` when the block ends well, and else leaves no trace.

    What is no file (a pipe, a device) is written as it comes. Raises OutputUnwritable.
    """
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                yield stream
            return
        handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        fresh.replace(path.resolve())
        sync_folder(path.resolve().parent)
    except OSError as error:
        raise OutputUnwritable(f"{path} can't be written ({error.strerror or type(error).__name__})") from None
    finally:
        with contextlib.suppress(OSError):
            fresh.unlink(missing_ok=True)
