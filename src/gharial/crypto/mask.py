"""Masks and coarser forms of a value: total functions on text; None means that the technique does not fit."""

from __future__ import annotations

import re
import unicodedata
from decimal import Decimal, InvalidOperation

HIDDEN = "***"
"""Stands for everything hidden, whatever its length, so that the length does not leak."""

MIN_HIDDEN = 2
KEEP_DOMAIN = "domain"

# A host name of at least two labels, the last not a number: an address literal or prose behind '@' is no domain.
_DOMAIN = re.compile(r"(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?![0-9]+\Z)[^\W_](?:[^\W_]|-){0,62}")
_ISO_DATE = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ](?:[01][0-9]|2[0-4]):[0-5][0-9](?::(?:[0-5][0-9]|60)(?:[.,][0-9]{1,9})?)?"
    r"(?: ?(?:[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?))?)?"
)
_YEAR_FIRST = re.compile(r"([0-9]{4})([./-])([0-9]{1,2})\2([0-9]{1,2})")
_YEAR_LAST = re.compile(r"([0-9]{1,2})([./-])([0-9]{1,2})\2([0-9]{4})")
_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})(?:\.[0-9]{1,30})?(?:[eE][+-]?[0-9]{1,3})?")
_LARGEST = Decimal(10) ** 15
_ZWJ = "\u200d"
_ASCII_SILENT = bytes(code for code in range(128) if not chr(code).isalnum())


def mask(text: str, first: int = 0, last: int = 0, keep: str = "") -> str:
    """Return the text with everything hidden but its `first` and `last` characters and, if kept, its domain.

    A character is a base character with its combining marks. Whatever is hidden is `***`. Everything is hidden where
    fewer than two letters or digits, or fewer than are shown, would stay hidden. `keep='domain'` shows `@` and what
    follows where exactly one `@` has something before it and a host name behind it; `first` and `last` then count in
    what stands before. Any other `keep` hides everything.
    """
    if keep:
        local, at, domain = text.partition("@")
        # A domain that is no host name is hidden too: it may be anything.
        if keep != KEEP_DOMAIN or not local or len(domain) > 253 or not _DOMAIN.fullmatch(domain):
            return HIDDEN
        return _mask_ends(local, first, last) + at + domain
    return _mask_ends(text, first, last)


def year(text: str) -> str | None:
    """Return the four digits of a date's year, or None if the text is not a date.

    Dates are `1990-12-31`, also with time and offset (ISO 8601; the year as written, no time zone is applied), and day,
    month and year in either order with `.`, `/` or `-`, the year having four digits (`31.12.1990`, `12/31/1990`,
    `1990/12/31`). White space around it is ignored. A year alone is a number, not a date.
    """
    text = text.strip()
    if found := _ISO_DATE.fullmatch(text):
        digits, month, day = found.groups()
        return digits if digits != "0000" and _is_day(int(month), int(day)) else None
    if found := _YEAR_FIRST.fullmatch(text):
        digits, _, one, other = found.groups()
    elif found := _YEAR_LAST.fullmatch(text):
        one, _, other, digits = found.groups()
    else:
        return None
    plausible = _is_day(int(one), int(other)) or _is_day(int(other), int(one))
    return digits if digits != "0000" and plausible else None


def band(text: str, width: int, unit: str = "") -> str | None:
    """Return the band of `width` that the value falls into, or None if it is not such a value.

    Unit `y`: the years of a date's band, `1990-1999`. Unit ``: a number's band, `30-39` for 34 and for 39.5 (a band
    reaches up to, and not including, the next one's beginning), `-10 to -1` for -5. Numbers are those of JSON, smaller
    than 10^15; `007` is none. A width below 2 gives None for numbers, since it would show the number itself.
    """
    if unit == "y":
        digits = year(text) if width >= 1 else None
        if digits is None:
            return None
        low = int(digits) - int(digits) % width
        return f"{low:04d}-{low + width - 1:04d}"
    if unit or width < 2:
        return None
    number = _find_number(text.strip())
    if number is None:
        return None
    # Floor, and not the truncation of Decimal's own `//`: else the band around zero would be twice as wide.
    low = int(number.__floor__()) // width * width
    return f"{low}{' to ' if low < 0 else '-'}{low + width - 1}"


def _find_number(text: str) -> Decimal | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        return None
    # Before any arithmetic: 1e999 has a thousand digits once it is a whole number.
    return number if abs(number) < _LARGEST else None


def _is_day(month: int, day: int) -> bool:
    return 1 <= month <= 12 and 1 <= day <= _DAYS[month - 1]


def _mask_ends(text: str, first: int, last: int) -> str:
    if first <= 0 and last <= 0:
        return HIDDEN
    if text.isascii():
        first, end = max(first, 0), len(text) - max(last, 0)
        data = text.encode("ascii")
        hidden = len(data[first:end].translate(None, _ASCII_SILENT)) if first < end else 0
        if hidden < MIN_HIDDEN or 2 * hidden < len(data.translate(None, _ASCII_SILENT)):
            return HIDDEN
        return text[:first] + HIDDEN + text[end:]
    characters = _characters(text)
    first, end = max(first, 0), len(characters) - max(last, 0)
    hidden = _count_telling(characters[first:end]) if first < end else 0
    if hidden < MIN_HIDDEN or 2 * hidden < _count_telling(characters):
        return HIDDEN
    return "".join(characters[:first]) + HIDDEN + "".join(characters[end:])


def _count_telling(characters: str | list[str]) -> int:
    """Count letters and digits: hiding the dashes of a number and showing its digits would hide nothing."""
    return sum(character[0].isalnum() for character in characters)


def _characters(text: str) -> str | list[str]:
    """Split into what a reader sees as characters: a base with its marks, joined and flag emoji (after UAX #29).

    Cutting between them would show a mark on the wrong base, or show half a character. A lone surrogate, which can't
    be written, makes one character of everything, so that all of it is hidden.
    """
    if text.replace(" ", "").isalnum():
        return text
    out: list[str] = []
    flag_open = False
    for character in text:
        category = unicodedata.category(character)
        if category == "Cs":
            return [text]
        flag = "\U0001f1e6" <= character <= "\U0001f1ff"
        joins = category[0] == "M" or category == "Cf" or "\U0001f3fb" <= character <= "\U0001f3ff"
        # A letter or digit always stands alone: joined into one they would count, and be shown, as one.
        glued = out and out[-1][-1] == _ZWJ and not character.isalnum()
        if out and (joins or glued or (flag and flag_open)):
            out[-1] += character
            flag_open = False
        else:
            out.append(character)
            flag_open = flag
    return out


_TIME = r"(?P<rest>(?:[T ][0-9:.,]*(?:Z|[+-][0-9:]+)?)?)"
_BLANK_DATES = (
    (re.compile(r"[0-9]{4}(?P<s>[-/.]?)[0-9]{2}(?P=s)[0-9]{2}" + _TIME), "0001{0}01{0}01"),
    (re.compile(r"[0-9]{1,2}(?P<s>[-/.])[0-9]{1,2}(?P=s)[0-9]{4}" + _TIME), "01{0}01{0}0001"),
)


def blank_date(text: str) -> str | None:
    """Return the first of January of the year 1, midnight, in the format of a date; None for a text that is none."""
    if not text.isascii():
        return None
    for pattern, form in _BLANK_DATES:
        if match := pattern.fullmatch(text):
            return form.format(match["s"]) + re.sub("[0-9]", "0", match["rest"])
    return None
