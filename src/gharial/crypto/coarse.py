"""Coarser forms of a value: total functions on text; None means that the technique does not fit."""

from __future__ import annotations

import re
from decimal import ROUND_HALF_EVEN, Context, Decimal, InvalidOperation

from gharial.crypto.dates import find_date

MIN_HIDDEN = 2
"""How many letters or digits a postcode must lose at least."""
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_LARGEST = Decimal(10) ** 15
_EXACT = Context(prec=60)
_POSTCODE = re.compile(r"[A-Za-z0-9](?:[ -]?[A-Za-z0-9]){2,9}")


def year(text: str, *, as_date: bool = False) -> str | None:
    """Return the four digits of a date's year; with `as_date` the first of January of that year, in its own form.

    None if the text is no date (`dates.find_date`). White space around it is ignored. No time zone is applied.
    """
    found = find_date(text.strip())
    if found is None:
        return None
    return found.write_midnight(found.year, 1, 1) if as_date else f"{found.year:04d}"


def month(text: str, *, as_date: bool = False) -> str | None:
    """Return year and month of a date, `1990-12`; with `as_date` the first day of that month, in its own form.

    None if the text is no date, or one whose day and month can't be told apart (`03/04/1990`).
    """
    found = find_date(text.strip())
    if found is None or not found.month:
        return None
    return found.write_midnight(found.year, found.month, 1) if as_date else f"{found.year:04d}-{found.month:02d}"


def band_of_years(text: str, width: int, *, as_date: bool = False) -> str | None:
    """Return the band of `width` years in which a date lies, `1990-1999`; with `as_date` its first day."""
    found = find_date(text.strip()) if width >= 1 else None
    if found is None:
        return None
    low = found.year - found.year % width
    # There is no year 0.
    return found.write_midnight(max(low, 1), 1, 1) if as_date else f"{low:04d}-{low + width - 1:04d}"


def band(text: str, width: int, *, as_number: bool = False) -> str | None:
    """Return the band of `width` in which a number lies, or None if it is none.

    `30-39` for 34 and for 39.5 (a band reaches up to, and not including, the next one's beginning), `-10 to -1` for -5;
    with `as_number` the band's beginning, `30`. Numbers are those of JSON, smaller than 10^15; `007` is none. A width
    below 2 gives None, since it would show the number itself.
    """
    number = find_number(text.strip()) if width >= 2 else None
    if number is None:
        return None
    # Floor, and not the truncation of Decimal's own `//`: else the band around zero would be twice as wide.
    low = int(number.__floor__()) // width * width
    return str(low) if as_number else _span(low, low + width - 1)


def bucket(text: str, bounds: tuple[int, ...], *, as_number: bool = False) -> str | None:
    """Return the bucket in which a number lies: `<18`, `18-64` or `65+` for the bounds 18 and 65.

    With `as_number` the bucket's beginning; the first bucket has none, hence None. None for what is no number.
    """
    number = find_number(text.strip())
    if number is None or not bounds:
        return None
    at = sum(number >= bound for bound in bounds)
    if as_number:
        return str(bounds[at - 1]) if at else None
    if at == 0:
        return f"<{bounds[0]}"
    return f"{bounds[-1]}+" if at == len(bounds) else _span(bounds[at - 1], bounds[at] - 1)


def round_to(text: str, to: Decimal) -> str | None:
    """Return the nearest multiple of `to`, as JSON writes numbers; halves go to the even one.

    None for what is no number, and for a number that is a multiple already where `to` is 1 or less: in a field of whole
    numbers, or of prices, rounding so finely would show each as it is.
    """
    number = find_number(text.strip())
    if number is None or to <= 0:
        return None
    count = _EXACT.divide(number, to)
    nearest = count.to_integral_value(ROUND_HALF_EVEN)
    if to <= 1 and count == nearest:
        return None
    rounded = _EXACT.multiply(nearest, to)
    # Minus zero and an exponent would tell more than the number.
    return format(rounded, "f") if rounded else "0"


def postcode(text: str, chars: int) -> str | None:
    """Return the first `chars` letters and digits of a postcode, or None if it is none or too little would go.

    A postcode has 3 to 10 letters and digits, one digit at least, with single blanks or dashes between them.
    """
    text = text.strip()
    if not text.isascii() or not _POSTCODE.fullmatch(text) or not any(map(str.isdigit, text)):
        return None
    letters = [character for character in text if character.isalnum()]
    return "".join(letters[:chars]) if chars >= 1 and len(letters) - chars >= MIN_HIDDEN else None


def find_number(text: str) -> Decimal | None:
    """Return the number that a text is, as JSON writes it and smaller than 10^15, or None."""
    if not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # Before any arithmetic: 1e999 has a thousand digits once it is a whole number.
    return number if abs(number) < _LARGEST else None


def _span(low: int, high: int) -> str:
    return f"{low}{' to ' if low < 0 else '-'}{high}"
