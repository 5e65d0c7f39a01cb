"""JSON as text (RFC 8259): leaves in and out, names as written, depth and number of values. No plan in here.

All functions but `encode_leaf` expect text whose grammar is already checked.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import msgspec

from gharial.model.errors import DuplicateName
from gharial.model.finding import Kind

WHITE_SPACE = b" \t\n\r"

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_STRINGS = re.compile(_STRING)
_FIRST_NAME = re.compile(rb"\{[ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+")
_NEXT_NAME = re.compile(rb"[ \t\n\r]*+,[ \t\n\r]*+(" + _STRING + rb")[ \t\n\r]*+:[ \t\n\r]*+")
_END = re.compile(rb"[ \t\n\r]*+\}")
_EMPTY_END = re.compile(rb"\{[ \t\n\r]*+\}")
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?", re.ASCII)

_SCALARS = re.compile(_STRING + rb"([ \t\n\r]*+:)?|[-+.0-9A-Za-z]++")

_NOT_STRUCTURE = bytes(byte for byte in range(256) if byte not in b"[]{},")
_AS_SQUARE = bytes.maketrans(b"{}", b"[]")

decode_string = msgspec.json.Decoder(str).decode
"""The characters of a string; msgspec.ValidationError for a value of another type."""

encode_string = msgspec.json.Encoder().encode
"""A string as JSON text: the short escapes where there are some, other control characters as \\u00xx in lower case,
everything else as itself in UTF-8 (the form of RFC 8785, 3.2.2.2)."""


def decode_leaf(text: bytes) -> tuple[Kind, str]:
    """Return the type and text of a scalar, as a Transform takes it."""
    match text[0]:
        case 0x22:
            return Kind.STRING, decode_string(text)
        case 0x74 | 0x66:
            return Kind.BOOLEAN, text.decode("ascii")
        case 0x6E:
            return Kind.NULL, ""
        case _:
            return Kind.NUMBER, text.decode("ascii")


def encode_leaf(kind: Kind, text: str) -> bytes:
    """Return a scalar as JSON text. Raises ValueError (a bug; without the value) if it does not fit."""
    match kind:
        case Kind.STRING:
            return encode_string(text)
        case Kind.NUMBER:
            if _NUMBER.fullmatch(text):
                return text.encode("ascii")
        case Kind.BOOLEAN:
            if text in ("true", "false"):
                return text.encode("ascii")
        case Kind.NULL:
            return b"null"
    raise ValueError(f"a replacement is no JSON {kind.name.lower()}")


def scan_scalars(text: bytes) -> Iterator[bytes]:
    """Yield each scalar of a value, as written and in document order: of members of one name all, of names none."""
    for found in _SCALARS.finditer(text):
        if found[1] is None:
            yield found[0]


def is_plain(text: bytes, names: int) -> bool:
    """True if the members in this text are as many as the distinct names in it, and no name holds an escape.

    May be False where both hold.
    """
    # Each member has a colon, whatever else may have one: as many colons as names leave no room for a second member.
    return b"\\" not in text and text.count(b":") == names


def scan_names(text: bytes, values: Iterable[msgspec.Raw]) -> list[bytes]:
    """Return the names of an object exactly as written, each as `,"name":`; raise DuplicateName if one occurs twice.

    `values` are what a decoder that keeps the last of equal names made of `text`, in its order. The scan steps over
    each of them where it expects it; if it ends at the closing brace, then there are as many members as distinct names.
    A JSON value that begins as another one *is* that one (a number ends where its digits end, which the next pattern
    makes sure of), so nothing inside a value can be taken for a member.
    """
    prefixes: list[bytes] = []
    pattern, end = _FIRST_NAME, 0
    for value in values:
        found = pattern.match(text, end)
        if found is None or not text.startswith(value, found.end()):
            raise DuplicateName
        prefixes.append(b"," + found[1] + b":")
        pattern, end = _NEXT_NAME, found.end() + len(value)
    closing = _END if prefixes else _EMPTY_END
    if (last := closing.match(text, end)) is None or last.end() != len(text):
        raise DuplicateName
    return prefixes


def skeleton(text: bytes) -> bytes:
    """Return only the brackets and commas of a document, those in strings left out."""
    if b"\\" in text:
        text = _STRINGS.sub(b"", text)
    else:
        text = b"".join(text.split(b'"')[::2])
    return text.translate(None, _NOT_STRUCTURE)


def count_values(text: bytes) -> int:
    """Return how many values a document holds: scalars and containers, itself included; names do not count."""
    # One value, one more for each comma, one more for each container that is not empty.
    bare = _STRINGS.sub(b"s", text).translate(None, WHITE_SPACE)
    bones = bare.translate(None, _NOT_STRUCTURE)
    empty = bare.count(b"[]") + bare.count(b"{}")
    return 1 + bones.count(b",") + bones.count(b"[") + bones.count(b"{") - empty


def is_deeper(text: bytes, limit: int) -> bool:
    """True if containers are nested more than `limit` deep (a container of scalars is 1 deep)."""
    bones = skeleton(text).translate(_AS_SQUARE, b",")
    for _ in range(limit):
        if not bones:
            return False
        # Each round takes the innermost containers away: the number of rounds is the depth.
        bones = bones.replace(b"[]", b"")
    return bool(bones)


def name_path(path: str, name: str) -> str:
    """Return the JSONPath of a member."""
    if name.isidentifier():
        return f"{path}.{name}"
    return f"{path}[{quote_name(name)}]"


def quote_name(name: str) -> str:
    """Return a name in single quotes, escaped as a normalised path of RFC 9535 (2.7) is."""
    out = []
    for char in name:
        if char in "'\\":
            out.append("\\" + char)
        elif char in "\b\t\n\f\r":
            out.append({"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}[char])
        elif char < " ":
            out.append(f"\\u{ord(char):04x}")
        else:
            out.append(char)
    return "'" + "".join(out) + "'"
