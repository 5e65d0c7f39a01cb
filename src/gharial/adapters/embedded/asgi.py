"""ASGI middleware: an app's answers through the gate of this process. Pure ASGI; needs no framework."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from concurrent.futures import Future
from typing import Any, TypeVar

from gharial.adapters.embedded.call import Call, Gate, Onward, Reply, Request
from gharial.gate.outcome import BodyMode, Headers
from gharial.gate.vouch import Caller
from gharial.model.errors import ProtocolViolation

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
StatesCaller = Callable[[Mapping[str, Any]], Caller | None]

_T = TypeVar("_T")


class GharialMiddleware:
    """Puts an ASGI app behind a gate of this process, by the routes, policies and identity of its gharial.yaml.

    `gate` is what `gharial.load` returned. `caller(scope)`, if given, returns the `gharial.Caller` for whom the app
    vouches, or None: then headers say who asks, as at the gateway.
    """

    def __init__(self, app: App, gate: Gate, caller: StatesCaller | None = None) -> None:
        self._app = app
        self._gate = gate
        self._states_caller = caller

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection scope."""
        match scope["type"]:
            case "lifespan":
                await self._app(scope, receive, send)
            case "http":
                await self._serve(scope, receive, send)
            case "websocket":
                await self._websocket(scope, receive, send)
            case _:
                raise ProtocolViolation("a kind of connection that nobody here reads")

    def _call(self, scope: Scope, method: str) -> Call:
        client = scope.get("client")
        request = Request(
            method=method,
            path=scope["path"],
            query=scope.get("query_string", b"").decode("latin-1"),
            headers=_read(scope["headers"]),
            raw_path=(scope.get("raw_path") or b"").decode("latin-1"),
            scheme=scope.get("scheme", "http"),
            peer=str(client[0]) if client else "",
        )
        states = self._states_caller
        return Call(self._gate.engine, request, lambda: states(scope) if states is not None else None)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._call(scope, scope["method"])
        try:
            await self._serve_call(call, scope, receive, send)
        finally:
            # Also under cancellation; the gate's loop does it after the step that may be running.
            call.end()

    async def _serve_call(self, call: Call, scope: Scope, receive: Receive, send: Send) -> None:
        body, more = b"", False
        if call.reads_requests:
            body, more = await _collect_request(receive, 0)
        begun = await _wait(call.begin(has_body=bool(body) or more))
        answer = _Answer(call, send)
        if isinstance(begun, Reply):
            await answer.reply(begun)
            return
        headers = begun.headers
        if call.reads_requests and (body or more):
            if more:
                rest, more = await _collect_request(receive, call.max_bytes)
                body += rest
            if more and len(body) <= call.max_bytes:
                return  # the client went away in the middle of its body
            replaced = await _wait(call.request_body(body))
            if isinstance(replaced, Reply):
                await answer.reply(replaced)
                return
            body = replaced
            framing = ("content-length", "transfer-encoding")
            headers = (*(h for h in headers if h[0] not in framing), ("content-length", str(len(body))))
        if call.reads_requests:
            receive = _replay(body, receive)
        await self._ask_app(_scope_for(scope, call, begun, headers), receive, answer)

    async def _ask_app(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        try:
            await self._app(scope, receive, answer)
        except Exception:
            if answer.cut:
                return  # what was raised is what this middleware raised to stop the app
            await answer.fail()
            raise
        await answer.fail()

    async def _websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = self._call(scope, "GET")
        try:
            if call.mode is BodyMode.NONE:
                begun = await _wait(call.begin(has_body=False))
                if isinstance(begun, Onward):
                    call.completed = True
                    await self._app(_scope_for(scope, call, begun, begun.headers), receive, send)
                    return
            # Nothing that a covered route says could be judged here. Before it is accepted, closing is answered by 403.
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        finally:
            call.end()


class _Cut(OSError):
    """Raised in the app by `send` once its answer has been refused; servers raise OSError where a client is gone."""


class _Answer:
    """What the app calls as `send`."""

    def __init__(self, call: Call, send: Send) -> None:
        self._call = call
        self._send = send
        self._body = bytearray()
        self._started = False
        self._answered = False
        self.cut = False

    async def __call__(self, message: Message) -> None:
        kind = message["type"]
        if self._answered:
            if self.cut:
                raise _Cut
            return  # a body that HEAD, 204 or 304 does not have
        if kind == "http.response.start" and not self._started:
            await self._start(message)
        elif kind == "http.response.body" and self._started:
            await self._piece(bytes(message.get("body", b"")), more=bool(message.get("more_body", False)))
        elif self._call.mode is BodyMode.BUFFERED:
            # Another way to send something (a file's path, a push): it would pass unseen.
            await self._refuse(self._call.refusal(ProtocolViolation()))
        else:
            await self._send(message)

    async def _start(self, message: Message) -> None:
        self._started = True
        mode = self._call.mode
        if message.get("trailers") and mode is BodyMode.BUFFERED:
            await self._refuse(self._call.refusal(ProtocolViolation()))
        status = int(message["status"])
        headers = await _wait(self._call.response(status, _read(message.get("headers", ()))))
        if isinstance(headers, Reply):
            await self._refuse(headers)
            return
        if mode is not BodyMode.BUFFERED:
            if mode is BodyMode.NONE:
                self._call.completed = True
            await self._send({**message, "headers": _written(headers)})
        elif not self._call.expects_body:
            await self.reply(Reply(status, headers, b""))

    async def _piece(self, piece: bytes, *, more: bool) -> None:
        mode = self._call.mode
        if mode is not BodyMode.BUFFERED:
            if mode is BodyMode.STREAMED:
                if await _wait(self._call.chunk(piece, end=not more)) is not None:
                    self.cut = self._answered = True
                    raise _Cut
                self._call.completed = not more
            await self._send({"type": "http.response.body", "body": piece, "more_body": more})
            return
        self._body += piece
        if more and len(self._body) <= self._call.max_bytes:
            return
        # Of one that is too large no more is collected: it is refused for what there is of it.
        reply = await _wait(self._call.body(bytes(self._body)))
        self._body.clear()
        await self.reply(reply)
        if more:
            self.cut = True
            raise _Cut

    async def reply(self, reply: Reply) -> None:
        """Send a whole answer; nothing of the app's follows."""
        self._started = self._answered = self._call.completed = True
        await self._send({"type": "http.response.start", "status": reply.status, "headers": _written(reply.headers)})
        await self._send({"type": "http.response.body", "body": reply.body, "more_body": False})

    async def _refuse(self, reply: Reply) -> None:
        self.cut = True
        await self.reply(reply)
        raise _Cut

    async def fail(self) -> None:
        """Answer for an app that ended without an answer: 500, and nothing of what it had begun to say."""
        if not self._answered and self._call.mode is BodyMode.BUFFERED:
            await self.reply(await _wait(self._call.failed()))


async def _wait(step: Future[_T]) -> _T:
    return await asyncio.wrap_future(step)


async def _collect_request(receive: Receive, limit: int) -> tuple[bytes, bool]:
    """Return (body, whether more follows), reading until it is longer than `limit`, ends, or the client is gone."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return bytes(body), True
        body += message.get("body", b"")
        more = bool(message.get("more_body", False))
        if not more or len(body) > limit or limit == 0:
            return bytes(body), more


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a `receive` that gives this body first, whole."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if not given:
            given = True
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return replay


def _scope_for(scope: Scope, call: Call, onward: Onward, headers: Headers) -> Scope:
    """Return the scope that the app gets: the path that was judged, the headers that may go on."""
    own = {
        **scope,
        "path": onward.path,
        "raw_path": onward.raw_path.encode("latin-1"),
        "query_string": onward.query.encode("latin-1"),
        "headers": _written(headers),
    }
    if call.mode is not BodyMode.NONE:
        # Trailers, pushes, files by their path: each is a way past the body that is judged.
        own["extensions"] = {}
    return own


def _read(headers: Any) -> Headers:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in headers)


def _written(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
