"""The reveal API over HTTP: `POST /v1/reveal` on a listener of the gate's own."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
import uvicorn
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gharial.adapters.admin import start_server
from gharial.adapters.listener import BOUNDS, BoundedServer, Bounds
from gharial.gate.headers import EXCHANGE_HEADER, refusal_headers
from gharial.gate.people import Erased
from gharial.gate.reveal import MAX_ITEMS, Begun, Clear, Item, Revealer
from gharial.model.errors import (
    ConfigInvalid,
    GateFull,
    GateUnavailable,
    GharialError,
    NoRoute,
    Problem,
    RequestMalformed,
    RequestTooLarge,
    RequestUnreadable,
    problem_body,
)
from gharial.model.finding import Kind
from gharial.settings import Api

PATH = "/v1/reveal"
MAX_REQUEST_BYTES = 1_000_000
MAX_IN_FLIGHT = 64
"""Calls that are answered at the same time; more are refused."""
BODY_TIMEOUT_S = 10.0
STOP_TIMEOUT_S = 30

_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class Log(Protocol):
    """Writes one event with its facts."""

    def __call__(self, event: str, /, **facts: str) -> None: ...


class _Value(msgspec.Struct, forbid_unknown_fields=True):
    tag: str
    value: str


class _Wanted(msgspec.Struct, forbid_unknown_fields=True):
    values: list[_Value]


_DECODER = msgspec.json.Decoder(_Wanted)


class RevealApi:
    """The ASGI application. What goes wrong is answered with problem details; no exception leaves it."""

    def __init__(self, revealer: Revealer, *, new_id: Callable[[], str], log: Log) -> None:
        self._revealer = revealer
        self._new_id = new_id
        self._log = log
        self._under_way = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            return
        response = await self._answer(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        exchange_id = self._new_id()
        if self._under_way >= MAX_IN_FLIGHT:
            return problem(GateFull(), exchange_id)
        self._under_way += 1
        try:
            return await self._guarded(request, exchange_id)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except Exception as error:  # noqa: BLE001 - a bug of ours; its text may quote a value, so its type must do
            self._log("reveal.crashed", error=type(error).__name__)
            return problem(GharialError(), exchange_id)
        finally:
            self._under_way -= 1

    async def _guarded(self, request: Request, exchange_id: str) -> Response:
        begun: Begun | None = None
        try:
            if request.scope["path"] != PATH or request.method != "POST":
                raise NoRoute
            headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw)
            begun = self._revealer.begin(exchange_id, headers, request.client.host if request.client else "")
            items = _items_of(await _body_of(request))
            revealed = await self._revealer.reveal(begun, items)
        except GharialError as error:
            self._revealer.refuse(exchange_id, begun, error)
            return problem(error, exchange_id)
        return Response(
            _written(exchange_id, revealed), headers=api_headers(exchange_id), media_type="application/json"
        )


async def _body_of(request: Request) -> bytes:
    media = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media != "application/json" or "content-encoding" in request.headers:
        raise RequestUnreadable
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise RequestTooLarge
    except TimeoutError:
        raise RequestMalformed("the body did not come in time") from None
    return bytes(body)


def _items_of(body: bytes) -> list[Item]:
    try:
        wanted = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not `from`: the text of the cause may quote what was sent.
        raise RequestMalformed('the body is {"values": [{"tag": …, "value": …}, …]}') from None
    if not 1 <= len(wanted.values) <= MAX_ITEMS:
        raise RequestMalformed(f"a call has 1 to {MAX_ITEMS} values")
    return [Item(value.tag, value.value) for value in wanted.values]


def _written(exchange_id: str, revealed: Sequence[Clear | Erased | None]) -> bytes:
    values: list[dict[str, object]] = []
    for clear in revealed:
        if isinstance(clear, Clear):
            values.append({"value": _json_of(clear)})
        else:
            values.append({"error": "refused" if clear is None else "erased"})
    return msgspec.json.encode({"exchange": exchange_id, "values": values})


def _json_of(clear: Clear) -> object:
    """Return the value with its JSON type; a number keeps each digit."""
    match clear.kind:
        case Kind.NUMBER if _NUMBER.fullmatch(clear.text):
            return msgspec.Raw(clear.text.encode("ascii"))
        case Kind.BOOLEAN if clear.text in ("true", "false"):
            return clear.text == "true"
        case Kind.NULL:
            return None
        case _:
            return clear.text


def api_headers(exchange_id: str) -> dict[str, str]:
    """Return the headers of every answer."""
    return {EXCHANGE_HEADER: exchange_id, "cache-control": "no-store", "x-content-type-options": "nosniff"}


def problem(error: GharialError, exchange_id: str) -> Response:
    """Return the problem document of a refusal (RFC 9457)."""
    return Response(
        msgspec.json.encode(problem_body(error, exchange_id)),
        status_code=error.status,
        headers={**api_headers(exchange_id), **dict(refusal_headers(error))},
        media_type="application/problem+json",
    )


def by_prefix(prefix: str, app: ASGIApp, other: ASGIApp) -> ASGIApp:
    """Return the application that hands calls below a path to one, all others to another."""

    async def run(scope: Scope, receive: Receive, send: Send) -> None:
        chosen = app if str(scope.get("path", "")).startswith(prefix) else other
        await chosen(scope, receive, send)

    return run


def bind_api(api: Api) -> socket.socket:
    """Return a socket that listens where the settings say. Raises GateUnavailable."""
    family = socket.AF_INET6 if ":" in api.address else socket.AF_INET
    try:
        return socket.create_server((api.address, api.port), family=family)
    except OSError as error:
        raise GateUnavailable(
            f"can't listen on {api.address}:{api.port} ({error.strerror}); another program is there: "
            "choose another api.port"
        ) from None


async def serve_api(app: ASGIApp, api: Api, bounds: Bounds = BOUNDS) -> tuple[uvicorn.Server, asyncio.Task[None]]:
    """Serve the API; returns the server (set `should_exit` to end it) and its task.

    Raises GateUnavailable, and ConfigInvalid for certificate files that can't be used.
    """
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        lifespan="off",
        # h11 bounds the head of a request; httptools takes any length.
        http="h11",
        ws="none",
        # Whose word on the client's address counts is the identifier's to say.
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=STOP_TIMEOUT_S,
        ssl_certfile=api.tls.cert if api.tls else None,
        ssl_keyfile=api.tls.key if api.tls else None,
    )
    try:
        config.load()
    except OSError as error:
        raise ConfigInvalid([Problem("api.tls", 1, 1, f"can't be used ({type(error).__name__})")]) from None
    server = BoundedServer(config, bounds)
    task = await start_server(server, bind_api(api))
    if task.done():
        task.result()
    return server, task
