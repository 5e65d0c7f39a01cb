"""The one way from a body to its reader: undoes the coding, picks the reader, hands it the whole body."""

from __future__ import annotations

from typing import assert_never

from gharial.model.errors import MediaUnreadable
from gharial.model.finding import Limits
from gharial.model.plan import Plan, Unlisted, reads_json, reads_xml
from gharial.payload.charset import json_in_utf8
from gharial.payload.coding import undo_codings
from gharial.payload.json_reader import JsonReader
from gharial.payload.media import Format, Media
from gharial.payload.program import Layout
from gharial.payload.reference_reader import ReferenceReader
from gharial.payload.rows_reader import RowsReader, make_json_reader, rows_program
from gharial.payload.sequence import Events, Lines, TextSequence
from gharial.payload.table import Table
from gharial.payload.xml_reader import XmlReader, xml_program_of

Reader = JsonReader | ReferenceReader | RowsReader | XmlReader


def open_body(plan: Plan, media: Media, body: bytes, limits: Limits) -> Reader:
    """Return the reader of `body`, ready for `survey` and `finish`; what it writes has no content coding any more.

    For JSON a plan with `needs_reference` gets the reference executor, every other one the fast reader. A plan that has
    places in one format only does not read the other: what `unlisted` says of fields is not said of formats.

    Raises what `check_format` and `plain_text` raise; everything else that is wrong with the body is found by
    `survey`. Raises ValueError for a plan that no reader can run; `check_plan` finds that before there is a body.
    """
    check_format(plan, media.format)
    reader = _reader(plan, media, limits)
    reader.feed(plain_text(media, body, limits))
    return reader


def plain_text(media: Media, body: bytes, limits: Limits) -> bytes:
    """Return the body without content codings, JSON in UTF-8 (with or without a byte order mark), XML as it came.

    Raises BodyTooLarge and CodingMalformed, MediaUnreadable and BodyMalformed for another charset than it says, and
    BodyWrapped.
    """
    plain = undo_codings(body, media.codings, limits)
    # XML's own declaration has a say in how it is read; all others are in UTF-8, which their readers check.
    return json_in_utf8(plain, media.charset) if media.format is Format.JSON else plain


def check_format(plan: Plan, form: Format) -> None:
    """Raise MediaUnreadable if the plan is no cover for bodies of this format."""
    if form is Format.XML:
        if not reads_xml(plan):
            raise MediaUnreadable("the policy has no place in XML")
        return
    if not reads_json(plan):
        raise MediaUnreadable("the policy has no place in JSON")
    if form is Format.JSON:
        return
    if plan.row_nodes is None:
        raise MediaUnreadable("a path of the policy asks which row it is, or tags can't be ordered in rows")
    if form not in (Format.CSV, Format.TSV):
        return
    if plan.unlisted in (Unlisted.PASS, Unlisted.DETECT):
        # Columns seldom have the names of fields, `customer.email` or `E-Mail`, and all of them would pass.
        raise MediaUnreadable("the policy lets pass what it does not name, which is no cover for a table")
    if any(extra.keys for extra in plan.extras):
        # One header stands for all rows, whatever is decided about each of them.
        raise MediaUnreadable("a tag of the policy finds names, which a table can't protect")


def check_plan(plan: Plan) -> None:
    """Raise ValueError if no reader could run this plan: it is not consistent, or a path or pattern can't be read."""
    make_json_reader(plan, Limits())
    if plan.row_nodes:
        make_json_reader(plan, Limits(), Layout.ROWS)
    xml_program_of(plan)
    if plan.incoming is not None:
        make_json_reader(plan.incoming, Limits())


def _reader(plan: Plan, media: Media, limits: Limits) -> Reader:
    match media.format:
        case Format.JSON:
            return make_json_reader(plan, limits)
        case Format.XML:
            return XmlReader(plan, limits, media.charset)
        case Format.LINES:
            return RowsReader(plan, limits, Lines(), part=media.part)
        case Format.SEQUENCE:
            return RowsReader(plan, limits, TextSequence(), part=media.part)
        case Format.EVENTS:
            return RowsReader(plan, limits, Events(), part=media.part)
        case Format.CSV:
            return RowsReader(plan, limits, Table(rows_program(plan), "", header_declared=media.header))
        case Format.TSV:
            return RowsReader(plan, limits, Table(rows_program(plan), "\t", header_declared=media.header))
        case _:
            assert_never(media.format)
