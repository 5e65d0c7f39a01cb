"""A uvicorn server for callers who may be anybody: bounded in connections, and in the time that each may keep one."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gharial.adapters.admin import QuietServer


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one listener grants.

    `request_s` is how long a whole request may take from its first byte (or from connecting), TLS handshake apart, and
    how long a caller may leave an answer untaken. `connections` are open at the same time, `per_peer` of one address.
    """

    request_s: float = 10.0
    connections: int = 512
    per_peer: int = 128


BOUNDS = Bounds()


@dataclass(eq=False, slots=True)
class _Place:
    """One open connection. `waiting` says that its caller owes the next byte; `end` closes it at once."""

    peer: str
    waiting: bool = True
    end: Callable[[], object] = bool


class _Places:
    """Who holds a connection, the oldest first."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._held: dict[_Place, None] = {}
        self._per_peer: Counter[str] = Counter()

    def take(self, peer: str) -> _Place | None:
        """Return a place, if need be that of the connection that waits longest for its caller; None if none waits.

        Callers behind one proxy have one address: whoever sends what he wants at once is not kept out by idle ones.
        """
        if self._per_peer[peer] >= self._bounds.per_peer and not self._make_room(peer):
            return None
        if len(self._held) >= self._bounds.connections and not self._make_room(None):
            return None
        place = _Place(peer)
        self._held[place] = None
        self._per_peer[peer] += 1
        return place

    def leave(self, place: _Place) -> None:
        """Give a place back; once more does nothing."""
        if place not in self._held:
            return
        del self._held[place]
        self._per_peer[place.peer] -= 1
        if not self._per_peer[place.peer]:
            del self._per_peer[place.peer]

    def _make_room(self, peer: str | None) -> bool:
        oldest = next((place for place in self._held if place.waiting and peer in (None, place.peer)), None)
        if oldest is None:
            return False
        self.leave(oldest)
        oldest.end()
        return True


class _TimedH11(H11Protocol):
    """HTTP/1.1 that waits so long for what the caller owes, a request or the taking of an answer, and no longer."""

    place: _Place
    request_s: float
    on_lost: Callable[[], None]
    _owed: asyncio.TimerHandle | None = None
    _stuck = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.place.end = transport.abort
        self._mind()

    def connection_lost(self, exc: Exception | None) -> None:
        self._forgive()
        self.on_lost()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            # The first byte of a request: what was waited for before is no part of its time.
            self._forgive()
        super().data_received(data)
        self._mind()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._mind()

    def pause_writing(self) -> None:
        self._stuck = True
        super().pause_writing()
        self._mind()

    def resume_writing(self) -> None:
        self._stuck = False
        super().resume_writing()
        self._mind()

    def _mind(self) -> None:
        """Begin to wait if the caller owes something, and end it if not; a wait that has begun goes on."""
        asks = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        # Closed with an answer that nobody takes, a connection would stay for ever.
        owes = asks or self._stuck or self.transport.is_closing()
        self.place.waiting = owes
        if not owes:
            self._forgive()
        elif self._owed is None:
            self._owed = self.loop.call_later(self.request_s, self.transport.abort)

    def _forgive(self) -> None:
        if self._owed is not None:
            self._owed.cancel()
            self._owed = None


class BoundedServer(QuietServer):
    """Takes connections itself, so that they are counted before the TLS handshake."""

    def __init__(self, config: uvicorn.Config, bounds: Bounds) -> None:
        super().__init__(config)
        self._bounds = bounds
        self._places = _Places(bounds)
        self._accepting: list[asyncio.Task[None]] = []
        self._greeting: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to take connections of these sockets."""
        await self.lifespan.startup()
        self.servers = []
        for listening in sockets or []:
            listening.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(listening)))
        self.started = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, and end as uvicorn does."""
        tasks = [*self._accepting, *self._greeting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await super().shutdown(sockets)

    async def _accept(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                taken, address = await loop.sock_accept(listening)
            except OSError:
                # No file is left, or the caller has gone: the next one may be luckier.
                await asyncio.sleep(0.05)
                continue
            self._greet(taken, str(address[0]))

    def _greet(self, taken: socket.socket, peer: str) -> None:
        place = self._places.take(peer)
        if place is None:
            taken.close()
            return
        task = asyncio.create_task(self._let_in(taken, place))
        place.end = task.cancel
        self._greeting.add(task)

        def greeted(task: asyncio.Task[None]) -> None:
            self._greeting.discard(task)
            error = None if task.cancelled() else task.exception()
            if task.cancelled() or error is not None:
                self._places.leave(place)
                taken.close()
            # Whoever breaks off the handshake, or does not end it, is no failure of ours.
            if error is not None and not isinstance(error, OSError):
                raise error

        task.add_done_callback(greeted)

    async def _let_in(self, taken: socket.socket, place: _Place) -> None:
        def make() -> asyncio.Protocol:
            made = _TimedH11(self.config, self.server_state, self.lifespan.state)
            made.place, made.request_s = place, self._bounds.request_s
            made.on_lost = lambda: self._places.leave(place)
            return made

        options: dict[str, Any] = {}
        if self.config.ssl is not None:
            options = {"ssl": self.config.ssl, "ssl_handshake_timeout": self._bounds.request_s}
        await asyncio.get_running_loop().connect_accepted_socket(make, taken, **options)
