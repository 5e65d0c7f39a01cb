"""The one way from a body to its reader: undoes the coding, picks the reader, hands it the whole body."""

from __future__ import annotations

from typing import assert_never

from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.coding import inflate
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Coding, Format, Media
from gharial.payload.reference_reader import ReferenceReader

Reader = JsonReader | ReferenceReader


def open_body(plan: Plan, media: Media, body: bytes, limits: Limits) -> Reader:
    """Return the reader of `body`, ready for `survey` and `finish`; what it writes has no content coding any more.

    A plan with `needs_reference` gets the reference executor, every other one the fast reader.

    Raises BodyTooLarge and CodingMalformed; everything else that is wrong with the body is found by `survey`. Raises
    ValueError for a plan that no reader can run; `check_plan` finds that before there is a body.
    """
    match media.coding:
        case Coding.IDENTITY:
            plain = body
        case Coding.GZIP:
            plain = inflate(body, limits)
        case _:
            assert_never(media.coding)
    match media.format:
        case Format.JSON:
            reader = _reader(plan, limits)
        case _:
            assert_never(media.format)
    reader.feed(plain)
    return reader


def check_plan(plan: Plan) -> None:
    """Raise ValueError if no reader could run this plan: it is not consistent, or a path or pattern can't be read."""
    _reader(plan, Limits())
    if plan.incoming is not None:
        _reader(plan.incoming, Limits())


def _reader(plan: Plan, limits: Limits) -> Reader:
    return ReferenceReader(plan, limits) if plan.needs_reference else JsonReader(plan, limits)
