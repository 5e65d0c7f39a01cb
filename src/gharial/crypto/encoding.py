"""How this room spells bytes: parts that can't run into each other, base64url in one spelling, UTF-8 or nothing."""

from __future__ import annotations

import base64
import binascii

_TO_URL = bytes.maketrans(b"+/", b"-_")


def encode_parts(*parts: str) -> bytes:
    """Return the parts one after another, each as its length (4 bytes, big endian) and its UTF-8 bytes.

    Without the lengths ("ab", "c") and ("a", "bc") would be the same bytes, and a name could move what it binds to.
    Total: a lone surrogate is written as if it were a character, so that every text has exactly one spelling.
    """
    out = bytearray()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        out += len(data).to_bytes(4, "big")
        out += data
    return bytes(out)


def to_base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 4648, section 5)."""
    return binascii.b2a_base64(data, newline=False).translate(_TO_URL, b"=").decode("ascii")


def find_base64url(text: str) -> bytes | None:
    """Return the bytes that `to_base64url` spells exactly so, or None: padding, other alphabets, stray bits refused."""
    if not text.isascii():
        return None
    try:
        data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except binascii.Error:
        return None
    # The decoder skips foreign characters and spare bits; only the one canonical spelling comes back the same.
    return data if to_base64url(data) == text else None


def find_utf8(text: str) -> bytes | None:
    """Return the text as UTF-8, or None if it holds a lone surrogate, which has none."""
    # Caught here and not by callers: the codec's own error carries the whole text.
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        return None
