"""Routes with `stream: true` before a real Envoy: rows leave one by one, and a stream that can't go on is cut."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from support.gateway import MARK, ROUTES, Home, a_gateway, customer, customer_id, shows, until

pytestmark = [pytest.mark.envoy, pytest.mark.xdist_group("gateway-stream")]

STREAM = {"route": "export", "match": "GET /export", "upstream": "api", "policy": "customer-data", "stream": True}
NDJSON = "application/x-ndjson"


@dataclass
class Feed:
    """An upstream whose answer the test hands out, piece by piece; None ends it, ... breaks it off."""

    content_type: str = NDJSON
    head: str = ""
    status: str = "200 OK"
    pieces: asyncio.Queue[Any] = field(default_factory=asyncio.Queue)
    asked: list[str] = field(default_factory=list)
    port: int = 0

    def row(self, number: int, **more: Any) -> None:
        """Hand out one row."""
        self.pieces.put_nowait(line(number, **more))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
            head = f"HTTP/1.1 {self.status}\r\ncontent-type: {self.content_type}\r\n{self.head}"
            writer.write(head.encode() + b"transfer-encoding: chunked\r\n\r\n")
            while (piece := await self.pieces.get()) not in (None, ...):
                writer.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
                await writer.drain()
            if piece is None:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
        writer.close()


def line(number: int, **more: Any) -> bytes:
    """A row of NDJSON about a customer."""
    return json.dumps({**customer(number), **more}).encode() + b"\n"


@contextlib.asynccontextmanager
async def streaming(feed: Feed, **more: Any) -> AsyncIterator[Home]:
    """A gateway with a stream route before this feed."""
    server = await asyncio.start_server(feed.serve, "127.0.0.1", 0)
    feed.port = server.sockets[0].getsockname()[1]
    upstream = {"api": {"url": f"http://127.0.0.1:{feed.port}", "timeout": "20s"}}
    try:
        async with a_gateway(upstream, routes=[STREAM, *ROUTES], **more) as home:
            yield home
    finally:
        server.close()


def _closed(home: Home) -> list[dict[str, Any]]:
    """The audit's lines about the stream, once the last of them is written; empty until then."""
    mine = [record for record in home.audit() if record["route"] == "export"]
    return mine if mine and mine[-1]["outcome"] == "close" else []


class Cut(Exception):
    """The connection ended before the answer did."""


class Client:
    """Reads one answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self.writer = reader, writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""

    async def head(self) -> None:
        async with asyncio.timeout(15):
            raw = (await self._reader.readuntil(b"\r\n\r\n")).decode()
        first, *rest = raw.split("\r\n")[:-2]
        self.status = int(first.split(" ")[1])
        self.headers = {k.lower(): v.strip() for k, _, v in (item.partition(":") for item in rest)}

    async def chunk(self) -> bytes:
        """The next chunk, b"" at the end. Raises Cut."""
        try:
            async with asyncio.timeout(20):
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                data = await self._reader.readexactly(size + 2)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Cut from None
        self.body += data[:-2]
        return data[:-2]

    async def row(self) -> Any:
        """The next row of NDJSON."""
        while b"\n" not in self.body:
            assert await self.chunk(), "the answer ended"
        row, _, self.body = self.body.partition(b"\n")
        return json.loads(row)

    async def rest(self) -> bytes:
        """All that comes until the end. Raises Cut."""
        while await self.chunk():
            pass
        return self.body


@contextlib.asynccontextmanager
async def asking(home: Home, key: str = "", *headers: str, path: str = "/export") -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", home.port, limit=1 << 24)
    lines = [f"GET {path} HTTP/1.1", "host: gateway.test", *headers, *([f"x-api-key: {key}"] if key else [])]
    writer.write("\r\n".join([*lines, "", ""]).encode())
    try:
        yield Client(reader, writer)
    finally:
        writer.close()


async def test_the_first_row_leaves_before_the_last_arrives() -> None:
    """The upstream sends the second row only after the client has the first one, without a clear value in it."""
    feed = Feed()
    async with streaming(feed) as home, asking(home, "", "accept-encoding: gzip, br") as client:
        feed.row(1)
        await client.head()
        assert (client.status, client.headers["content-type"]) == (200, NDJSON)
        first = await client.row()
        feed.row(2)
        second = await client.row()
        assert first["plan"] == second["plan"] == "magenta"
        assert first["customerId"] != second["customerId"]
        assert not shows(json.dumps([first, second]).encode())
        feed.pieces.put_nowait(None)
        assert await client.rest() == b""
        assert "accept-encoding: identity" in feed.asked[0]
        mine = await until(lambda: _closed(home))
        assert [record["outcome"] for record in mine] == ["open", "rows", "rows", "close"]
        assert len({record["exchange"] for record in mine}) == 1
        assert mine[-1]["error"] is None


async def test_a_broken_row_cuts_the_stream_and_never_passes() -> None:
    """Rows before it leave; it and what follows do not, the client sees no end, and the code is counted."""
    feed = Feed()
    async with streaming(feed) as home, asking(home) as client:
        feed.row(1)
        await client.head()
        assert (await client.row())["plan"] == "magenta"
        broken = json.dumps({"note": MARK}).encode()[:-1] + b"\n"
        feed.pieces.put_nowait(line(2) + broken + line(3))
        with contextlib.suppress(Cut):
            assert await client.chunk()
        with pytest.raises(Cut):
            await client.rest()
        assert not shows(client.body)
        assert client.body.count(b"\n") <= 1
        status = await home.status()
        assert status["counters"]["refused"] == {"body.malformed": 1}
        assert (await until(lambda: _closed(home)))[-1]["error"] == "body.malformed"


async def test_what_is_wrong_before_the_first_row_is_answered_and_not_cut() -> None:
    """As long as nothing has left, the client gets problem details, as on any other route."""
    feed = Feed()
    async with streaming(feed) as home, asking(home) as client:
        feed.pieces.put_nowait(b'{"email": "' + MARK.encode() + b'"\n')
        await client.head()
        assert client.status == 502
        body = await client._reader.readexactly(int(client.headers["content-length"]))
        assert json.loads(body)["code"] == "body.malformed"


async def test_a_gate_killed_mid_stream_cuts_the_connection() -> None:
    """No row passes once the gate is gone, and the client sees that the answer is not whole."""
    feed = Feed()
    async with streaming(feed) as home, asking(home) as client:
        feed.row(1)
        await client.head()
        await client.row()
        before = home.pid("gate")
        os.kill(before, signal.SIGKILL)
        feed.row(2)
        with pytest.raises(Cut):
            await client.rest()
        assert not shows(client.body)
        await home.restarted("gate", before)


async def test_an_upstream_that_breaks_off_leaves_an_answer_without_an_end() -> None:
    """The client can tell a stream that ended from one that was lost."""
    feed = Feed()
    async with streaming(feed) as home, asking(home) as client:
        feed.row(1)
        await client.head()
        await client.row()
        feed.pieces.put_nowait(...)
        with pytest.raises(Cut):
            await client.rest()
        records = await until(lambda: [r for r in home.audit() if r["outcome"] == "abandoned"])
        assert records[0]["route"] == "export"


async def test_a_budget_that_is_crossed_mid_stream_holds_from_that_row_on() -> None:
    """Sixty people are shown clear in all; whoever comes after is masked, and whoever was seen stays as he was."""
    feed = Feed()
    async with streaming(feed) as home:
        key = await home.add_client("clerk", purpose="support", roles=["care"])
        async with asking(home, key) as client:
            for number in range(59):
                feed.row(number)
            await client.head()
            seen = [await client.row() for _ in range(59)]
            for number in (59, 60, 61, 3):
                feed.row(number)
            seen += [await client.row() for _ in range(4)]
            feed.pieces.put_nowait(None)
            assert await client.rest() == b""
        clear = [row["customerId"].startswith(MARK) for row in seen]
        assert clear == [True] * 60 + [False, False, True]
        assert seen[62]["customerId"] == customer_id(3)


@pytest.mark.parametrize(
    ("content_type", "pieces", "want"),
    [
        ("application/json-seq", [b'\x1e{"plan": "a", "email": "%s"}\n', b'\x1e{"plan": "b"}\n'], b"\x1e"),
        (
            "text/event-stream",
            [b'event: x\ndata: {"plan": "a", "email": "%s"}\n\n', b'data: {"plan": "b"}\n\n'],
            b"x\n",
        ),
    ],
)
async def test_sequences_and_events_leave_by_rows_too(content_type: str, pieces: list[bytes], want: bytes) -> None:
    """Each leaves when it is whole, before the next one has begun."""
    feed = Feed(content_type)
    async with streaming(feed) as home, asking(home) as client:
        feed.pieces.put_nowait(pieces[0].replace(b"%s", MARK.encode()))
        await client.head()
        first = await client.chunk()
        assert want in first
        assert b'{"plan":"a","email":"[redacted]"}\n' in first
        assert not shows(first)
        feed.pieces.put_nowait(pieces[1])
        feed.pieces.put_nowait(None)
        assert b'{"plan":"b"}\n' in await client.rest()


async def test_json_on_a_stream_route_is_collected() -> None:
    """A document has no rows: it is read whole within the limit, answered at its end, and refused above the limit."""
    feed = Feed("application/json")
    async with streaming(feed, limits={"body": "10KB"}) as home:
        async with asking(home) as client:
            text = line(1)
            for at in range(0, len(text), 40):
                feed.pieces.put_nowait(text[at : at + 40])
            feed.pieces.put_nowait(None)
            await client.head()
            assert json.loads(await client.rest())["plan"] == "magenta"
            assert not shows(client.body)
        async with asking(home) as client:
            feed.pieces.put_nowait(b'["' + MARK.encode() * 2000)
            feed.pieces.put_nowait(...)
            await client.head()
            assert client.status == 502


def _rss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(item.split()[1]) for item in lines if item.startswith("VmHWM"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells how much memory a process has")
async def test_a_long_stream_takes_no_more_memory_than_a_short_one() -> None:
    """60 MB in 15,000 rows, through a gate whose limit for a body is 1 MB: all arrive, and its memory stays."""
    feed = Feed()
    rows, at_once = 15_000, 50
    filler = "y" * 3_800

    async def pour(count: int) -> None:
        for start in range(0, count, at_once):
            await until(lambda: feed.pieces.qsize() < 4)
            feed.pieces.put_nowait(b"".join(line(n, note=filler) for n in range(start, start + at_once)))
        feed.pieces.put_nowait(None)

    async def count(number: int, home: Home) -> int:
        async with asking(home) as client, asyncio.TaskGroup() as group:
            group.create_task(pour(number))
            await client.head()
            found = 0
            while chunk := await client.chunk():
                found += chunk.count(b"\n")
                assert not shows(chunk)
                client.body = b""
            return found

    async with streaming(feed, limits={"body": "1MB"}) as home:
        assert await count(1_000, home) == 1_000
        before = _rss_kb(home.pid("gate"))
        assert await count(rows, home) == rows
        assert _rss_kb(home.pid("gate")) - before < 20_000
