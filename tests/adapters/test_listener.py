"""The API's listener over real sockets: whoever sends nothing keeps nobody else from an answer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send
from support.kms import a_certificate

from gharial.adapters.listener import Bounds
from gharial.adapters.reveal_api import serve_api
from gharial.settings import Api, ListenTls

CALL = b"POST /v1/reveal HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n"


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, then say ok."""
    while (message := await receive()).get("more_body"):
        pass
    if message["type"] == "http.disconnect":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@asynccontextmanager
async def listening(bounds: Bounds, app: ASGIApp = app, tls: ListenTls | None = None) -> AsyncIterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    server, task = await serve_api(app, Api(address="127.0.0.1", port=port, tls=tls), bounds)
    try:
        yield port
    finally:
        server.should_exit = True
        await task


async def idle(port: int, count: int, sent: bytes = b"") -> list[asyncio.StreamReader]:
    """Open connections that send this and then nothing."""
    opened = [await asyncio.open_connection("127.0.0.1", port) for _ in range(count)]
    for _, writer in opened:
        writer.write(sent)
    return [reader for reader, _ in opened]


async def answer_of(port: int, tls: ssl.SSLContext | None = None) -> bytes:
    name = "127.0.0.1" if tls else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(CALL + b"{}")
    found = await reader.readuntil(b"ok")
    writer.close()
    return found.split(b"\r\n")[0]


async def ended(reader: asyncio.StreamReader) -> None:
    with suppress(ConnectionResetError):
        await reader.read()


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1", CALL, CALL + b"{", CALL + b"{}" + b"POST /v1"],
    ids=["nothing", "half a head", "no body", "half a body", "half of a second head"],
)  # fmt: skip
async def test_who_does_not_send_a_whole_request_is_hung_up_on(sent: bytes):
    """Whatever is missing of a request: the connection ends within the limit."""
    async with listening(Bounds(request_s=0.1)) as port, asyncio.timeout(3):
        for reader in await idle(port, 3, sent):
            await ended(reader)


async def test_a_drop_now_and_then_gains_no_time():
    """A byte every few milliseconds does not begin the time anew."""
    async with listening(Bounds(request_s=0.1)) as port, asyncio.timeout(3):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/reveal HTTP/1.1\r\n")
        end = asyncio.create_task(ended(reader))
        while not end.done():
            writer.write(b"a")
            await asyncio.wait([end], timeout=0.01)


@pytest.mark.parametrize("bounds", [Bounds(60, 20, 20), Bounds(60, 100, 20)], ids=["in total", "of one address"])
@pytest.mark.parametrize("sent", [b"", CALL + b"{"], ids=["nothing", "half a body"])
async def test_idle_connections_up_to_the_bound_keep_nobody_out(bounds: Bounds, sent: bytes):
    """More than the bound are open and idle, none has timed out yet: a call is answered, the oldest idle one ends."""
    async with listening(bounds) as port, asyncio.timeout(5):
        readers = await idle(port, 30, sent)
        assert await answer_of(port) == b"HTTP/1.1 200 OK"
        await ended(readers[0])


async def test_an_answer_that_nobody_takes_is_not_kept():
    """A caller that reads nothing is hung up on, and its place is free."""

    async def large(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        with suppress(OSError):
            await send({"type": "http.response.body", "body": b"x" * 30_000_000})

    async with listening(Bounds(request_s=0.1), large) as port, asyncio.timeout(5):
        caller = socket.create_connection(("127.0.0.1", port))
        caller.sendall(CALL + b"{}")
        await asyncio.sleep(0.5)
        caller.settimeout(2)
        taken = 0
        with suppress(ConnectionResetError):
            while got := await asyncio.to_thread(caller.recv, 1_000_000):
                taken += len(got)
        caller.close()
        assert taken < 30_000_000


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_tls_is_counted_before_its_handshake(loop, tmp_path: Path):
    """Connections that begin no handshake end in time, the oldest at once if they are too many; a call is answered."""
    _, cert = a_certificate(tmp_path)
    files = ListenTls.model_validate({"cert": f"file:{cert}", "key": f"file:{tmp_path / 'key.pem'}"})

    async def run() -> None:
        async with listening(Bounds(0.3, 20, 20), tls=files) as port, asyncio.timeout(5):
            readers = await idle(port, 30)
            trusted = ssl.create_default_context(cafile=str(cert))
            assert await answer_of(port, trusted) == b"HTTP/1.1 200 OK"
            for reader in readers:
                await ended(reader)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(run())


async def test_calls_follow_one_another_on_a_connection():
    """The time is one request's, not that of the connection."""
    async with listening(Bounds(request_s=0.3)) as port, asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        until = asyncio.get_running_loop().time() + 0.7
        while asyncio.get_running_loop().time() < until:
            writer.write(CALL + b"{}")
            assert (await reader.readuntil(b"ok")).startswith(b"HTTP/1.1 200")
        writer.close()
