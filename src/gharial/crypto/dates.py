"""Dates as texts hold them: found with their form, so that another date can be written in the same one.

No calendar of the standard library is used: its module reads clocks too, which this room must not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_TIME = (
    r"(?:[Tt ](?:[01][0-9]|2[0-4]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:[.,][0-9]{1,9})?)?"
    r"(?: ?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_ISO = re.compile(rf"(?P<y>[0-9]{{4}})(?P<s>-)(?P<a>[0-9]{{2}})-(?P<b>[0-9]{{2}})(?P<rest>{_TIME})")
_YEAR_FIRST = re.compile(r"(?P<y>[0-9]{4})(?P<s>[./-])(?P<a>[0-9]{1,2})(?P=s)(?P<b>[0-9]{1,2})(?P<rest>)")
_YEAR_LAST = re.compile(r"(?P<a>[0-9]{1,2})(?P<s>[./-])(?P<b>[0-9]{1,2})(?P=s)(?P<y>[0-9]{4})(?P<rest>)")
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class DateText:
    """A date that a text holds, and the order and marks in which it stands there.

    `month` and `day` are 0 where `03/04/1990` may be either order. `rest` is the time with its offset, as written.
    """

    year: int
    month: int
    day: int
    form: str
    rest: str

    def write(self, year: int, month: int, day: int) -> str:
        """Return another date in the same order and with the same marks, with the time as it stands there.

        Month and day have two digits, whatever the date had: that a digit is missing would tell something of it.
        """
        return self.form.format(y=year, m=month, d=day) + self.rest

    def write_midnight(self, year: int, month: int, day: int) -> str:
        """Return another date in the same form, each digit of the time 0."""
        return self.form.format(y=year, m=month, d=day) + re.sub("[0-9]", "0", self.rest)


def find_date(text: str) -> DateText | None:
    """Return the date that the text is, or None.

    Dates are `1990-12-31`, also with time and offset (ISO 8601), and day, month and year in either order with `.`, `/`
    or `-`, the year having four digits (`31.12.1990`, `12/31/1990`, `1990/12/31`). The day exists in some year. With
    `/` and two numbers up to 12 nobody can tell the day from the month, hence neither is said. A year alone is none.
    """
    if not text.isascii():
        return None
    match = _ISO.fullmatch(text) or _YEAR_FIRST.fullmatch(text) or _YEAR_LAST.fullmatch(text)
    if match is None or match["y"] == "0000":
        return None
    one, other, mark = int(match["a"]), int(match["b"]), match["s"]
    if match.re is not _YEAR_LAST:
        orders, form = "md", "{y:04d}" + mark + "{m:02d}" + mark + "{d:02d}"
        if mark != "-" and not _exists(one, other):
            orders, form = "dm", "{y:04d}" + mark + "{d:02d}" + mark + "{m:02d}"
    else:
        # With a slash Americans write the month first; with a dot or a dash the day stands first, if it can.
        month_first = _exists(one, other) and (mark == "/" or not _exists(other, one))
        orders = "md" if month_first else "dm"
        form = mark.join("{%s:02d}" % part for part in orders) + mark + "{y:04d}"  # noqa: UP031 - braces in braces
    month, day = (one, other) if orders == "md" else (other, one)
    if not _exists(month, day):
        return None
    unclear = match.re is _YEAR_LAST and mark == "/" and month != day and _exists(day, month)
    return DateText(int(match["y"]), 0 if unclear else month, 0 if unclear else day, form, match["rest"])


def shift_days(year: int, month: int, day: int, days: int) -> tuple[int, int, int] | None:
    """Return the date so many days later (negative: earlier) in the Gregorian calendar.

    None for a day that does not exist in that year, and beyond the years 1 to 9999.
    """
    if not 1 <= day <= _length(year, month):
        return None
    number = _number(year, month, day) + days
    # A year has 365 days at least and 366 at most, so the guess is at most a few years off.
    year = max(1, number // 366)
    while _number(year + 1, 1, 1) <= number:
        year += 1
    if number < 1 or year > 9999:
        return None
    left = number - _number(year, 1, 1) + 1
    month = 1
    while left > _length(year, month):
        left -= _length(year, month)
        month += 1
    return year, month, left


_FORM_ANY_TIME = r"(?P<rest>(?:[T ][0-9:.,]*(?:Z|[+-][0-9:]+)?)?)"
_BLANK_DATES = (
    (re.compile(r"[0-9]{4}(?P<s>[-/.]?)[0-9]{2}(?P=s)[0-9]{2}" + _FORM_ANY_TIME), "0001{0}01{0}01"),
    (re.compile(r"[0-9]{1,2}(?P<s>[-/.])[0-9]{1,2}(?P=s)[0-9]{4}" + _FORM_ANY_TIME), "01{0}01{0}0001"),
)


def blank_date(text: str) -> str | None:
    """Return the first of January of the year 1, midnight, in the format of a date; None for a text that is none."""
    if not text.isascii():
        return None
    for pattern, form in _BLANK_DATES:
        if match := pattern.fullmatch(text):
            return form.format(match["s"]) + re.sub("[0-9]", "0", match["rest"])
    return None


def _exists(month: int, day: int) -> bool:
    """True if the day exists in some year, 29 February included."""
    return 1 <= month <= 12 and 1 <= day <= (29 if month == 2 else _DAYS[month - 1])


def _length(year: int, month: int) -> int:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if month == 2 and leap else _DAYS[month - 1]


def _number(year: int, month: int, day: int) -> int:
    """The day's number, 1 being the first of January of the year 1."""
    before = year - 1
    return (
        before * 365
        + before // 4
        - before // 100
        + before // 400
        + sum(_length(year, earlier) for earlier in range(1, month))
        + day
    )
