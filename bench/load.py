"""The load generator of the ladder: keeps N connections busy, one call at a time each, and compares every body.

A process of its own: reads one `Job` as JSON from standard input, says `start` and `end` on standard output around what
it measures, and prints a `Measured` as JSON. Raw asyncio, so that it is light; it shares the cores with all the rest.
"""

from __future__ import annotations

import array
import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

_END = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Job:
    """What to ask for: `calls` are (path, body expected of it); every reply must be a 200 with that body."""

    port: int
    headers: dict[str, str]
    calls: list[tuple[str, str]]
    connections: int
    seconds: float
    warm_up_seconds: float


@dataclass(frozen=True, slots=True)
class Measured:
    """What the client saw. `wrong` counts replies with another status or body; `why` tells of the first."""

    replies: int
    seconds: float
    p50_ms: float
    p99_ms: float
    wrong: int
    why: str

    @property
    def per_second(self) -> float:
        """Replies per second."""
        return self.replies / self.seconds


class Run:
    """What all connections share."""

    def __init__(self, job: Job) -> None:
        head = "".join(f"{name}: {value}\r\n" for name, value in job.headers.items())
        self.calls = [
            (f"GET {path} HTTP/1.1\r\nhost: bench\r\n{head}\r\n".encode(), body.encode()) for path, body in job.calls
        ]
        self.next = 0
        self.took_ns = array.array("q")
        self.wrong = 0
        self.why = ""
        self.stopping = False

    def fail(self, why: str) -> None:
        """Count a wrong reply."""
        self.wrong += 1
        self.why = self.why or why


class Client(asyncio.Protocol):
    """One connection with keep-alive."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._buffer = bytearray()
        self._expected = b""
        self._began_ns = 0
        self._needed = 0
        self.closed = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first call."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._send()

    def _send(self) -> None:
        run = self._run
        if run.stopping:
            self._transport.close()
            return
        request, self._expected = run.calls[run.next]
        run.next = (run.next + 1) % len(run.calls)
        self._needed = 0
        self._began_ns = time.perf_counter_ns()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Take a part of a reply; at its end compare it, and send the next call."""
        self._buffer += data
        if len(self._buffer) < self._needed:
            return
        end = self._buffer.find(_END)
        if end < 0:
            return
        if not self._needed:
            self._needed = end + 4 + self._length(bytes(self._buffer[:end]).lower())
            if len(self._buffer) < self._needed:
                return
        self._run.took_ns.append(time.perf_counter_ns() - self._began_ns)
        if self._buffer[9:12] != b"200":
            self._run.fail(f"status {self._buffer[9:12].decode('latin-1')}")
        elif self._buffer[end + 4 :] != self._expected:
            self._run.fail("another body than expected")
        self._buffer.clear()
        self._send()

    def _length(self, head: bytes) -> int:
        _, found, rest = head.partition(b"\r\ncontent-length:")
        if not found:
            # Every rung states a length; chunks would be a change that the ladder's reader should hear of.
            self._run.fail("a reply without content-length")
            return 0
        return int(rest.partition(b"\r\n")[0])

    def connection_lost(self, _exc: Exception | None) -> None:
        """Tell whoever waits; a connection may end only once the run is over."""
        if not self._run.stopping:
            self._run.fail("the connection was closed")
        self.closed.set_result(None)


async def _measure(job: Job) -> Measured:
    run = Run(job)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(job.connections):
        _, client = await loop.create_connection(lambda: Client(run), "127.0.0.1", job.port)
        clients.append(client)
    await asyncio.sleep(job.warm_up_seconds)
    del run.took_ns[:]
    print("start", flush=True)
    began_s = time.perf_counter()
    await asyncio.sleep(job.seconds)
    seconds, took = time.perf_counter() - began_s, sorted(run.took_ns)
    print("end", flush=True)
    run.stopping = True
    await asyncio.wait([client.closed for client in clients], timeout=10)
    if not took:
        return Measured(0, seconds, 0.0, 0.0, run.wrong + 1, run.why or "no reply at all")
    p50, p99 = took[len(took) // 2], took[min(len(took) - 1, len(took) * 99 // 100)]
    return Measured(len(took), seconds, p50 / 1e6, p99 / 1e6, run.wrong, run.why)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(_measure(Job(**json.load(sys.stdin)))))))
