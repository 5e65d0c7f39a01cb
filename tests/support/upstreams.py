"""Upstreams for tests: a scripted raw HTTP/1.1 server, and a tiny DNS server. Both on free ports of 127.0.0.1."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class SeenRequest:
    """A request as it arrived: its first line, its header lines in order, its body."""

    line: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = b""

    @property
    def method(self) -> str:
        return self.line.split(" ")[0]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]

    def all(self, name: str) -> list[str]:
        """Every value of a header."""
        return [value for key, value in self.headers if key.lower() == name]

    def text(self) -> str:
        """The whole head, to search in."""
        return "\n".join([self.line, *(f"{key}: {value}" for key, value in self.headers)])


@dataclass(frozen=True, slots=True)
class Raw:
    """What to write, byte for byte; `then` gives more, `then_close` closes the connection, `then_hang` is silent."""

    data: bytes
    then: Callable[[], Awaitable[bytes]] | None = None
    then_close: bool = False
    then_hang: bool = False


def answer(status: str = "200 OK", body: bytes = b"", *headers: str, length: bool = True) -> Raw:
    """A plain answer with a content length."""
    lines = [f"HTTP/1.1 {status}", *headers]
    if length:
        lines.append(f"content-length: {len(body)}")
    return Raw("\r\n".join([*lines, "", ""]).encode("latin-1") + body)


def json_answer(text: str, *headers: str, status: str = "200 OK") -> Raw:
    """A JSON answer with a content length."""
    return answer(status, text.encode(), "content-type: application/json", *headers)


def chunked(chunks: list[bytes], *headers: str, trailers: tuple[str, ...] = ()) -> Raw:
    """A chunked answer, with trailers if any."""
    head = "\r\n".join(["HTTP/1.1 200 OK", "transfer-encoding: chunked", *headers, "", ""]).encode()
    parts = b"".join(f"{len(chunk):x}\r\n".encode() + chunk + b"\r\n" for chunk in chunks)
    end = "\r\n".join(["0", *trailers, "", ""]).encode()
    return Raw(head + parts + end)


Script = Callable[[SeenRequest], Raw | Awaitable[Raw]]


@dataclass(slots=True)
class Upstream:
    """A running upstream: its port, and what it was asked."""

    port: int
    seen: list[SeenRequest] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextlib.asynccontextmanager
async def an_upstream(script: Script | Raw, *, tls: ssl.SSLContext | None = None) -> AsyncIterator[Upstream]:
    """Serve with a script: a function from the request seen to the bytes to write, or always the same bytes."""
    upstream = Upstream(0)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError, ssl.SSLError):
            while True:
                seen = await _read_request(reader)
                upstream.seen.append(seen)
                made = script if isinstance(script, Raw) else script(seen)
                raw = made if isinstance(made, Raw) else await made
                writer.write(raw.data)
                await writer.drain()
                if raw.then is not None:
                    writer.write(await raw.then())
                if raw.then_hang:
                    await asyncio.Event().wait()
                if raw.then_close:
                    break
        writer.close()
        tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    upstream.port = server.sockets[0].getsockname()[1]
    try:
        yield upstream
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks))


async def _read_request(reader: asyncio.StreamReader) -> SeenRequest:
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    line, *rest = head.split("\r\n")[:-2]
    seen = SeenRequest(line, tuple((k, v.strip()) for k, _, v in (item.partition(":") for item in rest)))
    if length := seen.all("content-length"):
        seen.body = await reader.readexactly(int(length[0]))
    elif seen.all("transfer-encoding"):
        while size := int((await reader.readline()).split(b";")[0], 16):
            seen.body += await reader.readexactly(size)
            await reader.readexactly(2)
        while (await reader.readline()).strip():
            pass
    return seen


@dataclass(slots=True)
class Names:
    """What the DNS server answers: name to IPv4 address; change it while it runs."""

    port: int
    addresses: dict[str, str]
    asked: list[str] = field(default_factory=list)


class _Dns(asyncio.DatagramProtocol):
    """Answers A questions with a time to live of one second (RFC 1035); anything else with no records."""

    def __init__(self, names: Names) -> None:
        self._names = names
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        number = data[:2]
        labels, at = [], 12
        while size := data[at]:
            labels.append(data[at + 1 : at + 1 + size].decode())
            at += 1 + size
        question = data[12 : at + 5]
        (kind,) = struct.unpack("!H", data[at + 1 : at + 3])
        name = ".".join(labels).lower()
        self._names.asked.append(name)
        address = self._names.addresses.get(name)
        known = address is not None and kind == 1
        flags = 0x8180 if address is not None else 0x8183
        reply = number + struct.pack("!HHHHH", flags, 1, int(known), 0, 0) + question
        if known and address is not None:
            reply += b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 1, 4) + bytes(map(int, address.split(".")))
        self._transport.sendto(reply, addr)


@contextlib.asynccontextmanager
async def a_dns_server(addresses: dict[str, str]) -> AsyncIterator[Names]:
    """Serve these names on UDP."""
    names = Names(0, addresses)
    transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(
        lambda: _Dns(names), local_addr=("127.0.0.1", 0)
    )
    names.port = transport.get_extra_info("sockname")[1]
    try:
        yield names
    finally:
        transport.close()
