"""Masks: what a text shows of itself. Total functions; None means that the technique does not fit."""

from __future__ import annotations

import re
import unicodedata

HIDDEN = "***"
"""Stands for everything hidden, whatever its length, so that the length does not leak."""

MIN_HIDDEN = 2
KEEP_DOMAIN = "domain"

# A host name of at least two labels, the last not a number: an address literal or prose behind '@' is no domain.
_DOMAIN = re.compile(r"(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?![0-9]+\Z)[^\W_](?:[^\W_]|-){0,62}")
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


def truncate(text: str, chars: int) -> str | None:
    """Return the first `chars` characters; None where a mask that shows so many would hide everything."""
    masked = _mask_ends(text, chars, 0)
    return None if masked == HIDDEN else masked.removesuffix(HIDDEN)


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
