"""One app in two languages, ASGI and WSGI, behind the middleware of each; and a client for both."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote_to_bytes
from wsgiref.validate import validator

import gharial
from gharial.gate.operate import ClientFacts, Operations
from gharial.wiring.world import SystemClock, random_bytes

JSON = (("content-type", "application/json"),)


@dataclass
class Seen:
    """What the app got."""

    method: str
    path: str
    raw_path: str
    query: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Said:
    """What the app answers: pieces one by one, and then maybe an exception."""

    pieces: Iterable[bytes] = (b"{}",)
    status: int = 200
    headers: tuple[tuple[str, str], ...] = JSON
    then: Exception | None = None


def said(value: object, *headers: tuple[str, str], status: int = 200) -> Said:
    """JSON in three pieces, with its length."""
    text = json.dumps(value).encode()
    length = ("content-length", str(len(text)))
    return Said([text[:5], text[5:9], text[9:]], status, (*JSON, length, *headers))


Script = Callable[[Seen], Said]


@dataclass
class Got:
    """What the client got."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def one(self, name: str) -> str | None:
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1, name
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """The code of a refusal; fails if the answer is none."""
        assert self.one("content-type") == "application/problem+json", self
        assert self.json["status"] == self.status
        return str(self.json["code"])


@dataclass
class Site:
    """An app behind the middleware, and its one client."""

    gate: gharial.Gharial
    script: Script = field(default=lambda _: Said())
    seen: list[Seen] = field(default_factory=list)
    caller: Callable[[Any], Any] | None = None
    raised: Exception | None = None
    """What came out of the middleware besides the answer."""

    def hear(self, seen: Seen) -> Said:
        self.seen.append(seen)
        return self.script(seen)

    async def ask(
        self, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"", key: str = ""
    ) -> Got:
        raise NotImplementedError

    async def add_client(self, name: str, **facts: Any) -> str:
        """Register a client in this process and return its API key."""
        services = self.gate.engine.services
        directory = services.identifier._clients
        operations = Operations(services.store, directory, SystemClock(), random_bytes, services.identifier._hash)
        made = self.gate.engine.run(lambda: operations.add_client(ClientFacts(name, **facts)))
        return (await asyncio.wrap_future(made))["key"]


def _with_key(headers: Sequence[tuple[str, str]], key: str) -> list[tuple[str, str]]:
    return [("host", "site.test"), *headers, *([("x-api-key", key)] if key else [])]


class AsgiSite(Site):
    """ASGI, as a server like uvicorn speaks it."""

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw, query = scope["raw_path"].decode(), scope["query_string"].decode("latin-1")
        answer = self.hear(Seen(scope["method"], scope["path"], raw, query, headers, body))
        raw_headers = [(name.encode(), value.encode()) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": raw_headers})
        for piece in answer.pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        if answer.then is not None:
            raise answer.then
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def ask(
        self, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"", key: str = ""
    ) -> Got:
        return await self.ask_app(self.app, target, *headers, method=method, body=body, key=key)

    async def ask_app(
        self, app: Any, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"", key: str = ""
    ) -> Got:
        raw_path, _, query = target.partition("?")
        pieces = [body[:4], body[4:]] if body else [b""]
        incoming = [
            {"type": "http.request", "body": piece, "more_body": at < len(pieces) - 1}
            for at, piece in enumerate(pieces)
        ]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.4"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": unquote_to_bytes(raw_path).decode("utf-8", "replace"),
            "raw_path": raw_path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": [(n.encode(), v.encode("latin-1")) for n, v in _with_key(headers, key)]
            + ([(b"content-length", str(len(body)).encode())] if body else []),
            "client": ("127.0.0.1", 4711),
            "server": ("site.test", 80),
            "extensions": {"http.response.pathsend": {}, "http.response.trailers": {}},
        }
        sent: list[Any] = []

        async def receive() -> Any:
            return incoming.pop(0) if incoming else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        self.raised = None
        try:
            await gharial.GharialMiddleware(app, self.gate, self.caller)(scope, receive, send)
        except Exception as error:  # noqa: BLE001 - what a server would log
            self.raised = error
        assert sent, self.raised
        start, *bodies = sent
        assert start["type"] == "http.response.start"
        assert all(message["type"] == "http.response.body" for message in bodies)
        assert [message.get("more_body", False) for message in bodies][:-1] == [True] * (len(bodies) - 1)
        return Got(
            start["status"],
            [(name.decode(), value.decode("latin-1")) for name, value in start["headers"]],
            b"".join(message["body"] for message in bodies),
        )


class WsgiSite(Site):
    """WSGI; both sides of the middleware are held to PEP 3333 by wsgiref's validator."""

    errors: io.StringIO = io.StringIO()

    def app(self, environ: Any, start_response: Any) -> Iterator[bytes]:
        headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        headers |= {"content-type": environ["CONTENT_TYPE"]} if environ.get("CONTENT_TYPE") else {}
        path = (environ["SCRIPT_NAME"] + environ["PATH_INFO"]).encode("latin-1").decode()
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length) if length else b""
        seen = Seen(environ["REQUEST_METHOD"], path, environ["RAW_URI"], environ["QUERY_STRING"], headers, body)
        answer = self.hear(seen)
        start_response(f"{answer.status} Said", list(answer.headers))
        yield from answer.pieces
        if answer.then is not None:
            raise answer.then

    async def ask(
        self, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"", key: str = ""
    ) -> Got:
        return await self.ask_app(self.app, target, *headers, method=method, body=body, key=key)

    async def ask_app(
        self, app: Any, target: str, *headers: tuple[str, str], method: str = "GET", body: bytes = b"", key: str = ""
    ) -> Got:
        return await asyncio.to_thread(self._ask, app, target, headers, method, body, key)

    def _ask(
        self, app: Any, target: str, headers: Sequence[tuple[str, str]], method: str, body: bytes, key: str
    ) -> Got:
        raw_path, _, query = target.partition("?")
        self.errors = io.StringIO()
        environ = {
            "REQUEST_METHOD": method,
            "SCRIPT_NAME": "",
            "PATH_INFO": unquote_to_bytes(raw_path).decode("latin-1"),
            "RAW_URI": target,
            "QUERY_STRING": query,
            "SERVER_NAME": "site.test",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "wsgi.version": (1, 0),
            "wsgi.url_scheme": "http",
            "wsgi.input": io.BytesIO(body),
            "wsgi.errors": self.errors,
            "wsgi.multithread": True,
            "wsgi.multiprocess": False,
            "wsgi.run_once": False,
        }
        for name, value in _with_key(headers, key):
            environ["CONTENT_TYPE" if name == "content-type" else f"HTTP_{name.upper().replace('-', '_')}"] = value
        if body:
            environ["CONTENT_LENGTH"] = str(len(body))
        heads: list[tuple[int, list[tuple[str, str]]]] = []

        def start_response(status: str, sent: list[tuple[str, str]], exc_info: Any = None) -> Any:
            heads.append((int(status[:3]), sent))
            return written.append

        written: list[bytes] = []
        self.raised = None
        site = gharial.GharialWsgiMiddleware(app, self.gate, self.caller)
        answer = site(environ, start_response)
        try:
            written.extend(answer)
        except Exception as error:  # noqa: BLE001 - what a server would log
            self.raised = error
        finally:
            close = getattr(answer, "close", None)
            if close is not None:
                close()
        status, got = heads[-1]
        return Got(status, [(name.lower(), value) for name, value in got], b"".join(written))


def validated(app: Any) -> Any:
    """An app held to PEP 3333."""
    return validator(app)


Ask = Callable[..., Awaitable[Got]]
