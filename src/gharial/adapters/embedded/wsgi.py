"""WSGI middleware (PEP 3333): an app's answers through the gate of this process. Needs no framework."""

from __future__ import annotations

import io
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.client import responses
from types import TracebackType
from typing import Any
from urllib.parse import unquote_to_bytes

from gharial.adapters.embedded.call import Call, Gate, Onward, Reply, Request
from gharial.gate.outcome import BodyMode, Headers
from gharial.gate.vouch import Caller
from gharial.model.errors import ProtocolViolation, RequestMalformed

Environ = dict[str, Any]
ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]
Write = Callable[[bytes], object]
StartResponse = Callable[..., Write]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
StatesCaller = Callable[[Mapping[str, Any]], Caller | None]

_CGI_HEADERS = {"content-type": "CONTENT_TYPE", "content-length": "CONTENT_LENGTH"}
_RAW_TARGETS = ("REQUEST_URI", "RAW_URI")
_SOCKETS = ("gunicorn.socket", "werkzeug.socket", "wsgi.file_wrapper")


class GharialWsgiMiddleware:
    """Puts a WSGI app behind a gate of this process, by the routes, policies and identity of its gharial.yaml.

    `gate` is what `gharial.load` returned. `caller(environ)`, if given, returns the `gharial.Caller` for whom the app
    vouches, or None: then headers say who asks, as at the gateway.
    """

    def __init__(self, app: App, gate: Gate, caller: StatesCaller | None = None) -> None:
        self._app = app
        self._gate = gate
        self._states_caller = caller

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        """Serve one request."""
        call = self._call(environ)
        try:
            served = _Serving(self._app, call, environ, start_response).serve()
        except BaseException:
            call.end()
            raise
        if isinstance(served, _Passing):
            return served  # it ends the call when the server closes it
        call.end()
        return served

    def _call(self, environ: Environ) -> Call:
        raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "").partition("?")[0]
        request = Request(
            method=environ["REQUEST_METHOD"],
            path=_decoded(environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")),
            query=environ.get("QUERY_STRING", ""),
            headers=_read_headers(environ),
            raw_path=raw,
            scheme=environ.get("wsgi.url_scheme", "http"),
            peer=environ.get("REMOTE_ADDR", ""),
        )
        states = self._states_caller
        return Call(self._gate.engine, request, lambda: states(environ) if states is not None else None)


class _Serving:
    """One request on its way through the app."""

    def __init__(self, app: App, call: Call, environ: Environ, start_response: StartResponse) -> None:
        self._app = app
        self._call = call
        self._environ = environ
        self._start_response = start_response

    def serve(self) -> Iterable[bytes]:
        """Return what the server sends on."""
        call = self._call
        body: bytes | None = None
        if call.reads_requests:
            try:
                body = _collect_request(self._environ, call.max_bytes)
            except RequestMalformed as error:
                return self._send(call.refusal(error))
        begun = call.begin(has_body=bool(body)).result()
        if isinstance(begun, Reply):
            return self._send(begun)
        environ = _environ_for(self._environ, call, begun)
        if environ is None:
            return self._send(call.refusal(RequestMalformed()))
        if body is not None:
            replaced = call.request_body(body).result() if body else body
            if isinstance(replaced, Reply):
                return self._send(replaced)
            environ.pop("HTTP_TRANSFER_ENCODING", None)
            environ |= {"wsgi.input": io.BytesIO(replaced), "CONTENT_LENGTH": str(len(replaced))}
        if call.mode is BodyMode.BUFFERED:
            return self._collected(environ)
        return _Passing(self._app, call, environ, self._start_response)

    def _send(self, reply: Reply) -> list[bytes]:
        self._call.completed = True
        self._start_response(_status(reply.status), list(reply.headers))
        return [reply.body] if reply.body else []

    def _collected(self, environ: Environ) -> Iterable[bytes]:
        """Let the app say all that it has to say, and send what may leave of it."""
        heard = _Heard(self._call)
        try:
            answer = self._app(environ, heard.start_response)
            try:
                for piece in answer:
                    if heard.take(piece):
                        break
            finally:
                close = getattr(answer, "close", None)
                if close is not None:
                    close()
        except Exception as error:  # noqa: BLE001 - the app's own; what it holds must not reach a server that shows it
            if heard.refused is None:
                _tell(self._environ, error)
                return self._send(self._call.failed().result())
        return self._send(heard.reply())


class _Heard:
    """What an app said, until all of it is there."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._said: tuple[int, Headers] | None = None
        self._asked = False
        self._sent_headers: Headers = ()
        self._body = bytearray()
        self.refused: Reply | None = None

    def start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Write:
        """PEP 3333. Called again with `exc_info`, the newest head counts: none has been sent."""
        if self._said is not None and exc_info is None:
            raise AssertionError("start_response was called twice")
        if not self._asked:
            self._said = int(status[:3]), _lower(headers)
        elif exc_info is not None and exc_info[1] is not None:
            # The head was judged already: what follows belongs to another answer.
            raise exc_info[1].with_traceback(exc_info[2])
        return self.take

    def take(self, piece: bytes) -> bool:
        """Take a piece of the body; True if no more is wanted."""
        if not piece:
            return self.refused is not None
        if not self._asked:
            self._ask()
        if self.refused is None:
            self._body += piece
            if len(self._body) > self._call.max_bytes:
                # Of one that is too large no more is collected: it is refused for what there is of it.
                self.refused = self._call.body(bytes(self._body)).result()
                self._body.clear()
        return self.refused is not None

    def reply(self) -> Reply:
        """Return what the client gets."""
        if not self._asked:
            self._ask()
        if self.refused is not None:
            return self.refused
        assert self._said is not None  # noqa: S101 - `_ask` refuses where nothing was said
        status, _ = self._said
        if not self._call.expects_body:
            return Reply(status, self._sent_headers, b"")
        return self._call.body(bytes(self._body)).result()

    def _ask(self) -> None:
        self._asked = True
        if self._said is None:
            self.refused = self._call.failed().result()
            return
        headers = self._call.response(*self._said).result()
        if isinstance(headers, Reply):
            self.refused = headers
        else:
            self._sent_headers = headers


class _Passing:
    """The answer of a route that is not enforced: it passes as the app makes it, watched or not."""

    def __init__(self, app: App, call: Call, environ: Environ, start_response: StartResponse) -> None:
        self._call = call
        self._start = start_response
        self._refused: Reply | None = None
        self._ended = False
        try:
            self._answer = app(environ, self._start_response)
        except BaseException:
            self._end()
            raise

    def _start_response(self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None) -> Write:
        decided = self._call.response(int(status[:3]), _lower(headers)).result()
        if isinstance(decided, Reply):
            self._refused = decided
            self._start(_status(decided.status), list(decided.headers), *([exc_info] if exc_info else []))
            return lambda _: None
        write = self._start(status, list(decided), *([exc_info] if exc_info else []))

        def watched(piece: bytes) -> None:
            if self._watch(piece, end=False):
                write(piece)

        return watched

    def _watch(self, piece: bytes, *, end: bool) -> bool:
        """Return whether a piece may pass."""
        if self._call.mode is not BodyMode.STREAMED:
            return True
        return self._call.chunk(piece, end=end).result() is None

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._answer:
            if self._refused is not None:
                break
            if not self._watch(piece, end=False):
                raise ProtocolViolation
            yield piece
        if self._refused is not None:
            yield self._refused.body
        else:
            self._watch(b"", end=True)
        self._call.completed = True

    def close(self) -> None:
        """PEP 3333: called by the server at the end, whatever happened."""
        try:
            close = getattr(self._answer, "close", None)
            if close is not None:
                close()
        finally:
            self._end()

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._call.end()


def _collect_request(environ: Environ, limit: int) -> bytes:
    """Return the request's body, or so much of it that it is too large.

    Raises RequestMalformed if it is unknown where it ends, or if it is cut off.
    """
    stream = environ["wsgi.input"]
    length = environ.get("CONTENT_LENGTH") or ""
    if environ.get("wsgi.input_terminated"):
        wanted = limit + 1
    elif environ.get("HTTP_TRANSFER_ENCODING") or (length and not (length.isascii() and length.isdecimal())):
        raise RequestMalformed("where the request's body ends is unknown")
    else:
        wanted = min(int(length or "0"), limit + 1)
    body = bytearray()
    while len(body) < wanted and (piece := stream.read(wanted - len(body))):
        body += piece
    if not environ.get("wsgi.input_terminated") and len(body) < wanted:
        raise RequestMalformed("the request's body is cut off")
    return bytes(body)


def _environ_for(environ: Environ, call: Call, onward: Onward) -> Environ | None:
    """Return the environ that the app gets: the path that was judged, the headers that may go on.

    None if the path is no longer below where the app is mounted.
    """
    mounted = _decoded(environ.get("SCRIPT_NAME", ""))
    if not onward.path.startswith(mounted):
        return None
    own = {name: value for name, value in environ.items() if not name.startswith("HTTP_")}
    for name in _CGI_HEADERS.values():
        own.pop(name, None)
    joined: dict[str, list[str]] = {}
    for name, value in onward.headers:
        joined.setdefault(name, []).append(value)
    own |= {
        _CGI_HEADERS.get(name, f"HTTP_{name.upper().replace('-', '_')}"): ("; " if name == "cookie" else ",").join(
            values
        )
        for name, values in joined.items()
    }
    raw = onward.raw_path + (f"?{onward.query}" if onward.query else "")
    own |= {name: raw for name in _RAW_TARGETS if name in environ}
    path = unquote_to_bytes(onward.raw_path).decode("latin-1")
    own |= {"PATH_INFO": path[len(environ.get("SCRIPT_NAME", "")) :], "QUERY_STRING": onward.query}
    if call.mode is not BodyMode.NONE:
        # The connection itself is a way past the body that is judged.
        own = {name: value for name, value in own.items() if name not in _SOCKETS}
    return own


def _decoded(path: str) -> str:
    """Return a path of the environ, which is bytes as latin-1, as text; what is no UTF-8 stays unreadable."""
    return path.encode("latin-1", "surrogateescape").decode("utf-8", "surrogateescape")


def _read_headers(environ: Environ) -> Headers:
    found = [
        (name[5:].replace("_", "-").lower(), str(value)) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    for name, key in _CGI_HEADERS.items():
        if environ.get(key):
            found.append((name, str(environ[key])))
    return tuple(found)


def _lower(headers: Iterable[tuple[str, str]]) -> Headers:
    return tuple((name.lower(), value) for name, value in headers)


def _status(status: int) -> str:
    return f"{status} {responses.get(status, 'Unknown')}"


def _tell(environ: Environ, error: Exception) -> None:
    """Say on the server's error stream where the app broke off. Not with what text: it may hold a value."""
    stream = environ.get("wsgi.errors")
    if stream is not None:
        where = "".join(traceback.format_tb(error.__traceback__))
        stream.write(f"the app broke off ({type(error).__name__}):\n{where}")
