"""Rows of an answer that leave as they come: cut out, decided, put on record, released. Nothing is held but one row.

What came at once is decided at once. If that can't be done, each row is decided alone, so that those before a broken
one leave whatever came together with it; with the first that can't be released the stream is over.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from gharial.gate.persons import GROUP
from gharial.model.errors import BodyTooLarge, CodingUnknown, Fault, GharialError
from gharial.model.plan import Plan
from gharial.payload.json_text import WHITE_SPACE
from gharial.payload.media import Media
from gharial.payload.row_cutter import ROW_FORMATS, RowCutter

_CONSENT = "consent"

Release = Callable[[bytes], Awaitable[bytes]]
"""Returns the new bytes of some whole rows, all that has to be durable being so. Raises what refuses them."""


def leaves_by_rows(plan: Plan, media: Media) -> bool:
    """True if rows of such an answer can leave before the last one has come. Raises CodingUnknown for a coded one.

    False where the whole answer decides: how many people are in it (`min_group`), which ids are the same person's.
    """
    if media.format not in ROW_FORMATS or plan.same or any(c.fact == GROUP for c in plan.conditions):
        return False
    if media.codings:
        raise CodingUnknown("rows of a stream were asked for without a content coding")
    return True


class RowStream:
    """The rows of one answer."""

    def __init__(self, plan: Plan, media: Media, row_bytes: int, release: Release) -> None:
        self._cutter = RowCutter(media.format)
        self._row_bytes = row_bytes
        self._release = release
        # What a row tells of a person would count in others that happened to come with it.
        self._alone = any(condition.fact != _CONSENT for condition in plan.conditions)

    async def take(self, part: bytes, *, end: bool) -> tuple[bytes, GharialError | None]:
        """Return what may leave after this part has come, and what ends the stream there, if anything does."""
        rows = self._cutter.feed(part)
        if end:
            rows += self._cutter.finish()
        released: list[bytes] = []
        try:
            await self._decide([row for row in rows if row.strip(WHITE_SPACE)], released)
            if self._cutter.held_bytes > self._row_bytes:
                raise self._too_large()
        except GharialError as error:
            return b"".join(released), error
        return b"".join(released), None

    async def _decide(self, rows: list[bytes], released: list[bytes]) -> None:
        if not rows:
            return
        if len(rows) > 1 and not self._alone and max(map(len, rows)) <= self._row_bytes:
            try:
                released.append(await self._release(b"".join(rows)))
            except GharialError as error:
                if error.fault is not Fault.UPSTREAM:
                    raise
            else:
                return
        for row in rows:
            if len(row) > self._row_bytes:
                raise self._too_large()
            released.append(await self._release(row))

    def _too_large(self) -> GharialError:
        return BodyTooLarge(f"a row is longer than {self._row_bytes} bytes")
