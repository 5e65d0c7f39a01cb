"""A JSON document as a tree of located values: what each one is, and exactly how it was written.

Built from checked text in one pass without recursion. Strings that hold JSON can be opened in place.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooDeep, DuplicateName, TooManyValues
from gharial.model.finding import Kind, Limits
from gharial.payload.json_text import WHITE_SPACE, count_values, decode_leaf, decode_string, is_deeper

OBJECT, ARRAY = ord("{"), ord("[")
_QUOTE = ord('"')
_ENDS = frozenset(b"]}")
_TOKENS = re.compile(rb'[{}\[\]]|"[^"\\]*+(?:\\.[^"\\]*+)*+"|[-+.0-9A-Za-z]++')

_MARKS = re.compile(rb"\A(?:\xef\xbb\xbf|[\x00 \t\n\r])++")

check_document = msgspec.json.Decoder(msgspec.Raw).decode


class Value:
    """One value: `text[start:end]` is how it was written.

    `form` is OBJECT, ARRAY, or 0 for a scalar. `names` are the decoded names of an object's members, `written` the same
    as they stand in the text. `wrapped` is the string, as written, that a container stood in; else empty.
    """

    __slots__ = ("_members", "children", "end", "form", "names", "parent", "start", "text", "wrapped", "written")

    def __init__(self, text: bytes, start: int, end: int, form: int, parent: Value | None) -> None:
        self.text = text
        self.start = start
        self.end = end
        self.form = form
        self.parent = parent
        self.children: list[Value] = []
        self.names: list[str] = []
        self.written: list[bytes] = []
        self.wrapped = b""
        self._members: dict[str, Value] | None = None

    @property
    def raw(self) -> bytes:
        """The value as it was written; of a container in a string the inner text."""
        return self.text[self.start : self.end]

    def leaf(self) -> tuple[Kind, str]:
        """Return the type and text of a scalar, as a Transform takes it."""
        return decode_leaf(self.raw)

    def find_member(self, name: str) -> Value | None:
        """Return the member of an object without duplicates."""
        if self._members is None:
            self._members = dict(zip(self.names, self.children, strict=True))
        return self._members.get(name)


def parse_tree(text: bytes) -> Value:
    """Return the root of a document that is known to be valid JSON. Raises DecodeError for a broken string."""
    holder = here = Value(text, 0, 0, ARRAY, None)
    above: list[Value] = []
    name_next = False
    for token in _TOKENS.finditer(text):
        first = text[token.start()]
        if name_next and first == _QUOTE:
            here.written.append(token[0])
            here.names.append(decode_string(token[0]))
            name_next = False
            continue
        if first in _ENDS:
            here.end = token.end()
            here = above.pop()
        else:
            form = first if first in (OBJECT, ARRAY) else 0
            found = Value(text, token.start(), token.end(), form, None if here is holder else here)
            here.children.append(found)
            if form:
                above.append(here)
                here = found
        name_next = here.form == OBJECT
    return holder.children[0]


def walk_values(root: Value) -> Iterator[Value]:
    """Yield a value and all below it, in document order."""
    waiting = [root]
    while waiting:
        value = waiting.pop()
        yield value
        waiting.extend(reversed(value.children))


def check_names(root: Value) -> None:
    """Raise DuplicateName if any object in the tree holds a name twice, compared as decoded."""
    for value in walk_values(root):
        if len(set(value.names)) < len(value.names):
            raise DuplicateName


def open_strings(root: Value, levels: int, limits: Limits) -> None:
    """Put the JSON object or array that a string holds in its place, `levels` deep; `wrapped` keeps the string.

    Raises BodyTooDeep where such strings are nested deeper or the whole is deeper than `limits.depth`, TooManyValues,
    and BodyMalformed for a string that some readers of JSON take and others don't.
    """
    values = count_values(root.raw)
    waiting = [(value, 0) for value in walk_values(root) if not value.form]
    while waiting:
        value, level = waiting.pop()
        inner = _find_document(value)
        if inner is None:
            continue
        if level == levels:
            raise BodyTooDeep(f"JSON in strings nested deeper than {levels}")
        if is_deeper(inner, limits.depth - _depth(value)):
            raise BodyTooDeep(f"nested deeper than {limits.depth}")
        values += count_values(inner) - 1
        if values > limits.values:
            raise TooManyValues(f"more than {limits.values} values")
        opened = parse_tree(inner)
        value.wrapped = value.raw
        value.text, value.start, value.end, value.form = inner, opened.start, opened.end, opened.form
        value.children, value.names, value.written = opened.children, opened.names, opened.written
        for child in value.children:
            child.parent = value
        waiting += [(below, level + 1) for below in walk_values(value) if not below.form]


def _depth(value: Value) -> int:
    """How many containers are around a value."""
    depth, around = 0, value.parent
    while around is not None:
        depth, around = depth + 1, around.parent
    return depth


def _find_document(value: Value) -> bytes | None:
    """Return the JSON object or array that a string holds, without the white space around it."""
    if value.text[value.start] != _QUOTE:
        return None
    text = decode_string(value.raw).encode("utf-8").strip(WHITE_SPACE)
    if not text or text[0] not in (OBJECT, ARRAY):
        if _holds_hidden_document(text):
            raise BodyMalformed("a string holds JSON that is encoded twice, or has a byte order mark or NUL around it")
        return None
    try:
        check_document(text)
    except msgspec.DecodeError:
        if _is_read_by_others(text):
            raise BodyMalformed("a string holds JSON that can be read in more than one way") from None
        return None
    except RecursionError:
        raise BodyTooDeep("JSON in a string is nested too deeply to be followed") from None
    return text


def _holds_hidden_document(text: bytes) -> bool:
    """True for a JSON object or array within JSON strings within the text, or behind byte order marks or NULs."""
    # Each round takes two quotes off, so it ends; whoever decodes once more would see what nothing has looked at.
    while True:
        text = _MARKS.sub(b"", text)
        if text[:1] in (b"{", b"["):
            return _is_read_by_others(text)
        if text[:1] != b'"':
            return False
        try:
            text = decode_string(text).encode("utf-8")
        except (msgspec.DecodeError, UnicodeError):
            return _is_read_by_others(text)


def _is_read_by_others(text: bytes) -> bool:
    """True for what lenient readers take for JSON: half surrogate pairs, NaN and Infinity, NULs behind it."""
    # A value in there would reach such a reader, and nothing would have looked at it.
    try:
        json.loads(text.rstrip(b"\x00 \t\n\r"), parse_int=str, parse_float=str, parse_constant=str)
    except ValueError:
        return False
    except RecursionError:
        return True
    return True
