"""Which bodies are read at all, by their headers."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.model.errors import CodingUnknown, MediaUnreadable
from gharial.payload.charset import Charset
from gharial.payload.coding import Coding
from gharial.payload.media import Format, Media, choose_reader, narrow_accept_encoding


def of_type(*values: str) -> Media:
    return choose_reader([("content-type", value) for value in values])


def coded(*values: str) -> tuple[Coding, ...]:
    return choose_reader([("content-type", "application/json"), *(("content-encoding", v) for v in values)]).codings


@pytest.mark.parametrize(
    "value",
    [
        "application/json",
        "Application/JSON",
        "text/json",
        "application/problem+json",
        "application/vnd.acme.v2+JSON",
        "application/json; charset=utf-8",
        "application/json;charset=UTF-8",
        'application/json; charset="utf-8"',
        "application/json; charset=utf8; profile=x",
        'application/json; profile="a, b; c"',
        "application/json;",
        "  application/json  ",
    ],
)
def test_json_types_in_utf8_are_read(value: str) -> None:
    """JSON and every +json type, in any case and with parameters, goes to the JSON reader."""
    media = of_type(value)
    assert (media.format, media.codings, media.charset in (None, Charset.UTF8)) == (Format.JSON, (), True)


@pytest.mark.parametrize(
    ("value", "form"),
    [
        ("application/x-ndjson", Format.LINES),
        ("application/NDJSON; charset=UTF-8", Format.LINES),
        ("application/jsonl", Format.LINES),
        ("application/x-jsonl", Format.LINES),
        ("application/jsonlines", Format.LINES),
        ("application/x-jsonlines", Format.LINES),
        ("application/json-seq", Format.SEQUENCE),
        ("application/geo+json-seq", Format.SEQUENCE),
        ("text/event-stream;charset=utf-8", Format.EVENTS),
        ("Text/CSV", Format.CSV),
        ("text/tab-separated-values", Format.TSV),
    ],
)
def test_types_of_rows_have_their_readers(value: str, form: Format) -> None:
    """In any case, in UTF-8 only."""
    assert of_type(value).format is form
    assert choose_reader([("content-type", 'text/csv; Header="PRESENT"')]).header


@pytest.mark.parametrize(
    ("value", "charset"),
    [
        ("utf-16", Charset.UTF16),
        ("UTF-16LE", Charset.UTF16_LITTLE),
        ('"utf-16be"', Charset.UTF16_BIG),
        ("utf-32", Charset.UTF32),
        ("Utf-32LE", Charset.UTF32_LITTLE),
        ("utf-32BE", Charset.UTF32_BIG),
    ],
)
def test_every_encoding_of_unicode_is_known(value: str, charset: Charset) -> None:
    """The charset that is named is what the bytes must be."""
    assert of_type(f"application/json; charset={value}") == Media(Format.JSON, (), charset)


@pytest.mark.parametrize(
    ("value", "charset"),
    [
        ("application/xml", None),
        ("text/xml", None),
        ("Text/XML; charset=UTF-8", Charset.UTF8),
        ('application/soap+xml; charset="ISO-8859-1"; action="urn:x"', Charset.LATIN1),
        ("application/xml;charset=utf-16", Charset.UTF16),
        ("application/vnd.acme+xml", None),
    ],
)
def test_xml_types_are_read_with_what_they_say_of_the_charset(value: str, charset: Charset | None) -> None:
    """XML and every +xml type of an application goes to the XML reader, which checks the charset against the body."""
    assert of_type(value) == Media(Format.XML, (), charset)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "application",
        "application/",
        "/json",
        "text/html",
        "text/plain",
        "text/soap+xml",
        "image/svg+xml",
        "application/+xml",
        "application/xml-dtd",
        "application/xml; charset=utf-7",
        "application/xml; charset=utf-32",
        "application/xml; charset=ibm037",
        "application/xml; charset=utf-8; charset=utf-8",
        "application/xml, application/json",
        "application/octet-stream",
        "image/json",
        "application/+json",
        "application/json5",
        "text/x-ndjson",
        "application/csv",
        "application/+json-seq",
        "text/csv-schema",
        "text/csv; header=absent",
        "text/csv; header=maybe",
        "text/csv; header=present; header=absent",
        "text/csv; charset=utf-16",
        "application/x-ndjson; charset=utf-32",
        "text/event-stream; charset=iso-8859-1",
        "application/json, text/html",
        "text/html, application/json",
        "application/json,application/json",
        "application/json text/html",
        "application/json; charset=",
        "application/json; charset=ucs-2",
        "application/json; charset=us-ascii",
        "application/json; charset=iso-8859-1",
        'application/json; CHARSET="UTF-7"',
        "application/json; charset=utf-8; charset=utf-16",
        "application/json; charset=utf-8; charset=utf-8",
        'application/json; charset="utf-8',
        "application/json; charset",
        "application/json\x00",
        "application/json\n",
        "multipart/form-data; boundary=application/json",
    ],
)
def test_every_other_type_is_refused(value: str) -> None:
    """What is neither one JSON type in UTF-8 nor one XML type is refused, whatever it resembles."""
    with pytest.raises(MediaUnreadable):
        of_type(value)


def test_a_missing_type_is_refused() -> None:
    """A body of unknown type is not guessed at."""
    with pytest.raises(MediaUnreadable):
        choose_reader([])


def test_two_types_are_refused_even_if_equal() -> None:
    """Two content types mean that two readers may disagree."""
    with pytest.raises(MediaUnreadable):
        of_type("application/json", "application/json")


def test_a_second_type_in_other_case_is_seen() -> None:
    """A header's name has no case: the second type counts."""
    with pytest.raises(MediaUnreadable):
        choose_reader([("content-type", "application/json"), ("Content-Type", "text/html")])


@pytest.mark.parametrize("values", [(), ("",), ("identity",), ("Identity, ,",)])
def test_no_coding_is_identity(values: tuple[str, ...]) -> None:
    """No coding, an empty one and `identity` are all none."""
    assert coded(*values) == ()


@pytest.mark.parametrize("values", [("gzip",), ("GZIP",), ("x-gzip",), ("identity", "gzip"), ("gzip, identity",)])
def test_one_gzip_is_undone(values: tuple[str, ...]) -> None:
    """gzip and its old name, once."""
    assert coded(*values) == (Coding.GZIP,)


@pytest.mark.parametrize(
    ("values", "codings"),
    [
        (("br",), (Coding.BR,)),
        (("Deflate",), (Coding.DEFLATE,)),
        (("zstd",), (Coding.ZSTD,)),
        (("gzip, gzip",), (Coding.GZIP, Coding.GZIP)),
        (("br", "gzip"), (Coding.BR, Coding.GZIP)),
        (("deflate, identity, br, zstd",), (Coding.DEFLATE, Coding.BR, Coding.ZSTD)),
    ],
)
def test_codings_are_told_in_the_order_in_which_they_were_applied(
    values: tuple[str, ...], codings: tuple[Coding, ...]
) -> None:
    """The four codings, and up to three of them, over one header or several."""
    assert coded(*values) == codings


@pytest.mark.parametrize(
    "values",
    [
        ("gzip, gzip, gzip, gzip",),
        ("gzip;q=1",),
        ("aws-chunked",),
        ("compress",),
        ("x-br",),
        ("gzip br",),
        ("br\x00",),
        ("dcb",),
        ("gzip", "exi"),
    ],
)
def test_other_codings_are_refused(values: tuple[str, ...]) -> None:
    """A coding that is not undone, or more than three of them, is refused."""
    with pytest.raises(CodingUnknown):
        coded(*values)


@pytest.mark.parametrize(
    ("values", "want"),
    [
        ([], "identity"),
        ([""], "identity"),
        (["gzip"], "gzip"),
        (["br, gzip;q=0.8, zstd"], "gzip"),
        (["br", "X-GZIP; q=0.001"], "gzip"),
        (["*"], "gzip"),
        (["*;q=0"], "identity"),
        (["gzip;q=0, *"], "identity"),
        (["gzip;q=0.000"], "identity"),
        (["gzip;q=0"], "identity"),
        (["gzip, gzip;q=0"], "identity"),
        (["gzip;q=x"], "identity"),
        (["gzip;q=1.0"], "gzip"),
        (["gzip;q=2"], "identity"),
        (["br;q=1.0, deflate"], "identity"),
        (["identity"], "identity"),
    ],
)
def test_accept_encoding_is_narrowed(values: list[str], want: str) -> None:
    """The upstream is only ever asked for gzip, if the client takes it, or for no coding."""
    assert narrow_accept_encoding(values) == want


@given(st.lists(st.text(max_size=30), max_size=3))
def test_accept_encoding_is_total(values: list[str]) -> None:
    """No header, however broken, asks for anything else."""
    assert narrow_accept_encoding(values) in ("gzip", "identity")


@given(st.lists(st.tuples(st.sampled_from(["content-type", "content-encoding"]), st.text(max_size=30)), max_size=3))
def test_any_headers_give_a_reader_or_a_refusal(headers: list[tuple[str, str]]) -> None:
    """Nothing but the two errors comes out of broken headers."""
    with contextlib.suppress(MediaUnreadable, CodingUnknown):
        assert choose_reader(headers).format is Format.JSON
