"""Rows are cut out of a body in pieces: the same ones whatever the pieces, each as soon as it is whole."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.documents import documents

from gharial.payload.charset import UTF8_MARK
from gharial.payload.media import Format
from gharial.payload.row_cutter import ROW_FORMATS, RowCutter

FORMS = sorted(ROW_FORMATS)
ENDS = st.sampled_from(["\n", "\r\n"])


_DOCUMENTS = documents()
"""Made once: a recursive strategy that is made anew at every draw need not draw alike."""


@st.composite
def bodies(draw: st.DrawFn, form: Format) -> bytes:
    """A body of rows as one of the formats has them, with what may stand between."""
    parts: list[str] = []
    for text in draw(st.lists(_DOCUMENTS, max_size=5)):
        document = text.strip() or "null"
        end = draw(ENDS)
        match form:
            case Format.LINES:
                parts.append(json.dumps(json.loads(document), ensure_ascii=draw(st.booleans())) + end)
                parts.append(draw(st.sampled_from(["", end, " " + end])))
            case Format.SEQUENCE:
                parts.append("\x1e" + document + "\n" + draw(st.sampled_from(["", "\x1e", "\n", " "])))
            case _:
                end = draw(st.sampled_from(["\n", "\r\n", "\r"]))
                parts.append(draw(st.sampled_from(["", f"event: x{end}", f": a comment{end}", f": a{end}{end}"])))
                parts += [f"data: {one}{end}" for one in document.splitlines()] + [end]
    mark = draw(st.sampled_from([b"", UTF8_MARK]))
    return mark + "".join(parts).encode("utf-8", "surrogatepass")


def cut(form: Format, pieces: list[bytes]) -> list[bytes]:
    cutter = RowCutter(form)
    return [row for piece in pieces for row in cutter.feed(piece)] + cutter.finish()


def meant(form: Format, rows: list[bytes]) -> list[bytes]:
    """What rows say, apart from blank lines and separators, which may stand on either side of a cut."""
    stripped = [row.strip(b"\x1e\r\n\t ") for row in rows]
    return [row for row in stripped if row]


@given(st.data(), st.sampled_from(FORMS))
def test_the_same_rows_come_out_whatever_the_pieces(data: st.DataObject, form: Format) -> None:
    """Cut anywhere, also inside a character, a CR LF or a byte order mark."""
    body = data.draw(bodies(form))
    places = sorted(data.draw(st.lists(st.integers(0, len(body)), max_size=12)))
    pieces = [body[a:b] for a, b in zip([0, *places], [*places, len(body)], strict=True)]
    assert meant(form, cut(form, pieces)) == meant(form, cut(form, [body]))
    assert meant(form, cut(form, [bytes([one]) for one in body])) == meant(form, cut(form, [body]))


@given(st.data(), st.sampled_from(FORMS))
def test_nothing_is_lost_or_added(data: st.DataObject, form: Format) -> None:
    """All bytes but a mark at the beginning and white space come out, in their order."""
    body = data.draw(bodies(form))
    blank = b"\x1e\r\n\t "
    out = b"".join(cut(form, [body]))
    assert out.translate(None, blank) == body.removeprefix(UTF8_MARK).translate(None, blank)


@pytest.mark.parametrize(
    ("form", "row"),
    [
        (Format.LINES, b'{"a":1}\n'),
        (Format.SEQUENCE, b'\x1e{"a":1}\n'),
        (Format.SEQUENCE, b'\x1e{\n "a": 1\n}\n'),
        (Format.EVENTS, b"event: x\ndata: 1\n\n"),
        (Format.EVENTS, b"data: 1\r\n\r\n"),
    ],
)
def test_a_row_comes_out_with_its_last_byte(form: Format, row: bytes) -> None:
    """It waits for no other row, and nothing of it is held."""
    cutter = RowCutter(form)
    assert [out for one in row[:-1] for out in cutter.feed(bytes([one]))] in ([], [row[:-1]])
    cutter = RowCutter(form)
    assert cutter.feed(row) == [row]
    assert cutter.held_bytes == 0


def test_what_is_not_whole_is_held_and_counted() -> None:
    """So whoever drives it can end a row that never ends; at the end of the body it comes out to be judged."""
    cutter = RowCutter(Format.LINES)
    assert cutter.feed(b'{"a"') == []
    assert cutter.held_bytes == 4
    assert cutter.finish() == [b'{"a"']


def test_text_without_its_separator_comes_out_to_be_judged() -> None:
    """What stands before a record separator is no row, and its reader says so; it is not dropped in silence."""
    assert cut(Format.SEQUENCE, [b'{"a":1}\n\x1e2\n']) == [b'{"a":1}\n', b"\x1e2\n"]


def test_other_formats_are_not_cut() -> None:
    """A table's row means nothing without the header, and a document has no rows."""
    with pytest.raises(ValueError, match="not cut"):
        RowCutter(Format.CSV)
