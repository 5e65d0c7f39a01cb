"""Which headers of a protected exchange pass, which go, and which are rewritten.

Responses on an enforced route are default-deny like fields: only names on `SAFE_RESPONSE_HEADERS` and the route's own
`keep_headers` pass. Validators and digests of the clear body never do.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from urllib.parse import urlsplit

from gharial.gate.outcome import Headers
from gharial.model.errors import CallerThrottled, GharialError, TooManyCalls

EXCHANGE_HEADER = "gharial-exchange"
POLICY_HEADER = "gharial-policy"
PURPOSE_HEADER = "gharial-purpose"

SAFE_RESPONSE_HEADERS = frozenset(
    [
        "access-control-allow-credentials",
        "access-control-allow-headers",
        "access-control-allow-methods",
        "access-control-allow-origin",
        "access-control-expose-headers",
        "access-control-max-age",
        "allow",
        "cache-control",
        "connection",
        "content-language",
        "content-length",
        "content-security-policy",
        "content-type",
        "cross-origin-resource-policy",
        "date",
        "deprecation",
        "keep-alive",
        "permissions-policy",
        "ratelimit",
        "ratelimit-limit",
        "ratelimit-policy",
        "ratelimit-remaining",
        "ratelimit-reset",
        "referrer-policy",
        "retry-after",
        "server",
        "strict-transport-security",
        "sunset",
        "transfer-encoding",
        "vary",
        "www-authenticate",
        "x-content-type-options",
        "x-frame-options",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
        "x-request-id",
    ]
)
"""What tells nothing of a person by its nature. Everything else an upstream sends stays here."""

REQUEST_CONTROL = frozenset(
    [
        "x-forwarded-method",
        "x-forwarded-path",
        "x-forwarded-prefix",
        "x-forwarded-uri",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-uri",
        "x-original-url",
        "x-override-url",
        "x-rewrite-url",
    ]
)
"""Names by which a client could make the upstream serve another path or method than the one that was judged."""

_RANGES = frozenset(["range", "if-range", "if-modified-since"])

VALIDATED_METHODS = frozenset({"GET", "HEAD"})


def first_value(headers: Headers, name: str) -> str | None:
    """Return the value of the first header of that (lower-case) name, or None."""
    return next((value for key, value in headers if key == name), None)


def all_values(headers: Headers, name: str) -> tuple[str, ...]:
    """Return the values of all headers of that (lower-case) name."""
    return tuple(value for key, value in headers if key == name)


def request_headers_to_remove(headers: Headers, method: str) -> set[str]:
    """Return the names that a protected request must lose: ranges, validators of GET and HEAD, control headers.

    A conditional read would tell whether, and how long, a clear body is; so it is answered in full. The conditions of a
    write keep their meaning and are resolved by `resolve_conditions`.
    """
    names = {name for name, _ in headers}
    remove = {n for n in names if n.startswith(("gharial-", "x-gharial-")) or n in REQUEST_CONTROL or n in _RANGES}
    if method in VALIDATED_METHODS:
        remove |= names & {"if-none-match", "if-unmodified-since"}
    return remove


def resolve_conditions(headers: Headers, method: str, open_etag: Callable[[str], str]) -> Headers:
    """Return `If-Match` and (for writes) `If-None-Match` with our entity tags turned into the upstream's own.

    `*` stays as it is. Raises PreconditionFailed (from `open_etag`) for a tag that was not issued to this caller.
    """
    names = ("if-match",) if method in VALIDATED_METHODS else ("if-match", "if-none-match")
    resolved: list[tuple[str, str]] = []
    for name in names:
        values = [part for value in all_values(headers, name) for part in _split_tags(value)]
        if values:
            resolved.append((name, ", ".join(v if v == "*" else open_etag(v) for v in values)))
    return tuple(resolved)


def _split_tags(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


def response_headers_to_remove(headers: Headers, keep: frozenset[str]) -> set[str]:
    """Return the names of an enforced response that stay here."""
    return {
        name
        for name, _ in headers
        if name not in SAFE_RESPONSE_HEADERS and name not in keep and not name.startswith(":")
    }


def local_location(location: str, authorities: Iterable[str]) -> str | None:
    """Return a redirect's target as path, query and fragment if it names the upstream (or no host at all), else None.

    A target that can't be read in one way only is None too.
    """
    if any(ord(char) <= 0x20 or ord(char) == 0x7F for char in location) or "\\" in location:
        return None
    try:
        parts = urlsplit(location)
    except ValueError:
        return None
    if parts.scheme not in ("", "http", "https") or (parts.scheme and not parts.netloc):
        return None
    if parts.netloc and parts.netloc.lower() not in authorities:
        return None
    if not parts.path.startswith("/") or parts.path.startswith("//"):
        return None
    query = f"?{parts.query}" if parts.query else ""
    fragment = f"#{parts.fragment}" if parts.fragment else ""
    return f"{parts.path}{query}{fragment}"


def refusal_headers(error: GharialError) -> Headers:
    """Return the headers that go with a refusal of this kind."""
    if error.status == 401:
        return (("www-authenticate", 'Bearer realm="gharial", ApiKey realm="gharial"'),)
    if isinstance(error, TooManyCalls):
        return (("retry-after", str(math.ceil(error.retry_after_s))),)
    if isinstance(error, CallerThrottled):
        return (("retry-after", "10"),)
    if error.status == 503:
        return (("retry-after", "1"),)
    return ()
