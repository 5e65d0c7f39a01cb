"""The words between the gate and whatever speaks a protocol to it: heads in, `Forward` or `Refuse` out.

An adapter `match`es on these and ends with `assert_never`; there is no third outcome.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Protocol

from gharial.model.errors import GharialError

Headers = tuple[tuple[str, str], ...]
"""Names in lower case, in the order they came; a name may occur more than once. Values decoded as latin-1."""


class BodyMode(enum.StrEnum):
    """How a body reaches the gate, as the attached proxy announced it."""

    BUFFERED = "buffered"
    STREAMED = "streamed"
    DUPLEX = "duplex"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head as the proxy normalised it. `target` is the path with its query.

    `proxy_route` is the route that the proxy itself chose, or empty if it names none; `response_body` the mode that it
    announced for this exchange. `peer` is the address of whoever is connected to the proxy, with or without a port, or
    empty if the proxy does not tell; never what a header says. `has_body` is true if a body follows, and `request_body`
    is how it will reach the gate (BUFFERED or NONE).
    """

    method: str
    target: str
    authority: str
    scheme: str
    headers: Headers = field(repr=False)
    proxy_route: str = ""
    response_body: BodyMode = BodyMode.UNKNOWN
    peer: str = ""
    has_body: bool = False
    request_body: BodyMode = BodyMode.NONE


@dataclass(frozen=True, slots=True)
class ResponseHead:
    """A response's head. `from_upstream` is true only if the proxy vouches that the upstream itself sent it.

    `proxy_detail` is the proxy's own word for what happened (Envoy: `response.code_details`), for answers of its own.
    """

    status: int
    headers: Headers = field(repr=False)
    has_body: bool = True
    from_upstream: bool = False
    proxy_detail: str = ""


@dataclass(frozen=True, slots=True)
class ForwardRequest:
    """The request may go to the upstream, changed so. `target` None: unchanged."""

    target: str | None = field(default=None, repr=False)
    set_headers: Headers = field(default=(), repr=False)
    remove_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForwardHead:
    """The head may go to the client, changed so; the body, if there is one, waits for its own decision."""

    set_headers: Headers = field(default=(), repr=False)
    remove_headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ForwardBody:
    """This body may go on. `body` None means: the bytes that came, unchanged.

    A response's on an enforced route is always named, a request's only where it changed.
    """

    body: bytes | None = field(default=None, repr=False)
    set_headers: Headers = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class ForwardPart:
    """This much more of the body may go to the client, mostly nothing. What came is held by the gate, or is gone.

    `cut`: nothing follows, and the client must see that it did not get all.
    """

    body: bytes = field(default=b"", repr=False)
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing of the upstream's answer may go to the client; it gets the problem details of `error`."""

    error: GharialError
    exchange_id: str = ""
    set_headers: Headers = ()


class Exchange(Protocol):
    """One request and its response, as the adapter drives it: one call at a time, in the order written here.

    An expected failure is answered with `Refuse` (a GharialError that is raised is taken as one). Any other exception
    is a bug: the adapter answers 500 and forwards nothing. After a `Refuse` only `on_end` follows.
    """

    async def on_request(self, head: RequestHead) -> ForwardRequest | Refuse:
        """Decide about the request's head; always the first call, at most once."""

    async def on_request_body(self, body: bytes) -> ForwardBody | Refuse:
        """Decide about the request's whole body; only where its head has one and was announced as BUFFERED."""

    async def on_response(self, head: ResponseHead) -> ForwardHead | Refuse:
        """Decide about the response's head. Without a body (`has_body` False) this is the last decision."""

    async def on_body(self, body: bytes) -> ForwardBody | Refuse:
        """Decide about the whole body; only under BodyMode.BUFFERED, and only where the head forwarded has one."""

    async def on_chunk(self, chunk: bytes, *, end: bool) -> None:
        """Look at a copy of a part of the body that passes unchanged; only under BodyMode.STREAMED."""

    async def on_part(self, part: bytes, *, end: bool) -> ForwardPart | Refuse:
        """Decide what may follow, after this part of the body has come; only under BodyMode.DUPLEX.

        The head that was forwarded leaves with the first part that is not empty, or with the last one. A refusal before
        takes the place of the answer; after, the answer is cut off.
        """

    def on_end(self, *, completed: bool) -> None:
        """The exchange is over; called exactly once, whatever happened, even if the call is being cancelled.

        `completed` is true if the last decision (a refusal is one) was handed to the proxy; it does not say that the
        client has read the answer.
        """
