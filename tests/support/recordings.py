"""Recordings in memory: a recorder that describes at once, and worlds with one switched on."""

from __future__ import annotations

from support.gate_world import World

from gharial.gate.recording import Describer, Sighting
from gharial.model.errors import GharialError
from gharial.model.recording import RecordedExchange, dump_exchange, parse_exchange


class MemoryRecorder:
    """Implements `gate.recording.Recorder`; what it keeps has been a line and back."""

    def __init__(self, world: World, routes: frozenset[str] = frozenset()) -> None:
        services = world.services
        self._describer = Describer(
            tenant=services.tenant, keyset=services.keyset, limits=services.limits, iso_time=services.iso_time
        )
        self._routes = routes
        self.lines: list[bytes] = []
        self.lost = 0

    @property
    def exchanges(self) -> list[RecordedExchange]:
        return [parse_exchange(line) for line in self.lines]

    def wants(self, route: str) -> bool:
        return not self._routes or route in self._routes

    def take(self, sighting: Sighting) -> None:
        try:
            self.lines.append(dump_exchange(self._describer.describe(sighting)))
        except GharialError:
            self.lost += 1


def recorded(world: World) -> MemoryRecorder:
    """Switch recording on in a world."""
    recorder = MemoryRecorder(world)
    world.services.recording.recorder = recorder
    return recorder
