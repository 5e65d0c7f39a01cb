"""The one way from a body to its reader: undoes the coding, picks the reader, hands it the whole body."""

from __future__ import annotations

from typing import assert_never

from gharial.model.errors import MediaUnreadable
from gharial.model.finding import Limits
from gharial.model.plan import Plan, reads_json, reads_xml
from gharial.payload.charset import json_in_utf8
from gharial.payload.coding import undo_codings
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Format, Media
from gharial.payload.reference_reader import ReferenceReader
from gharial.payload.xml_reader import XmlReader, xml_program_of

Reader = JsonReader | ReferenceReader | XmlReader


def open_body(plan: Plan, media: Media, body: bytes, limits: Limits) -> Reader:
    """Return the reader of `body`, ready for `survey` and `finish`; what it writes has no content coding any more.

    For JSON a plan with `needs_reference` gets the reference executor, every other one the fast reader. A plan that has
    places in one format only does not read the other: what `unlisted` says of fields is not said of formats.

    Raises MediaUnreadable for such a format and what `plain_text` raises; everything else that is wrong with the body
    is found by `survey`. Raises ValueError for a plan that no reader can run; `check_plan` finds that before there is a
    body.
    """
    check_format(plan, media.format)
    plain = plain_text(media, body, limits)
    match media.format:
        case Format.JSON:
            reader: Reader = _json_reader(plan, limits)
        case Format.XML:
            reader = XmlReader(plan, limits, media.charset)
        case _:
            assert_never(media.format)
    reader.feed(plain)
    return reader


def plain_text(media: Media, body: bytes, limits: Limits) -> bytes:
    """Return the body without content codings, JSON in UTF-8 (with or without a byte order mark), XML as it came.

    Raises BodyTooLarge and CodingMalformed, MediaUnreadable and BodyMalformed for another charset than it says, and
    BodyWrapped.
    """
    plain = undo_codings(body, media.codings, limits)
    match media.format:
        case Format.JSON:
            return json_in_utf8(plain, media.charset)
        case Format.XML:
            # Its own declaration has a say in how it is read.
            return plain
        case _:
            assert_never(media.format)


def check_plan(plan: Plan) -> None:
    """Raise ValueError if no reader could run this plan: it is not consistent, or a path or pattern can't be read."""
    _json_reader(plan, Limits())
    xml_program_of(plan)
    if plan.incoming is not None:
        _json_reader(plan.incoming, Limits())


def check_format(plan: Plan, form: Format) -> None:
    """Raise MediaUnreadable if the plan has places in other formats only."""
    match form:
        case Format.JSON:
            if not reads_json(plan):
                raise MediaUnreadable("the policy has no place in JSON")
        case Format.XML:
            if not reads_xml(plan):
                raise MediaUnreadable("the policy has no place in XML")
        case _:
            assert_never(form)


def _json_reader(plan: Plan, limits: Limits) -> JsonReader | ReferenceReader:
    return ReferenceReader(plan, limits) if plan.needs_reference else JsonReader(plan, limits)
