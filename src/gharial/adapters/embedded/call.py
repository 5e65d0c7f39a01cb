"""One call of an app, step by step, for whoever speaks ASGI or WSGI: the same steps as on a stream with Envoy.

What Envoy does for a gateway is done here: one spelling of a path, one way for its bytes, an exact length.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar, assert_never
from urllib.parse import quote, unquote

from gharial.gate.outcome import (
    BodyMode,
    Exchange,
    ForwardBody,
    ForwardHead,
    ForwardRequest,
    Headers,
    Refuse,
    RequestHead,
    ResponseHead,
)
from gharial.gate.vouch import Caller
from gharial.model.errors import (
    CallerInvalid,
    GharialError,
    ProtocolViolation,
    RequestMalformed,
    TokenRefused,
    problem_body,
)

_T = TypeVar("_T")

BODILESS = frozenset({204, 304})

_SAFE_IN_PATH = "/-._~!$&'()*+,;=:@"
_SLASHES = re.compile("/{2,}")
_HIDDEN_SLASH = re.compile(r"%(?:2f|5c)|\\", re.IGNORECASE)
_FRAMING = frozenset({"content-length", "transfer-encoding"})


@dataclass(frozen=True, slots=True)
class Announced:
    """What is done on a route.

    `route` is its name, empty where none matches; `mode` how an answer's body travels; `reads_requests`: a request's
    body is read before it goes on.
    """

    route: str
    mode: BodyMode
    reads_requests: bool = False


class Engine(Protocol):
    """A gate of this process, as middleware needs it."""

    @property
    def max_bytes(self) -> int:
        """The longest body that is read."""

    def announce(self, method: str, path: str) -> Announced:
        """Say what is done with a call of this normalised path."""

    def exchange(self, caller: Caller | None) -> Exchange:
        """Return a fresh exchange; with a caller, for whom the app vouches, no header says who asks."""

    def run(self, work: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T]:
        """Run work on the gate's loop. Raises GateUnavailable."""

    def call_soon(self, work: Callable[[], None]) -> None:
        """Have the gate's loop do something after all that it was given before."""


class Gate(Protocol):
    """What middleware is given: a loaded gate (`gharial.load`)."""

    @property
    def engine(self) -> Engine:
        """The gate's engine."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the server handed it over. `path` is decoded; `raw_path`, where the server has it, is not."""

    method: str
    path: str = field(repr=False)
    query: str = field(repr=False)
    headers: Headers = field(repr=False)
    raw_path: str = field(default="", repr=False)
    scheme: str = "http"
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Onward:
    """The request as the app gets it. `path` is decoded, `raw_path` the very text that was judged, or set."""

    path: str = field(repr=False)
    raw_path: str = field(repr=False)
    query: str = field(repr=False)
    headers: Headers = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What the client gets in place of the app's answer, or as it."""

    status: int
    headers: Headers = field(repr=False)
    body: bytes = field(repr=False)


class Call:
    """One call. Each step returns a future of the gate's loop; a step that fails, however it fails, gives a Reply.

    `begin` comes first, `end` last and always; `mode` says which steps lie between.
    """

    def __init__(self, engine: Engine, request: Request, caller: Callable[[], Caller | None]) -> None:
        """`caller` returns for whom the app vouches, or None: then headers say who asks.

        It is asked here, on the app's own thread; what it raises refuses the call.
        """
        self._engine = engine
        self._request = request
        self._vouched: Caller | Exception | None
        try:
            self._vouched = caller()
        except Exception as error:  # noqa: BLE001 - raised again where it refuses
            self._vouched = error
        self._exchange: Exchange | None = None
        self._head = ForwardHead()
        self._status = 0
        self._app_headers: Headers = ()
        self.expects_body = True
        """Whether the answer has a body; known once its head was judged."""
        self.completed = False
        """The last decision was handed to the server."""
        try:
            self._target = normal_path(request) + (f"?{request.query}" if request.query else "")
            self._announced = engine.announce(request.method, self._target.partition("?")[0])
        except RequestMalformed:
            # The exchange refuses it too, and writes that down.
            self._target, self._announced = "", Announced("", BodyMode.BUFFERED)

    @property
    def mode(self) -> BodyMode:
        """BUFFERED: the answer waits for `body`. STREAMED: it passes, and `chunk` looks at it. NONE: it passes."""
        return self._announced.mode

    @property
    def route(self) -> str:
        """The name of the route, or empty."""
        return self._announced.route

    @property
    def reads_requests(self) -> bool:
        """The request's body is to be handed over as a whole, before the app sees any of it."""
        return self._announced.reads_requests

    @property
    def max_bytes(self) -> int:
        """How much of a body is worth collecting: one byte more, and it is refused."""
        return self._engine.max_bytes

    # --- the request

    def begin(self, *, has_body: bool) -> Future[Onward | Reply]:
        """Decide about the request. `has_body` matters only where `reads_requests`."""
        return self._do(lambda: self._begin(has_body=has_body))

    async def _begin(self, *, has_body: bool) -> Onward | Reply:
        request = self._request
        caller = self._vouched
        if isinstance(caller, Exception):
            raise caller
        if caller is not None and not isinstance(caller, Caller):
            raise CallerInvalid("the app vouches for something that is no gharial.Caller")
        self._exchange = self._engine.exchange(caller)
        if any("_" in name for name, _ in request.headers):
            # Some servers read `x_api_key` as `x-api-key`.
            raise RequestMalformed("a header's name holds '_'")
        outcome = await self._exchange.on_request(
            RequestHead(
                method=request.method,
                target=self._target,
                authority=next((value for name, value in request.headers if name == "host"), ""),
                scheme=request.scheme,
                headers=request.headers,
                proxy_route=self._announced.route,
                response_body=self._announced.mode,
                peer=request.peer,
                has_body=has_body,
                request_body=BodyMode.BUFFERED if self.reads_requests else BodyMode.NONE,
            )
        )
        match outcome:
            case Refuse():
                return self._refused(outcome)
            case ForwardRequest():
                return self._onward(outcome)
            case _:
                assert_never(outcome)

    def _onward(self, outcome: ForwardRequest) -> Onward:
        path, _, query = (self._target if outcome.target is None else outcome.target).partition("?")
        if _HIDDEN_SLASH.search(path):
            # An app gets its path decoded: with a slash in a value it would be another path than the one judged.
            raise TokenRefused("a resolved token can't be written as one path segment")
        return Onward(
            path=unquote(path, errors="strict"),
            raw_path=path,
            query=query,
            headers=changed(self._request.headers, outcome.set_headers, outcome.remove_headers),
        )

    def request_body(self, body: bytes) -> Future[bytes | Reply]:
        """Return the body that the app gets."""
        return self._do(lambda: self._request_body(body))

    async def _request_body(self, body: bytes) -> bytes | Reply:
        outcome = await self._begun.on_request_body(body)
        match outcome:
            case Refuse():
                return self._refused(outcome)
            case ForwardBody():
                return body if outcome.body is None else outcome.body
            case _:
                assert_never(outcome)

    # --- the answer

    def response(self, status: int, headers: Headers) -> Future[Headers | Reply]:
        """Decide about the answer's head; return the headers to send, where the body passes or there is none.

        Under BUFFERED, where a body is to come, the headers wait for it: `body` returns them.
        """
        return self._do(lambda: self._response(status, headers))

    async def _response(self, status: int, headers: Headers) -> Headers | Reply:
        if status < 200:
            raise ProtocolViolation("the app would switch to another protocol")
        self._status, self._app_headers = status, headers
        announced_empty = ("content-length", "0") in headers
        self.expects_body = self._request.method != "HEAD" and status not in BODILESS and not announced_empty
        head = ResponseHead(status, headers, has_body=self.expects_body, from_upstream=True)
        outcome = await self._begun.on_response(head)
        match outcome:
            case Refuse():
                return self._refused(outcome)
            case ForwardHead():
                self._head = outcome
            case _:
                assert_never(outcome)
        sent = changed(headers, outcome.set_headers, outcome.remove_headers)
        # The length of the clear body tells something of it, and is not the length of what is sent.
        if self.mode is not BodyMode.BUFFERED:
            return sent
        empty = (("content-length", "0"),) if announced_empty and status not in BODILESS else ()
        return (*without(sent, _FRAMING), *(empty if self._request.method != "HEAD" else ()))

    def body(self, body: bytes) -> Future[Reply]:
        """Decide about a whole body: the answer as it is to be sent."""
        return self._do(lambda: self._body(body))

    async def _body(self, body: bytes) -> Reply:
        outcome = await self._begun.on_body(body)
        match outcome:
            case Refuse():
                return self._refused(outcome)
            case ForwardBody():
                if outcome.body is None:
                    raise ProtocolViolation("a body would pass as it is")
                headers = changed(self._app_headers, self._head.set_headers, self._head.remove_headers)
                headers = changed(without(headers, _FRAMING), outcome.set_headers, ())
                length = ("content-length", str(len(outcome.body)))
                return Reply(self._status, (*headers, length), outcome.body)
            case _:
                assert_never(outcome)

    def chunk(self, chunk: bytes, *, end: bool) -> Future[Reply | None]:
        """Look at a piece of a body that passes (STREAMED). A Reply: it must not pass, and no more of it."""
        return self._do(lambda: self._chunk(chunk, end=end))

    async def _chunk(self, chunk: bytes, *, end: bool) -> None:
        # Of an answer without a body all was said with its head.
        if self.expects_body:
            await self._begun.on_chunk(chunk, end=end)

    # --- the end

    def failed(self) -> Future[Reply]:
        """Return what a client gets where the app broke off: its status alone, written down as the app's answer."""
        return self._do(self._failed)

    async def _failed(self) -> Reply:
        if not self._status:
            outcome = await self._begun.on_response(ResponseHead(500, (), has_body=False, from_upstream=True))
            if isinstance(outcome, Refuse):
                return self._refused(outcome)
            headers = changed((), outcome.set_headers, ())
            return Reply(500, (*headers, ("content-length", "0")), b"")
        return Reply(500, (("cache-control", "no-store"), ("content-length", "0")), b"")

    def end(self) -> None:
        """Say that the call is over; called once, whatever happened."""
        self._engine.call_soon(self._end)

    def _end(self) -> None:
        if self._exchange is not None:
            self._exchange.on_end(completed=self.completed)

    def refusal(self, error: GharialError) -> Reply:
        """Return the answer for an error that the exchange knows nothing of."""
        return self._refused(Refuse(error))

    @property
    def _begun(self) -> Exchange:
        if self._exchange is None:
            raise ProtocolViolation("nothing comes before the request")
        return self._exchange

    def _refused(self, outcome: Refuse) -> Reply:
        body = json.dumps(problem_body(outcome.error, outcome.exchange_id), separators=(",", ":")).encode()
        headers = changed(
            outcome.set_headers,
            (
                ("content-type", "application/problem+json"),
                ("cache-control", "no-store"),
                ("content-length", str(len(body))),
            ),
            (),
        )
        return Reply(outcome.error.status, headers, b"" if self._request.method == "HEAD" else body)

    def _do(self, make: Callable[[], Coroutine[Any, Any, _T]]) -> Future[_T | Reply]:
        try:
            return self._engine.run(lambda: self._step(make()))
        except GharialError as error:
            # The gate is closed, or of another process: there is nothing that could be asked.
            refused: Future[_T | Reply] = Future()
            refused.set_result(self.refusal(error))
            return refused

    async def _step(self, work: Coroutine[Any, Any, _T]) -> _T | Reply:
        """Do one step; whatever fails in it refuses. The text of what nobody expected goes nowhere."""
        try:
            return await work
        except GharialError as error:
            return self.refusal(error)
        except Exception:  # noqa: BLE001 - the outermost boundary: a bug may not let a clear body pass
            return self.refusal(GharialError())


def normal_path(request: Request) -> str:
    """Return the path as it is judged: one spelling for each path that an app can be given.

    Apps get their path decoded, so that `/%63ustomers` is `/customers` to them; it must be so to the routes, too.
    Raises RequestMalformed for a path that holds a slash in another spelling, or is not one of characters.
    """
    if _HIDDEN_SLASH.search(request.raw_path) or "\\" in request.path or not request.path.startswith("/"):
        raise RequestMalformed("the path holds a slash that servers read in different ways")
    try:
        return _SLASHES.sub("/", quote(request.path, safe=_SAFE_IN_PATH, errors="strict"))
    except UnicodeEncodeError:
        raise RequestMalformed("the path is not UTF-8") from None


def changed(headers: Headers, set_headers: Headers, remove: tuple[str, ...]) -> Headers:
    """Return headers without those of `remove`, and with `set_headers` in the place of all of their names.

    Raises ValueError for a value that would end its line.
    """
    if any(char in value for _, value in set_headers for char in "\r\n\0"):
        raise ValueError("a header value can't hold CR, LF or NUL")
    gone = {*remove, *(name for name, _ in set_headers)}
    return (*(item for item in headers if item[0] not in gone), *set_headers)


def without(headers: Headers, names: frozenset[str]) -> Headers:
    """Return headers without some names."""
    return tuple(item for item in headers if item[0] not in names)
