"""Names that may be data: a member's name is somebody's address as easily as it is `email`."""

from __future__ import annotations

import re

_ORDINARY_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_.$:-]{0,63}")
MAX_DIGITS = 4
"""Digits of a name that still reads like a name: `iso3166`, and no account number."""


def is_ordinary_name(name: str) -> bool:
    """Return whether this reads like the name of a field; `ann@ex.org`, `4711` and `DE0212030000` do not."""
    return _ORDINARY_NAME.fullmatch(name) is not None and sum(map(str.isdigit, name)) <= MAX_DIGITS
