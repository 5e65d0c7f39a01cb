"""The upstream of the ladder: answers `GET /…/SIZE/NUMBER` with a document made beforehand. A process of its own.

It prints its port and serves until its standard input ends. Raw asyncio, so that it is not what is measured.
"""

from __future__ import annotations

import asyncio
import sys

from documents import SIZES, body_of

_END = b"\r\n\r\n"


def _answers() -> dict[bytes, bytes]:
    found: dict[bytes, bytes] = {}
    for size in SIZES:
        for index in range(size.documents):
            body = body_of(size, index)
            head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
            found[f"/{size.name}/{index}".encode()] = head.encode() + body
    return found


class Upstream(asyncio.Protocol):
    """One connection; requests have no body."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """Answer every whole request."""
        self._buffer += data
        while (end := self._buffer.find(_END)) >= 0:
            target = self._buffer[: self._buffer.index(b"\r\n")].split(b" ")[1]
            self._buffer = self._buffer[end + 4 :]
            key = b"/" + b"/".join(target.rsplit(b"/", 2)[1:])
            self._transport.write(self._answers.get(key, b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"))


async def _serve() -> None:
    answers = _answers()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Upstream(answers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(_serve())
