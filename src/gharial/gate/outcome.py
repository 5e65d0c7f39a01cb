"""The words between the gate and whatever speaks a protocol to it: heads in, `Forward` or `Refuse` out.

An adapter `match`es on these and ends with `assert_never`; there is no third outcome.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from gharial.model.errors import GharialError

Headers = tuple[tuple[str, str], ...]
"""Names in lower case, in the order they came; a name may occur more than once. Values decoded as latin-1."""


class BodyMode(enum.StrEnum):
    """How the body of a response reaches the gate, as the attached proxy announced it."""

    BUFFERED = "buffered"
    STREAMED = "streamed"
    NONE = "none"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class RequestHead:
    """A request's head as the proxy normalised it. `target` is the path with its query.

    `proxy_route` is the route that the proxy itself chose, or empty if it names none; `response_body` the mode that it
    announced for this exchange.
    """

    method: str
    target: str
    authority: str
    scheme: str
    headers: Headers = field(repr=False)
    proxy_route: str = ""
    response_body: BodyMode = BodyMode.UNKNOWN


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
    """This body may go to the client. `body` None means: the bytes that came, unchanged (`pass` and `shadow` only)."""

    body: bytes | None = field(default=None, repr=False)
    set_headers: Headers = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    """Nothing of the upstream's answer may go to the client; it gets the problem details of `error`."""

    error: GharialError
    exchange_id: str = ""
    set_headers: Headers = ()
