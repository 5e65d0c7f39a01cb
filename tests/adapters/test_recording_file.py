"""The recording's file: whole lines, private, bounded; whatever fails ends it and touches no call."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.gate_world import World

from gharial.adapters.audit_file import Disk, RealDisk
from gharial.adapters.recording_file import KEEP_FREE_BYTES, Bounds, Ended, RecordingFile
from gharial.gate.recording import Describer, Sighting
from gharial.model.errors import AlreadyExists, RequestMalformed
from gharial.model.recording import RecordedExchange, parse_exchange
from gharial.wiring.recordings import FileRecordings

ANN = {"customerId": 42, "fullName": "Ann", "email": "ann@ex.org", "plan": "gold"}
PLENTY = Bounds(until_s=2e9, exchanges=1000, size_bytes=10**9)


class Recording:
    """A recording file, switched on in a world."""

    def __init__(
        self,
        path: Path,
        bounds: Bounds = PLENTY,
        *,
        disk: Disk | None = None,
        free_bytes: Callable[[Path], int] = lambda _: 10**12,
        describer: Callable[[World], Any] | None = None,
        **more: int,
    ) -> None:
        self.world = World()
        self.path = path
        self.ended = threading.Event()
        services = self.world.services
        made = describer(self.world) if describer else _describer(self.world)
        self.file = RecordingFile(
            path, bounds, made, now_s=services.clock.now_s, on_end=self._end, disk=disk, free_bytes=free_bytes, **more
        )
        services.recording.recorder = self.file

    def _end(self) -> None:
        self.world.services.recording.recorder = None
        self.ended.set()

    async def calls(self, count: int, target: str = "/customers/42") -> None:
        """Make calls, all of which must be answered as if nothing was recorded."""
        for _ in range(count):
            assert (await self.world.call(target, ANN, as_="clerk-1")).json["plan"] == "gold"

    def lines(self) -> list[RecordedExchange]:
        data = self.path.read_bytes()
        assert not data or data.endswith(b"\n")
        return [parse_exchange(line) for line in data.splitlines()]


def _describer(world: World) -> Describer:
    services = world.services
    return Describer(tenant="default", keyset=services.keyset, limits=services.limits, iso_time=str)


async def test_lines_are_whole_private_and_in_order(tmp_path: Path):
    """Mode 0600 from the start, one line for each exchange, and what waited is written when it is closed."""
    recording = Recording(tmp_path / "r.jsonl")
    await recording.calls(5)
    recording.file.close()
    assert [line.exchange for line in recording.lines()] == [f"ex{n}" for n in range(1, 6)]
    assert recording.path.stat().st_mode & 0o777 == 0o600
    state = recording.file.state
    assert (state.exchanges, state.lost, state.ended) == (5, 0, Ended.STOPPED)
    assert state.size_bytes == recording.path.stat().st_size


@pytest.mark.parametrize(
    ("bounds", "ended", "count"),
    [
        (Bounds(2e9, 3, 10**9), Ended.EXCHANGES, 3),
        (Bounds(2e9, 1000, 2_500), Ended.SIZE, 2),
        (Bounds(1_700_000_000.0, 1000, 10**9), Ended.TIME, 0),
    ],
)
async def test_each_bound_ends_it(tmp_path: Path, bounds: Bounds, ended: Ended, count: int):
    """Number, size and time: the first one reached ends the recording with whole lines, and calls go on."""
    recording = Recording(tmp_path / "r.jsonl", bounds)
    await recording.calls(8)
    assert recording.ended.wait(10)
    await recording.calls(2)
    recording.file.close()
    assert recording.file.state.ended is ended
    assert len(recording.lines()) == count
    assert recording.path.stat().st_size <= bounds.size_bytes


async def test_its_time_ends_without_any_traffic(tmp_path: Path):
    """Nobody calls, and still it does not stay switched on."""
    recording = Recording(tmp_path / "r.jsonl", Bounds(1_700_000_000.5, 10, 10**9))
    recording.world.clock.at_s += 1
    assert recording.ended.wait(10)
    assert recording.world.services.recording.recorder is None
    recording.file.close()


class FullDisk(RealDisk):
    """Half of the third line still fits."""

    def __init__(self) -> None:
        self.writes = 0

    def write(self, fd: int, data: memoryview) -> int:
        self.writes += 1
        if self.writes < 3:
            return super().write(fd, data)
        if self.writes == 3:
            return super().write(fd, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


async def test_a_full_disk_ends_it_and_nothing_else(tmp_path: Path):
    """The half line is taken back; exchanges are answered and audited as before."""
    recording = Recording(tmp_path / "r.jsonl", disk=FullDisk())
    await recording.calls(6)
    assert recording.ended.wait(10)
    await recording.calls(2)
    recording.file.close()
    assert recording.file.state.ended is Ended.DISK
    assert len(recording.lines()) == 2
    assert len(recording.world.audit.lines) == 8


async def test_it_leaves_room_on_the_disk_for_the_audit(tmp_path: Path):
    """It ends before the disk is full: else it would be the audit that refuses calls."""
    recording = Recording(tmp_path / "r.jsonl", free_bytes=lambda _: KEEP_FREE_BYTES)
    await recording.calls(1)
    assert recording.ended.wait(10)
    recording.file.close()
    assert (recording.file.state.ended, recording.lines()) == (Ended.DISK, [])


class Broken:
    """A describer with a bug whose text quotes the body."""

    def describe(self, seen: Sighting) -> RecordedExchange:
        raise KeyError(seen.body)


async def test_a_bug_ends_it_without_a_word_of_the_body(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    """Calls go on, and nothing of what the bug quotes is said anywhere."""
    recording = Recording(tmp_path / "r.jsonl", describer=lambda _: Broken())
    await recording.calls(2)
    assert recording.ended.wait(10)
    await recording.calls(1)
    recording.file.close()
    assert recording.file.state.ended is Ended.FAILED
    assert "ann@ex.org" not in "".join(capfd.readouterr())


class Waiting(Describer):
    """Describes when it is let."""

    free: threading.Event

    def describe(self, seen: Sighting) -> RecordedExchange:
        self.free.wait()
        return super().describe(seen)


async def test_where_too_much_waits_exchanges_are_lost_and_counted(tmp_path: Path):
    """A slow disk costs the recording lines, not the calls time; memory stays bounded."""
    free = threading.Event()

    def slow(world: World) -> Waiting:
        services = world.services
        made = Waiting(tenant="default", keyset=services.keyset, limits=services.limits, iso_time=str)
        made.free = free
        return made

    recording = Recording(tmp_path / "r.jsonl", describer=slow, max_waiting_bytes=60_000)
    large = {**ANN, "note": "x" * 10_000}
    for _ in range(8):
        assert (await recording.world.call("/customers/42", large, as_="clerk-1")).json["plan"] == "gold"
    free.set()
    recording.file.close()
    state = recording.file.state
    assert state.exchanges + state.lost == 8
    assert state.lost >= 2
    assert len(recording.lines()) == state.exchanges


def test_a_file_that_is_there_is_never_written_over(tmp_path: Path):
    """Neither a file nor what a link points to."""
    (tmp_path / "r.jsonl").write_text("mine")
    with pytest.raises(AlreadyExists):
        Recording(tmp_path / "r.jsonl")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(AlreadyExists):
        Recording(tmp_path / "link")
    with pytest.raises(RequestMalformed, match="can't be written"):
        Recording(tmp_path / "no" / "folder" / "r.jsonl")
    assert (tmp_path / "r.jsonl").read_text() == "mine"


async def test_one_recording_at_a_time_and_only_of_protected_routes(tmp_path: Path):
    """A second one is refused while the first runs; a route that does not exist or passes is a mistake."""
    world = World()
    recordings = FileRecordings(world.services)
    assert recordings.status() == {"state": "none"}
    for routes in ({"health"}, {"nowhere"}):
        with pytest.raises(RequestMalformed):
            recordings.start(tmp_path / "a", 60, 10, 10**6, frozenset(routes))
    recordings.start(tmp_path / "a", 60, 10, 10**6, frozenset({"list"}))
    with pytest.raises(AlreadyExists):
        recordings.start(tmp_path / "b", 60, 10, 10**6, frozenset())
    await world.call("/customers/42", ANN, as_="clerk-1")
    await world.call("/customers", ANN, as_="clerk-1")
    recordings.stop()
    assert recordings.status()["exchanges"] == 1
    recordings.start(tmp_path / "b", 60, 10, 10**6, frozenset())
    await world.call("/customers/42", ANN, as_="clerk-1")
    recordings.stop()
    assert json.loads((tmp_path / "b").read_text())["route"] == "customer"
