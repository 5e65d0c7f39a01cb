"""Coarser values and shifted dates: what is shown, and above all what is not."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.crypto.coarse import band, band_of_years, bucket, find_number, month, postcode, round_to, year
from gharial.crypto.dates import blank_date, find_date, shift_days
from gharial.crypto.mask import truncate


def band_of(text, width, unit):
    """A band as the plan has it."""
    return band_of_years(text, width) if unit == "y" else band(text, width) if not unit else None


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
    assert band_of(text, width, unit) == want


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
def test_what_has_no_band_of(text, width, unit):
    """What is not such a value, is out of bounds, or would be shown as it is, gives nothing."""
    assert band_of(text, width, unit) is None


@given(st.decimals(-(10**14), 10**14, allow_nan=False, places=3), st.integers(2, 10**6))
def test_a_value_lies_in_its_band(number, width):
    """The band holds the value, begins at a multiple of its width, and is as wide as was said."""
    low, high = (band(f"{number:f}", width) or "").rsplit(" to " if number < 0 else "-", 1)
    assert int(low) % width == 0
    assert int(high) == int(low) + width - 1
    assert int(low) <= number < int(low) + width


@given(st.text() | st.from_regex(r"[0-9./-]{1,12}"), st.integers(-2, 1000))
def test_they_are_total(text, size):
    """Whatever the text, each is a text or nothing and never raises; what comes out is not what went in."""
    for coarser in (year(text), month(text), band(text, size), band_of_years(text, size), postcode(text, size)):
        assert coarser is None or coarser != text
    for coarser in (bucket(text, (size,)), truncate(text, size)):
        assert coarser is None or coarser != text
    assert round_to(text, Decimal(size)) is None or find_number(text.strip()) is not None


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


@pytest.mark.parametrize(
    ("text", "as_date", "want"),
    [
        ("1990-12-31", False, "1990-12"),
        ("1990-12-31T23:59:59+02:00", False, "1990-12"),
        ("1990-12-31T23:59:59+02:00", True, "1990-12-01T00:00:00+00:00"),
        ("31.12.1990", False, "1990-12"),
        ("3.4.1990", True, "01.04.1990"),
        ("12/31/1990", True, "12/01/1990"),
        ("31/12/1990", True, "01/12/1990"),
        ("03/03/1990", False, "1990-03"),
        ("03/04/1990", False, None),
        ("1990/31/12", False, "1990-12"),
        ("1990", False, None),
        ("Ann", False, None),
    ],
)
def test_the_month_of_a_date(text, as_date, want):
    """A month is told where day and month can be told apart, and as a date in the date's own form."""
    assert month(text, as_date=as_date) == want


@pytest.mark.parametrize(
    ("text", "want"),
    [("1990-12-31", "1990-01-01"), ("31.12.1990", "01.01.1990"), ("03/04/1990", "01/01/1990"), ("Ann", None)],
)
def test_a_year_as_a_date(text, want):
    """The year as a date is its first day, in the date's own form."""
    assert year(text, as_date=True) == want
    assert band_of_years(text, 10, as_date=True) == want


@pytest.mark.parametrize(
    ("text", "want", "as_number"),
    [
        ("17", "<18", None),
        ("17.99", "<18", None),
        ("18", "18-64", "18"),
        ("64.9", "18-64", "18"),
        ("65", "65+", "65"),
        ("-1", "<18", None),
        ("1e2", "65+", "65"),
        ("007", None, None),
        ("Ann", None, None),
    ],
)
def test_buckets(text, want, as_number):
    """A number lies in the bucket that begins at or below it."""
    assert bucket(text, (18, 65)) == want
    assert bucket(text, (18, 65), as_number=True) == as_number


@pytest.mark.parametrize(
    ("text", "to", "want"),
    [
        ("1234.5", "100", "1200"),
        ("1250", "100", "1200"),
        ("1350", "100", "1400"),
        ("-1260", "100", "-1300"),
        ("-3", "100", "0"),
        ("1200", "100", "1200"),
        ("52.520008", "0.01", "52.52"),
        ("52.52", "0.01", None),
        ("7", "1", None),
        ("7.2", "1", "7"),
        ("1e14", "1000", "100000000000000"),
        ("1e16", "1000", None),
        ("Ann", "10", None),
    ],
)
def test_rounding(text, to, want):
    """The nearest multiple, halves to the even one; no number is shown whole by rounding it to what it has anyway."""
    assert round_to(text, Decimal(to)) == want


@pytest.mark.parametrize(
    ("text", "chars", "want"),
    [
        ("SW1A 1AA", 4, "SW1A"),
        ("10115", 3, "101"),
        ("02139-4307", 3, "021"),
        ("10115", 4, None),
        ("Berlin", 3, None),
        ("1", 1, None),
        ("101  15", 3, None),
        ("\u0661\u0660\u0661\u0661\u0665", 3, None),
    ],
)
def test_postcodes(text, chars, want):
    """The first letters and digits of a postcode, if two stay hidden at least; nothing of what is none."""
    assert postcode(text, chars) == want


@pytest.mark.parametrize(
    ("text", "chars", "want"),
    [
        ("Anna Lind", 2, "An"),
        ("Anna", 3, None),
        ("", 1, None),
        ("ab", 1, None),
        ("é" * 6, 2, "éé"),
        ("A" + "\u0301" * 9, 1, None),
    ],
)
def test_cut_texts(text, chars, want):
    """A text is cut where at least as much of it goes as stays."""
    assert truncate(text, chars) == want


@given(st.dates(), st.integers(-4000, 4000))
def test_shifting_agrees_with_the_calendar(day, days):
    """Days are counted as the standard library counts them, to the ends of the calendar and not beyond."""
    try:
        want = day + timedelta(days)
    except OverflowError:
        want = None
    got = shift_days(day.year, day.month, day.day, days)
    assert got == (want and (want.year, want.month, want.day))


def test_a_day_that_does_not_exist_is_not_shifted():
    """29 February of a year without one is no day to count from."""
    assert shift_days(1991, 2, 29, 1) is None
    assert shift_days(1992, 2, 29, 1) == (1992, 3, 1)


@given(st.dates(), st.sampled_from(["%Y-%m-%d", "%d.%m.%Y", "%Y/%m/%d", "%Y-%m-%dT12:30:00Z"]))
def test_a_date_is_written_back_in_its_form(day, form):
    """What is found in a text, written again, is that text."""
    text = day.strftime(form).rjust(len(date(1000, 1, 1).strftime(form)), "0")
    if text.startswith("0000") or day.year < 1000:
        return
    found = find_date(text)
    assert found is not None
    assert found.write(found.year, found.month, found.day) == text
