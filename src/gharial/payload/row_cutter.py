"""Cuts rows out of a body that comes in pieces, so that each may be read as soon as it is whole.

What is cut out has everything that belongs to a row (its separator, the other fields of its event) and goes to a reader
as a body of its own. Nothing is judged here: what is wrong with a row, its reader finds.

Whatever the pieces are, the same rows come out in the same order; only when they come differs.
"""

from __future__ import annotations

import re
from collections.abc import Callable

import msgspec

from gharial.payload.charset import UTF8_MARK
from gharial.payload.json_text import WHITE_SPACE
from gharial.payload.media import Format

ROW_FORMATS = frozenset({Format.LINES, Format.SEQUENCE, Format.EVENTS})
"""The formats whose rows can be read one by one as they come; in tables a row is nothing without the header."""

_LINE = re.compile(rb"[^\n]*+\n")
_BLANK_LINE = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)")
"""The end of an event. Where its last CR LF is torn apart, the LF leads the next event: a blank line more, which means
nothing."""
_TEXT = re.compile(rb"\x1e[^\x1e]*+(?=\x1e)")
_check_document = msgspec.json.Decoder(msgspec.Raw).decode


class RowCutter:
    """Takes pieces of one body in, gives whole rows out. Holds no more than the row that is not whole yet."""

    def __init__(self, form: Format) -> None:
        """Raises ValueError for a format that is not one of ROW_FORMATS."""
        if form not in ROW_FORMATS:
            raise ValueError(f"rows of {form} are not cut")
        self._take = _TAKE[form]
        self._form = form
        self._held = bytearray()
        self._begun = False

    @property
    def held_bytes(self) -> int:
        """The length of what is held."""
        return len(self._held)

    def feed(self, piece: bytes) -> list[bytes]:
        """Return the rows that are whole now."""
        before = len(self._held)
        self._held += piece
        if not self._begun:
            if UTF8_MARK.startswith(self._held[: len(UTF8_MARK)]) and len(self._held) < len(UTF8_MARK):
                return []
            self._begun = True
            if self._held.startswith(UTF8_MARK):
                del self._held[: len(UTF8_MARK)]
            before = 0
        rows, end = self._take(self._held, before)
        del self._held[:end]
        return rows

    def finish(self) -> list[bytes]:
        """Return what is left, at the end of the body: at most one row, or what can't be one."""
        left = bytes(self._held)
        self._held.clear()
        if not self._begun:
            # A part of a byte order mark: no reader will take it.
            return [left] if left else []
        return [left] if left.strip(WHITE_SPACE) else []


_Cut = tuple[list[bytes], int]
"""Rows, and how much of what is held they are. What was held `before` the last piece had no end of a row in it."""


def _take_lines(held: bytearray, before: int) -> _Cut:
    end = held.rfind(b"\n", before) + 1
    return _LINE.findall(bytes(held[:end])), end


def _take_events(held: bytearray, before: int) -> _Cut:
    rows = []
    begin, at = 0, max(0, before - 1)
    while found := _BLANK_LINE.search(held, at):
        at = found.end()
        rows.append(bytes(held[begin:at]))
        begin = at
    return rows, begin


def _take_texts(whole: bytearray, _: int) -> _Cut:
    held = bytes(whole)
    rows = []
    end = len(held) - len(held.lstrip(WHITE_SPACE))
    if not held.startswith(b"\x1e", end):
        # No separator leads here: the reader of what is left will refuse it. But it must not wait for the next one.
        other = held.find(b"\x1e", end)
        return ([held[end:other]], other) if other > end else ([], end)
    while found := _TEXT.match(held, end):
        rows.append(found[0])
        end = found.end()
    # The last text is whole too if nothing but white space may follow it: it need not wait for the next separator.
    last = held[end:]
    if last.endswith(b"\n") and _is_document(last[1:]):
        rows.append(last)
        end = len(held)
    return rows, end


def _is_document(text: bytes) -> bool:
    try:
        _check_document(text.strip(WHITE_SPACE))
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


_TAKE: dict[Format, Callable[[bytearray, int], _Cut]] = {
    Format.LINES: _take_lines,
    Format.SEQUENCE: _take_texts,
    Format.EVENTS: _take_events,
}
