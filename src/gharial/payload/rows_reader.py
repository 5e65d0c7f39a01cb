"""Bodies of rows: a framing takes them apart, a reader of JSON reads them as a list, the framing puts them together.

Each row is a document by the same plan: it is met by what finds `$` or `$[*]`, is a record of its own, and can't go as
a whole. The rules are those of `json_reader` and `reference_reader` under *Rows*. Limits hold for all rows together;
the depth is a row's own. If nothing changed and the framing keeps all that it was given, the body goes out as it came.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from gharial.model.errors import BodyMalformed, BodyTooLarge
from gharial.model.finding import Limits, Rewritten, Scope, Transform
from gharial.model.plan import Plan
from gharial.payload.charset import UTF8_MARK
from gharial.payload.json_levels import decode_array
from gharial.payload.json_reader import JsonReader
from gharial.payload.program import Layout, Program, row_program_of
from gharial.payload.reference_reader import ReferenceReader, reference_program_of

_ROOM_BYTES = 100_000_000
"""What rows may take as JSON beyond six times their own bytes, which is what escapes can make of them."""


class Framing(Protocol):
    """How rows stand in a body. For one body.

    `keeps_all`: `join` leaves out nothing that `split` was given, so a body of which no row changed may stay as it is.
    """

    @property
    def keeps_all(self) -> bool:
        """See above."""

    def split(self, body: bytes, most: int) -> list[bytes]:
        """Return the rows, each one JSON document. Raises TooManyValues beyond `most`, and what is wrong with them."""

    def join(self, rows: Sequence[bytes]) -> bytes:
        """Return the body of the same rows, rewritten."""


class RowsReader:
    """One body of rows under one plan: `feed` it all, then `survey`, then `finish`, as with JsonReader."""

    def __init__(self, plan: Plan, limits: Limits, framing: Framing, *, part: bool = False) -> None:
        """Raises ValueError for a plan that can't read rows, or is not consistent in itself.

        With `part` the body is a part of a stream: it has no byte order mark, and is written anew in any case.
        """
        # The list of the rows is a value and a level more than was sent.
        # How much larger they are as JSON is the framing's business.
        room = 6 * limits.body_bytes + _ROOM_BYTES
        inner = Limits(body_bytes=room, depth=limits.depth + 1, values=limits.values + 1)
        self._reader = make_json_reader(plan, inner, Layout.ROWS)
        self._framing = framing
        self._part = part
        self._limits = limits
        self._chunks: list[bytes] = []
        self._size = 0
        self._body = b""
        self._marked = False
        self._surveyed = False

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes. Raises BodyTooLarge as soon as there are more than `limits.body_bytes`."""
        if self._surveyed:
            raise RuntimeError("the body was surveyed already")
        self._size += len(chunk)
        self._check_size()
        self._chunks.append(bytes(chunk))

    def survey(self) -> tuple[Scope, ...]:
        """Pass one, as `JsonReader.survey`; raises also what the framing does."""
        if not self._surveyed:
            self._check_size()
            body = b"".join(self._chunks)
            self._marked = not self._part and body.startswith(UTF8_MARK)
            self._body = body.removeprefix(UTF8_MARK) if self._marked else body
            if not self._body.isascii():
                _check_utf8(self._body)
            rows = self._framing.split(self._body, self._limits.values)
            self._reader.feed(b"[" + b",".join(rows) + b"]")
            self._chunks.clear()
            self._surveyed = True
        return self._reader.survey()

    def finish(
        self,
        variants: Sequence[int],
        transforms: Sequence[Transform],
        *,
        by_scope: Sequence[Sequence[Transform]] | None = None,
        want_places: bool = False,
    ) -> Rewritten:
        """Pass two: return the body as it may leave. Arguments and errors are those of JsonReader.finish."""
        self.survey()
        found = self._reader.finish(variants, transforms, by_scope=by_scope, want_places=want_places, anew=self._part)
        if not found.changed and self._framing.keeps_all:
            return replace(found, body=self._body, changed=self._marked)
        body = self._framing.join([bytes(row) for row in decode_array(found.body)])
        return replace(found, body=body, changed=self._marked or body != self._body)

    def _check_size(self) -> None:
        if self._size > self._limits.body_bytes:
            self._chunks.clear()
            raise BodyTooLarge(f"longer than {self._limits.body_bytes} bytes")


def make_json_reader(plan: Plan, limits: Limits, layout: Layout = Layout.DOCUMENT) -> JsonReader | ReferenceReader:
    """Return the reference executor for a plan that needs it, else the fast reader."""
    if plan.needs_reference:
        return ReferenceReader(plan, limits, layout)
    return JsonReader(plan, limits, layout)


def rows_program(plan: Plan) -> Program:
    """Return the program by which rows are read. Raises ValueError as `make_json_reader` does."""
    if plan.needs_reference:
        return reference_program_of[Layout.ROWS](plan).program
    return row_program_of(plan)


def _check_utf8(body: bytes) -> None:
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise BodyMalformed("not UTF-8") from None
