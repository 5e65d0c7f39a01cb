"""Encodings; and from the bytes of an answer that is labelled JSON to bare JSON in UTF-8, or a refusal.

JSON between systems is UTF-8 (RFC 8259, 8.1). UTF-16 and UTF-32 are older (RFC 4627, 3): told by a byte order mark, or
by where the zeros of the first, always ASCII, character stand. Nothing is guessed: a label that says something else is
refused, and so is every byte that does not belong to the encoding.
"""

from __future__ import annotations

import enum
import re

from gharial.model.errors import BodyMalformed, BodyWrapped, MediaUnreadable
from gharial.payload.json_text import WHITE_SPACE

UTF8_MARK = b"\xef\xbb\xbf"


class Charset(enum.StrEnum):
    """Encodings, with Python's names: Unicode's, and the older ones in which there is XML.

    UTF-16 and UTF-32 without an end in the name are either one: the byte order mark or the first character tells.
    """

    UTF8 = "utf-8"
    UTF16 = "utf-16"
    UTF16_BIG = "utf-16-be"
    UTF16_LITTLE = "utf-16-le"
    UTF32 = "utf-32"
    UTF32_BIG = "utf-32-be"
    UTF32_LITTLE = "utf-32-le"
    ASCII = "ascii"
    LATIN1 = "iso-8859-1"
    WINDOWS = "windows-1252"


CHARSETS = {
    "utf-8": Charset.UTF8,
    "utf8": Charset.UTF8,
    "utf-16": Charset.UTF16,
    "utf-16be": Charset.UTF16_BIG,
    "utf-16le": Charset.UTF16_LITTLE,
    "utf-32": Charset.UTF32,
    "utf-32be": Charset.UTF32_BIG,
    "utf-32le": Charset.UTF32_LITTLE,
}
"""What the parameter `charset` of JSON may be, in lower case."""

XML_CHARSETS = {
    "utf-8": Charset.UTF8,
    "utf8": Charset.UTF8,
    "utf-16": Charset.UTF16,
    "utf-16be": Charset.UTF16_BIG,
    "utf-16le": Charset.UTF16_LITTLE,
    "us-ascii": Charset.ASCII,
    "ascii": Charset.ASCII,
    "iso-8859-1": Charset.LATIN1,
    "latin1": Charset.LATIN1,
    "windows-1252": Charset.WINDOWS,
    "cp1252": Charset.WINDOWS,
}
"""What the parameter `charset` of XML and the encoding of its declaration may be, in lower case."""

_EITHER_END = {
    Charset.UTF16: (Charset.UTF16_BIG, Charset.UTF16_LITTLE),
    Charset.UTF32: (Charset.UTF32_BIG, Charset.UTF32_LITTLE),
}
# UTF-32 first: its little-endian mark begins with that of UTF-16, and no JSON goes on with a zero.
_MARKS = (
    (b"\x00\x00\xfe\xff", Charset.UTF32_BIG),
    (b"\xff\xfe\x00\x00", Charset.UTF32_LITTLE),
    (b"\xfe\xff", Charset.UTF16_BIG),
    (b"\xff\xfe", Charset.UTF16_LITTLE),
    (UTF8_MARK, Charset.UTF8),
)

# What keeps a page's script from reading an answer, and the call of JSONP. No JSON document begins like any of them.
_WRAPPED = re.compile(
    rb"(?:\)\]\}|while[ \t]*\(|for[ \t]*\(|throw\b|\{\}[ \t]*&&|/[/*]|[A-Za-z_$][\w.$\[\]'\"]{0,127}[ \t]*\()"
)
_OUTER_SPACE = WHITE_SPACE + b";"


def json_in_utf8(body: bytes, named: Charset | None) -> bytes:
    """Return bare JSON text in UTF-8; a body in another encoding comes out behind a byte order mark, as changed.

    Raises MediaUnreadable where the label names another encoding than the bytes, BodyMalformed for what is not that
    encoding, BodyWrapped for JSONP and JSON behind a prefix against scripts. Whether it is JSON is not looked at.
    """
    found, mark = _encoding_of(body)
    if named is not None and found not in _EITHER_END.get(named, (named,)):
        raise MediaUnreadable("the charset that the content type names is not that of the body")
    if found is not Charset.UTF8:
        try:
            text = body[len(mark) :].decode(found.value)
        except UnicodeDecodeError:
            raise BodyMalformed(f"not {found.value}") from None
        # The mark says to readers that these are not the original bytes.
        body = UTF8_MARK + text.encode("utf-8")
    if _WRAPPED.match(body.removeprefix(UTF8_MARK).lstrip(_OUTER_SPACE) if body[:1] not in (b"{", b"[") else body):
        raise BodyWrapped
    return body


def _encoding_of(body: bytes) -> tuple[Charset, bytes]:
    """Return the encoding of a JSON text and its byte order mark, empty where there is none."""
    for mark, charset in _MARKS:
        if body.startswith(mark):
            return charset, mark
    # The first character is ASCII; the second may be none in a text that is nothing but a string.
    first = body[:4]
    if first[:1] == b"\0":
        return (Charset.UTF32_BIG if first[1:2] == b"\0" else Charset.UTF16_BIG), b""
    if first[1:2] == b"\0":
        return (Charset.UTF32_LITTLE if first[2:] == b"\0\0" else Charset.UTF16_LITTLE), b""
    return Charset.UTF8, b""
