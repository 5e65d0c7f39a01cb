"""Undoes content codings (RFC 9110, 8.4.1): gzip, deflate, br and zstd, several on top of each other, within bounds.

What a lenient client would skip or read further (a second member, padding, rubbish at the end) never leaves unread:
every member is inflated and checked, and anything after the last one is refused.
"""

from __future__ import annotations

import enum
import sys
import zlib
from collections.abc import Callable, Sequence
from typing import Protocol, assert_never

import brotli

from gharial.model.errors import BodyTooLarge, CodingMalformed
from gharial.model.finding import Limits

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

RATIO_FREE_BYTES = 1_000_000
"""Output up to which `Limits.inflate_ratio` is not applied, so that small, very regular bodies pass."""

MAX_MEMBERS = 1024
"""Members that one body may have. Without a bound, a body of empty members costs time quadratic in its size."""

MAX_CODINGS = 3
"""Codings that may lie on top of each other."""

_WINDOW_BYTES = 65_536
_GZIP_ONLY = 31  # zlib's wbits: a 32 KB window, a gzip header and trailer demanded and checked
_ZLIB_ONLY = 15
_RAW_DEFLATE = -15
_ZSTD_WINDOW_LOG = 23  # 8 MB: what a zstd body may demand of its reader over HTTP (RFC 9659)


class Coding(enum.StrEnum):
    """The content codings that the gate undoes."""

    GZIP = "gzip"
    DEFLATE = "deflate"
    BR = "br"
    ZSTD = "zstd"


class _Member(Protocol):
    """One compressed stream, taken in piece by piece."""

    @property
    def ended(self) -> bool:
        """True behind the end of the stream."""

    @property
    def rest(self) -> bytes:
        """What was fed and lies behind the end."""

    @property
    def hungry(self) -> bool:
        """True if nothing more comes out before more goes in."""

    def inflate(self, data: bytes, most: int) -> bytes:
        """Take in `data` (empty unless hungry) and return about `most` bytes at most; may raise what it likes."""


class _Zlib:
    def __init__(self, wbits: int) -> None:
        self._stream = zlib.decompressobj(wbits=wbits)

    @property
    def ended(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return not self._stream.unconsumed_tail

    def inflate(self, data: bytes, most: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail or data, most)


class _Brotli:
    rest = b""  # What follows the end of a brotli stream is an error in the decoder.

    def __init__(self) -> None:
        self._stream = brotli.Decompressor()

    @property
    def ended(self) -> bool:
        return bool(self._stream.is_finished())

    @property
    def hungry(self) -> bool:
        return bool(self._stream.can_accept_more_data())

    def inflate(self, data: bytes, most: int) -> bytes:
        return bytes(self._stream.process(data, output_buffer_limit=most))


class _Zstd:
    def __init__(self) -> None:
        self._stream = zstd.ZstdDecompressor(options={zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG})

    @property
    def ended(self) -> bool:
        return self._stream.eof

    @property
    def rest(self) -> bytes:
        return self._stream.unused_data

    @property
    def hungry(self) -> bool:
        return self._stream.needs_input

    def inflate(self, data: bytes, most: int) -> bytes:
        return self._stream.decompress(data, most)


def undo_codings(body: bytes, codings: Sequence[Coding], limits: Limits) -> bytes:
    """Return the content of a body to which `codings` were applied, in this order: all of it, checksums checked.

    Raises BodyTooLarge if the body, before, between or after, is longer than `limits.body_bytes`; CodingMalformed if it
    is broken, truncated, followed by anything, or inflates, all codings together, by more than `limits.inflate_ratio`.
    Never holds more output of a coding than these two allow.
    """
    if len(body) > limits.body_bytes:
        raise BodyTooLarge(f"longer than {limits.body_bytes} bytes before decoding")
    # Of what was sent, not of what the coding above gave: bombs in bombs would multiply.
    allowed = min(limits.body_bytes, max(RATIO_FREE_BYTES, limits.inflate_ratio * len(body)))
    for coding in reversed(codings):
        body = _undo(body, coding, limits, allowed)
    return body


def _undo(body: bytes, coding: Coding, limits: Limits, allowed: int) -> bytes:
    """Undo one coding, with at most `allowed` bytes of output."""
    if not body:
        raise CodingMalformed(f"an empty body is no {coding}")
    open_member, most_members = _members(coding, body)
    pieces: list[bytes] = []
    size = at = members = 0
    try:
        while at < len(body):
            members += 1
            if members > most_members:
                raise CodingMalformed(f"more than {most_members} {coding} members, or bytes after the end")
            member = open_member()
            while not member.ended:
                # Windows, so that what follows a member (`rest`, a copy) stays small.
                hungry = member.hungry
                fed = body[at : at + _WINDOW_BYTES] if hungry else b""
                at += len(fed)
                # One byte more than allowed tells 'just full' from 'too long'; 0 would mean 'no bound'.
                piece = member.inflate(fed, min(_WINDOW_BYTES, allowed - size + 1))
                if not piece and not fed and hungry and not member.ended:
                    raise CodingMalformed(f"the {coding} body is truncated")
                size += len(piece)
                if size > allowed:
                    if allowed < limits.body_bytes:
                        raise CodingMalformed(f"inflates more than {limits.inflate_ratio} times")
                    raise BodyTooLarge(f"longer than {limits.body_bytes} bytes after decoding")
                pieces.append(piece)
            at -= len(member.rest)
    except (zlib.error, zstd.ZstdError, brotli.error):
        # Their texts are of no use to anybody, and may be of anything.
        raise CodingMalformed(f"not valid {coding}") from None
    return b"".join(pieces)


def _members(coding: Coding, body: bytes) -> tuple[Callable[[], _Member], int]:
    """Return what opens a member of this coding, and how many of them there may be (RFC 1952; RFC 8878, 3)."""
    match coding:
        case Coding.GZIP:
            return lambda: _Zlib(_GZIP_ONLY), MAX_MEMBERS
        case Coding.DEFLATE:
            # RFC 9110 means zlib (RFC 1950); many servers send the bare stream (RFC 1951), and clients take both.
            wbits = _ZLIB_ONLY if _has_zlib_header(body) else _RAW_DEFLATE
            return lambda: _Zlib(wbits), 1
        case Coding.BR:
            return _Brotli, 1
        case Coding.ZSTD:
            return _Zstd, MAX_MEMBERS
        case _:
            assert_never(coding)


def _has_zlib_header(body: bytes) -> bool:
    """True if the first two bytes are a zlib header (RFC 1950, 2.2). No writer of bare streams begins one like that."""
    return len(body) > 1 and body[0] & 0x0F == 8 and (body[0] << 8 | body[1]) % 31 == 0
