"""The characters of an XML document: which encoding its bytes have, and how text and attributes are written."""

from __future__ import annotations

import re

from gharial.model.errors import BodyMalformed, MediaUnreadable
from gharial.payload.charset import XML_CHARSETS, Charset

_MARKS = (
    (b"\xef\xbb\xbf", Charset.UTF8),
    (b"\xff\xfe", Charset.UTF16_LITTLE),
    (b"\xfe\xff", Charset.UTF16_BIG),
)
_FIRSTS = ((b"<\x00", Charset.UTF16_LITTLE), (b"\x00<", Charset.UTF16_BIG))
# No more than is looked at before the encoding is known.
_HEAD_CHARS = 256
_ENCODING = re.compile(
    r"<\?xml[ \t\r\n]+version[ \t\r\n]*=[ \t\r\n]*(?:\"[^\"<>]*\"|'[^'<>]*')"
    r"(?:[ \t\r\n]+encoding[ \t\r\n]*=[ \t\r\n]*(?:\"([^\"<>]*)\"|'([^'<>]*)'))?"
    r"(?:[ \t\r\n]+standalone[ \t\r\n]*=[ \t\r\n]*(?:\"[^\"<>]*\"|'[^'<>]*'))?[ \t\r\n]*\?>"
)
_WIDE = (Charset.UTF16_LITTLE, Charset.UTF16_BIG)


def decode_document(body: bytes, charset: Charset | None) -> tuple[str, bool]:
    """Return the text of a document without a byte order mark, and whether its bytes are anything but plain UTF-8.

    `charset` is what the header says, None if nothing. Header, byte order mark and declaration must not contradict
    each other, for a client may believe any of them. Raises MediaUnreadable for an encoding that is not read or where
    they do, and BodyMalformed for bytes that are not of the encoding.
    """
    marked = next(((mark, found) for mark, found in _MARKS if body.startswith(mark)), None)
    plain = body[len(marked[0]) :] if marked else body
    begins = next((found for first, found in _FIRSTS if plain.startswith(first)), None)
    found = marked[1] if marked else begins
    # Only to read the declaration, which is in ASCII.
    codec = found if found in _WIDE else Charset.LATIN1
    declared = _declared(plain[: _HEAD_CHARS * 2].decode(codec.value, "replace")[:_HEAD_CHARS])
    said = [one for one in (charset, declared) if one is not None]
    if found is None:
        found = said[0] if said else Charset.UTF8
    elif not marked and not said:
        raise MediaUnreadable("UTF-16 without a byte order mark, and nothing says so")
    if any(one is not found and not (one is Charset.UTF16 and found in _WIDE) for one in said):
        raise MediaUnreadable("header, byte order mark and declaration name different encodings")
    if found is Charset.UTF16:
        raise MediaUnreadable("the body does not begin like UTF-16")
    try:
        text = plain.decode(found.value)
    except UnicodeDecodeError:
        # Its text would quote the body.
        raise BodyMalformed("the bytes are not of the encoding that the document has") from None
    return text, bool(marked) or found not in (Charset.UTF8, Charset.ASCII)


def _declared(head: str) -> Charset | None:
    """Return the encoding that the XML declaration names."""
    if not re.match(r"<\?xml[ \t\r\n]", head):
        return None
    found = _ENCODING.match(head)
    if found is None:
        raise BodyMalformed("the XML declaration can't be read")
    name = found[1] or found[2]
    if name is None:
        return None
    charset = XML_CHARSETS.get(name.lower())
    if charset is None:
        raise MediaUnreadable("the encoding that the XML declaration names is not read")
    return charset


WHITE_SPACE = " \t\r\n"

_NO_CHAR = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_IN_TEXT = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"})
_IN_ATTRIBUTE = str.maketrans(
    {"&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "\t": "&#9;", "\n": "&#10;", "\r": "&#13;"}
)


def encode_text(text: str) -> str:
    """Return the characters as they stand between tags."""
    return text.translate(_IN_TEXT)


def encode_attribute(text: str) -> str:
    """Return the characters as they stand between double quotes."""
    return text.translate(_IN_ATTRIBUTE)


def check_characters(text: str) -> str:
    """Return the text. Raises BodyMalformed if it holds a character that no XML document can hold."""
    if _NO_CHAR.search(text):
        raise BodyMalformed("a replacement holds a character that XML can't hold")
    return text
