"""The one way from a body to its reader: undoes the coding, picks the reader, hands it the whole body."""

from __future__ import annotations

from typing import assert_never

from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.charset import json_in_utf8
from gharial.payload.coding import undo_codings
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Format, Media
from gharial.payload.reference_reader import ReferenceReader

Reader = JsonReader | ReferenceReader


def open_body(plan: Plan, media: Media, body: bytes, limits: Limits) -> Reader:
    """Return the reader of `body`, ready for `survey` and `finish`; what it writes has no content coding any more.

    A plan with `needs_reference` gets the reference executor, every other one the fast reader.

    Raises what `plain_text` raises; everything else that is wrong with the body is found by `survey`. Raises
    ValueError for a plan that no reader can run; `check_plan` finds that before there is a body.
    """
    plain = plain_text(media, body, limits)
    match media.format:
        case Format.JSON:
            reader = _reader(plan, limits)
        case _:
            assert_never(media.format)
    reader.feed(plain)
    return reader


def plain_text(media: Media, body: bytes, limits: Limits) -> bytes:
    """Return the body without content codings, in UTF-8 (with or without a byte order mark).

    Raises BodyTooLarge and CodingMalformed, MediaUnreadable and BodyMalformed for another charset than it says, and
    BodyWrapped.
    """
    plain = undo_codings(body, media.codings, limits)
    match media.format:
        case Format.JSON:
            return json_in_utf8(plain, media.charset)
        case _:
            assert_never(media.format)


def check_plan(plan: Plan) -> None:
    """Raise ValueError if no reader could run this plan: it is not consistent, or a path or pattern can't be read."""
    _reader(plan, Limits())
    if plan.incoming is not None:
        _reader(plan.incoming, Limits())


def _reader(plan: Plan, limits: Limits) -> Reader:
    return ReferenceReader(plan, limits) if plan.needs_reference else JsonReader(plan, limits)
