"""The one way from a body to its reader: undoes the coding, picks the reader, hands it the whole body."""

from __future__ import annotations

from typing import assert_never

from gharial.model.finding import Limits
from gharial.model.plan import Plan
from gharial.payload.coding import inflate
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Coding, Format, Media


def open_body(plan: Plan, media: Media, body: bytes, limits: Limits) -> JsonReader:
    """Return the reader of `body`, ready for `survey` and `finish`; what it writes has no content coding any more.

    Raises BodyTooLarge and CodingMalformed; everything else that is wrong with the body is found by `survey`.
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
            reader = JsonReader(plan, limits)
        case _:
            assert_never(media.format)
    reader.feed(plain)
    return reader
