"""Masks, years and bands: what is shown, and above all what is not."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.mask import HIDDEN, band, blank_date, mask, year

COUNTS = st.integers(0, 6)


@given(st.text())
def test_the_default_mask_hides_everything(text):
    """Without parameters the mask is the same for every text, the empty one too: not even the length is told."""
    assert mask(text) == HIDDEN == "***"


@pytest.mark.parametrize(
    ("text", "first", "last", "want"),
    [
        ("+44 7700 900123", 0, 4, "***0123"),
        ("+44 7700 900123", 3, 0, "+44***"),
        ("DE02120300000000202051", 4, 4, "DE02***2051"),
        ("Ann", 1, 0, "A***"),
        ("Anna", 1, 1, "A***a"),
        ("1234567", 0, 4, "***"),
        ("12345678", 0, 4, "***5678"),
        ("Bo", 1, 0, "***"),
        ("Ann", 1, 1, "***"),
        ("", 1, 1, "***"),
        ("abc", 3, 0, "***"),
        ("abc", 9, 9, "***"),
        ("----1234", 0, 4, "***"),
        ("\u200b" * 8 + "1234", 0, 4, "***"),
        ("((((((12", 0, 2, "***"),
        ("abcde1\u200d2\u200d3\u200d4", 0, 1, "***4"),
        ("😀😀😀😀", 1, 0, "***"),
    ],
)
def test_first_and_last(text, first, last, want):
    """The ends are shown where at least as many letters and digits, and two of them, stay hidden; else nothing is."""
    assert mask(text, first, last) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("ann@ex.org", "***@ex.org"),
        ("a@mail.ex-ample.co.uk", "***@mail.ex-ample.co.uk"),
        ("ann@münchen.example", "***@münchen.example"),
        ("ann", "***"),
        ("", "***"),
        ("@ex.org", "***"),
        ("ann@", "***"),
        ("ann@bob@ex.org", "***"),
        ("ann@ex.org@", "***"),
        ("Ann <ann@ex.org>", "***"),
        ("met her @ 12 Main St.", "***"),
        ("ann@ex.org, bob", "***"),
        ("ann@ex.org\n", "***"),
        ("ann@192.0.2.1", "***"),
        ("ann@[192.0.2.1]", "***"),
        ("ann@localhost", "***"),
        ("4711@-ex.org", "***"),
        ("ann@ex..org", "***"),
        ("ann@ex.org.", "***"),
        ("ann@" + "a" * 64 + ".org", "***"),
        ("ann@" + "a." * 200 + "org", "***"),
        ("ann\uff20ex.org", "***"),
    ],
)
def test_keep_domain(text, want):
    """The domain is shown only if the text is one address of a host name; whatever else has an '@' is hidden."""
    assert mask(text, keep="domain") == want


def test_keep_domain_with_first_and_last():
    """The ends are those of what stands before the '@'."""
    assert mask("ann.person@ex.org", 1, 0, "domain") == "a***@ex.org"
    assert mask("an@ex.org", 1, 0, "domain") == "***@ex.org"


def test_an_unknown_keep_hides_everything():
    """A parameter of a later version does not open anything."""
    assert mask("ann@ex.org", 2, 2, "user") == HIDDEN


def test_negative_counts_show_nothing():
    """A negative count is no count: it does not wrap round to the other end."""
    assert mask("0123456789", -3, -3) == HIDDEN
    assert mask("0123456789", 2, -3) == "01***"
    assert mask("0123456789", -3, 2) == "***89"


@given(st.text("aZ09 -.é\u0301\u200d😀", max_size=30), COUNTS, COUNTS)
def test_a_mask_shows_only_its_ends_and_at_most_half(text, first, last):
    """Either all is hidden, or the text's own ends are shown, with no more letters and digits than are hidden."""
    masked = mask(text, first, last)
    head, tail = masked.split(HIDDEN)
    assert text.startswith(head)
    assert text.endswith(tail)
    middle = text[len(head) : len(text) - len(tail)] if head or tail else text
    count = sum(map(str.isalnum, middle))
    if head or tail:
        assert count >= 2
        assert count >= sum(map(str.isalnum, head + tail))
    if head:
        assert not unicodedata.combining(middle[0])


ENDS = st.text("abc019é", max_size=3)
MIDDLES = st.text("abc0123456789é", min_size=6, max_size=30)


@given(ENDS, MIDDLES, MIDDLES, ENDS)
def test_the_length_does_not_leak(head, one, other, tail):
    """Texts with the same ends, of which enough is hidden, look the same whatever their length."""
    masked = mask(head + one + tail, len(head), len(tail))
    assert masked == mask(head + other + tail, len(head), len(tail)) == head + HIDDEN + tail


def test_characters_are_not_cut():
    """A base keeps its marks, a flag and a joined emoji stay whole: no mark ends up on an asterisk."""
    assert mask("e\u0301abcd", 1, 0) == "e\u0301***"
    assert mask("abcde\u0301", 0, 1) == "***e\u0301"
    assert mask("\U0001f1e9\U0001f1ea\U0001f1eb\U0001f1f7abcd", 1, 0) == "\U0001f1e9\U0001f1ea***"
    assert mask("\U0001f469\u200d\U0001f680abcd", 1, 0) == "\U0001f469\u200d\U0001f680***"
    assert mask("\U0001f44d\U0001f3fdabcd", 1, 0) == "\U0001f44d\U0001f3fd***"
    assert mask("नमस्ते दुनिया", 1, 0) == "न***"


def test_what_cannot_be_written_is_hidden():
    """A lone surrogate hides all of the text that it stands in."""
    assert mask("\ud800abcdefgh", 1, 1) == mask("abcdefgh\ud800", 1, 1) == HIDDEN


@pytest.mark.parametrize(
    "text",
    [
        "1990-12-31",
        " 1990-12-31\n",
        "1990-12-31T23:59:59Z",
        "1990-12-31T23:59:60Z",
        "1990-12-31t10:00:00.123456789+02:00",
        "1990-12-31 10:00:00",
        "1990-12-31T10:00",
        "1990-12-31T10:00:00 -0530",
        "31.12.1990",
        "12/31/1990",
        "31/12/1990",
        "1/2/1990",
        "31-12-1990",
        "1990/12/31",
        "1990.31.12",
        "1990-2-1",
    ],
)
def test_the_year_of_a_date(text):
    """ISO dates, with time and offset or without, and dates with a four-digit year at one end give their year."""
    assert year(text) == "1990"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "1990",
        "19901231",
        "1990-12",
        "1990-13-31",
        "1990-12-32",
        "1990-02-30",
        "1990-00-10",
        "0000-01-01",
        "31.13.1990",
        "31.31.1990",
        "30.02.1990",
        "0/1/1990",
        "31.12.90",
        "31.12-1990",
        "31.12.19900",
        "131.12.1990",
        "1990-12-31T",
        "1990-12-31T25:00:00",
        "1990-12-31 born in Ulm",
        "born 1990-12-31",
        "1990-12-31\n1991-12-31",
        "1990-12-31T10:00:00+02:00[Europe/Berlin]",
        "-1990-12-31",
        "\uff11\uff19\uff19\uff10-12-31",
        "31 Dec 1990",
        "4111-11-11-1111",
    ],
)
def test_what_is_no_date_has_no_year(text):
    """Anything else gives nothing, impossible days and prose around a date included."""
    assert year(text) is None


@given(st.dates(), st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%m/%d/%Y", "%Y/%m/%d"]))
def test_every_date_gives_its_year(date, form):
    """For every date in every one of these forms the year is the date's."""
    text = form.replace("%Y", f"{date.year:04d}").replace("%m", f"{date.month:02d}").replace("%d", f"{date.day:02d}")
    assert year(text) == f"{date.year:04d}"


@pytest.mark.parametrize(
    ("text", "width", "unit", "want"),
    [
        ("1990-12-31", 10, "y", "1990-1999"),
        ("31.12.1999", 10, "y", "1990-1999"),
        ("1990-12-31", 25, "y", "1975-1999"),
        ("0003-12-31", 10, "y", "0000-0009"),
        ("34", 10, "", "30-39"),
        ("30", 10, "", "30-39"),
        ("39.999", 10, "", "30-39"),
        (" 40 ", 10, "", "40-49"),
        ("0", 10, "", "0-9"),
        ("-0", 10, "", "0-9"),
        ("-0.0", 10, "", "0-9"),
        ("-0.5", 10, "", "-10 to -1"),
        ("-5", 10, "", "-10 to -1"),
        ("-10", 10, "", "-10 to -1"),
        ("-10.01", 10, "", "-20 to -11"),
        ("1e3", 500, "", "1000-1499"),
        ("1.5E-3", 10, "", "0-9"),
        ("999999999999999", 10, "", "999999999999990-999999999999999"),
        ("34", 7, "", "28-34"),
    ],
)
def test_bands(text, width, unit, want):
    """A value gives the band that it lies in, decimals and negatives included."""
    assert band(text, width, unit) == want


@pytest.mark.parametrize(
    ("text", "width", "unit"),
    [
        ("1990", 10, "y"),
        ("soon", 10, "y"),
        ("1990-12-31", 0, "y"),
        ("1990-12-31", 10, ""),
        ("", 10, ""),
        ("007", 10, ""),
        ("+34", 10, ""),
        ("34 years", 10, ""),
        ("1,5", 10, ""),
        ("0x22", 10, ""),
        ("NaN", 10, ""),
        ("Infinity", 10, ""),
        ("1_000", 10, ""),
        ("\uff13\uff14", 10, ""),
        ("1e15", 10, ""),
        ("1e999", 10, ""),
        ("-1e999", 10, ""),
        ("9" * 5000, 10, ""),
        ("1e" + "9" * 5000, 10, ""),
        ("34", 1, ""),
        ("34", 0, ""),
        ("34", -10, ""),
        ("34", 10, "m"),
    ],
)
def test_what_has_no_band(text, width, unit):
    """What is not such a value, is out of bounds, or would be shown as it is, gives nothing."""
    assert band(text, width, unit) is None


@given(st.decimals(-(10**14), 10**14, allow_nan=False, places=3), st.integers(2, 10**6))
def test_a_value_lies_in_its_band(number, width):
    """The band holds the value, begins at a multiple of its width, and is as wide as was said."""
    low, high = (band(f"{number:f}", width, "") or "").rsplit(" to " if number < 0 else "-", 1)
    assert int(low) % width == 0
    assert int(high) == int(low) + width - 1
    assert int(low) <= number < int(low) + width


@given(st.text(), COUNTS, COUNTS, st.sampled_from(["", "domain"]), st.integers(-2, 1000), st.sampled_from(["", "y"]))
def test_they_are_total(text, first, last, keep, width, unit):
    """Whatever the text, a mask is a text and year and band are a text or nothing: no exception."""
    assert HIDDEN in mask(text, first, last, keep)
    assert year(text) is None or len(str(year(text))) == 4
    assert band(text, width, unit) is None or band(text, width, unit) != text


@pytest.mark.parametrize(
    ("text", "blank"),
    [
        ("1990-05-17", "0001-01-01"),
        ("1990/05/17", "0001/01/01"),
        ("19900517", "00010101"),
        ("17.05.1990", "01.01.0001"),
        ("5/7/1990", "01/01/0001"),
        ("1990-05-17T08:15:30.123Z", "0001-01-01T00:00:00.000Z"),
        ("1990-05-17T08:15:30+02:00", "0001-01-01T00:00:00+00:00"),
        ("1990-05-17 08:15", "0001-01-01 00:00"),
        ("May 1990", None),
        ("", None),
        ("1990-05-17 born in Ulm", None),
    ],
)
def test_a_blank_date_keeps_the_format_and_nothing_else(text, blank):
    """A redacted date is the first of January of the year 1 in its own format; other texts are no dates."""
    assert blank_date(text) == blank
