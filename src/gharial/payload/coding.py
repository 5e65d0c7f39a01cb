"""Undoes the content coding gzip (RFC 1952), all of it and within bounds.

What a lenient client would skip or read further (a second member, padding, rubbish at the end) never leaves unread:
every member is inflated and checked, and anything after the last one is refused.
"""

from __future__ import annotations

import zlib

from gharial.model.errors import BodyTooLarge, CodingMalformed
from gharial.model.finding import Limits

RATIO_FREE_BYTES = 1_000_000
"""Output up to which `Limits.inflate_ratio` is not applied, so that small, very regular bodies pass."""

MAX_MEMBERS = 1024
"""Members that one body may have. Without a bound, a body of empty members costs time quadratic in its size."""

_WINDOW_BYTES = 65_536
_GZIP_ONLY = 31  # zlib's wbits: a 32 KB window, a gzip header and trailer demanded and checked


def inflate(body: bytes, limits: Limits) -> bytes:
    """Return the content of a gzip body: all its members, CRC and length of each checked.

    Raises BodyTooLarge if the body, before or after, is longer than `limits.body_bytes`; CodingMalformed if it is
    broken, truncated, followed by anything, or inflates by more than `limits.inflate_ratio`. Never holds more output
    than these two allow.
    """
    if len(body) > limits.body_bytes:
        raise BodyTooLarge(f"longer than {limits.body_bytes} bytes before decoding")
    if not body:
        raise CodingMalformed("an empty body is no gzip")
    ratio_bytes = max(RATIO_FREE_BYTES, limits.inflate_ratio * len(body))
    allowed = min(limits.body_bytes, ratio_bytes)
    pieces: list[bytes] = []
    size = at = members = 0
    view = memoryview(body)
    try:
        while at < len(body):
            members += 1
            if members > MAX_MEMBERS:
                raise CodingMalformed(f"more than {MAX_MEMBERS} gzip members")
            member = zlib.decompressobj(wbits=_GZIP_ONLY)
            while not member.eof:
                # Windows, so that what follows a member (`unused_data`, a copy) stays small.
                fed: bytes | memoryview = member.unconsumed_tail or view[at : at + _WINDOW_BYTES]
                if not member.unconsumed_tail:
                    at += len(fed)
                # One byte more than allowed tells 'just full' from 'too long'; 0 would mean 'no bound' to zlib.
                piece = member.decompress(fed, min(_WINDOW_BYTES, allowed - size + 1))
                if not piece and not fed and not member.eof:
                    raise CodingMalformed("the gzip body is truncated")
                size += len(piece)
                if size > allowed:
                    if allowed < limits.body_bytes:
                        raise CodingMalformed(f"inflates more than {limits.inflate_ratio} times")
                    raise BodyTooLarge(f"longer than {limits.body_bytes} bytes after decoding")
                pieces.append(piece)
            at -= len(member.unused_data)
    except zlib.error:
        raise CodingMalformed("not valid gzip") from None
    return b"".join(pieces)
