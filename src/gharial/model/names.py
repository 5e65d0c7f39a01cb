"""Names that may be data, and texts that name nobody: a member's name is somebody's address as easily as `email`."""

from __future__ import annotations

import re
import unicodedata

_ORDINARY_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$:-]{0,63}")
MAX_DIGITS = 4
"""Digits of a name that still reads like a name: `iso3166`, and no account number."""


def is_ordinary_name(name: str) -> bool:
    """Return whether this reads like the name of a field; `ann@ex.org`, `4711` and `DE0212030000` do not."""
    return _ORDINARY_NAME.fullmatch(name) is not None and sum(map(str.isdigit, name)) <= MAX_DIGITS


_UNSEEN = frozenset(["Zs", "Zl", "Zp", "Cc", "Cf"])
_UNSEEN_TOO = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u2800\u3164"
    "\ufe00-\ufe0f\uffa0\ufff0-\ufff8\U000e0000-\U000e0fff]"
)
"""Fillers, selectors and what Unicode calls default ignorable, outside those categories; and the empty Braille cell."""


def is_blank(text: str) -> bool:
    """Return whether nothing of a text can be seen: it is empty, or white space, controls, zero-width characters."""
    first = text[:1]
    if first.isascii() and first.isalnum():
        return False
    return all(unicodedata.category(char) in _UNSEEN or _UNSEEN_TOO.match(char) for char in text)
