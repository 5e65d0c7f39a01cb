"""Bodies that are many JSON documents: lines, text sequences (RFC 7464), events of a server (`text/event-stream`).

A framing takes a body apart into rows, each of them one valid JSON document without white space around it, and puts new
rows back in their places. One row that can't be read refuses the body: there is no reading on behind it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from gharial.model.errors import BodyMalformed, BodyTooDeep, TooManyValues
from gharial.model.names import is_ordinary_name
from gharial.payload.json_text import WHITE_SPACE

_check_document = msgspec.json.Decoder(msgspec.Raw).decode


def check_row(text: bytes) -> bytes:
    """Return a row without white space around it. Raises BodyMalformed, BodyTooDeep."""
    row = text.strip(WHITE_SPACE)
    # Each on its own: halves of documents on two lines would be whole once they stand in one list.
    try:
        _check_document(row)
    except msgspec.DecodeError:
        raise BodyMalformed("a row is not one JSON document") from None
    except RecursionError:
        raise BodyTooDeep("a row is nested too deeply to be followed") from None
    return row


class _Rows:
    """Rows as they are found, up to a number of them."""

    def __init__(self, most: int) -> None:
        self._left = most
        self.found: list[bytes] = []

    def add(self, text: bytes) -> None:
        self.count()
        self.found.append(check_row(text))

    def count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooManyValues("more rows than values are allowed")


_LINE = re.compile(rb"[^\n]+")


class Lines:
    """One document a line (NDJSON, JSON Lines). Lines end with LF or CRLF, the last one may not; blank ones go."""

    keeps_all = True

    def split(self, body: bytes, most: int) -> list[bytes]:
        """Return the rows. Raises BodyMalformed, BodyTooDeep, TooManyValues."""
        rows = _Rows(most)
        for line in _LINE.finditer(body):
            if line[0].strip(WHITE_SPACE):
                rows.add(line[0])
        return rows.found

    def join(self, rows: Sequence[bytes]) -> bytes:
        """Return the body of these rows."""
        # A line break can't stand in a row: it would have ended its line.
        return b"".join(row + b"\n" for row in rows)


_TEXT = re.compile(rb"\x1e([^\x1e]++)")


class TextSequence:
    """JSON text sequences: each document between a record separator and a line feed, so that a cut one is noticed."""

    keeps_all = True

    def split(self, body: bytes, most: int) -> list[bytes]:
        """Return the rows. Raises BodyMalformed, BodyTooDeep, TooManyValues."""
        if body and not body.startswith(b"\x1e"):
            raise BodyMalformed("the sequence does not begin with a record separator")
        rows = _Rows(most)
        for text in _TEXT.finditer(body):
            # RFC 7464, 2.1: separators with nothing between them are no elements.
            if text[1].strip(WHITE_SPACE):
                if not text[1].endswith(b"\n"):
                    raise BodyMalformed("a text of the sequence is cut")
                rows.add(text[1])
        return rows.found

    def join(self, rows: Sequence[bytes]) -> bytes:
        """Return the body of these rows."""
        return b"".join(b"\x1e" + row + b"\n" for row in rows)


_EVENT_LINE = re.compile(rb"([^\r\n]++)(\r\n|\r|\n)?+|[\r\n]++")
"""A line and its end, or any number of blank lines."""
_LINE_END = re.compile(rb"\r\n|\r|\n")
_RETRY = re.compile(rb"[0-9]{1,7}")
_DONE = b"[DONE]"
"""What many APIs send as their last event; the one text that is no JSON and passes."""


class Events:
    """Server-sent events. The `data` of each is one document; of the other fields only what can't be data stays.

    An event's `event` stays if it reads like a name, and `retry` if it has at most seven digits. `id`, comments and
    fields that nobody knows go, as do events without data. An event without the blank line that ends it is refused:
    clients drop it, so it is an answer that was cut.
    """

    keeps_all = False

    def __init__(self) -> None:
        # For each event its other fields, and the number of its row, or None for the last mark.
        self._events: list[tuple[bytes, int | None]] = []

    def split(self, body: bytes, most: int) -> list[bytes]:
        """Return the rows. Raises BodyMalformed, BodyTooDeep, TooManyValues."""
        rows = _Rows(most)
        kept: dict[bytes, bytes] = {}
        data: list[bytes] = []
        for found in _EVENT_LINE.finditer(body):
            line, end = found.groups()
            if line is not None:
                if not end:
                    raise BodyMalformed("the last event is cut")
                name, _, value = line.partition(b":")
                value = value.removeprefix(b" ")
                if name == b"data":
                    data.append(value)
                elif name in (b"event", b"retry"):
                    kept[name] = value
            else:
                self._end(b"\n".join(data), kept, rows)
                kept, data = {}, []
        if data:
            raise BodyMalformed("the last event is cut")
        return rows.found

    def _end(self, data: bytes, kept: dict[bytes, bytes], rows: _Rows) -> None:
        if not data.strip(WHITE_SPACE):
            return
        fields = b"".join(name + b": " + value + b"\n" for name, value in kept.items() if _is_harmless(name, value))
        if data == _DONE:
            rows.count()
            self._events.append((fields, None))
        else:
            self._events.append((fields, len(rows.found)))
            rows.add(data)

    def join(self, rows: Sequence[bytes]) -> bytes:
        """Return the body of these rows."""
        parts: list[bytes] = []
        for fields, at in self._events:
            lines = _LINE_END.split(_DONE if at is None else rows[at])
            parts += [fields, *(b"data: " + line + b"\n" for line in lines), b"\n"]
        return b"".join(parts)


def _is_harmless(name: bytes, value: bytes) -> bool:
    if name == b"retry":
        return _RETRY.fullmatch(value) is not None
    return is_ordinary_name(value.decode("utf-8"))
