"""Requests that would filter or sort by fields which their caller may not see, and so read them by asking.

`?email=ann@ex.org` tells by the answer's length who Ann is, `?sort=-birth` who is oldest, whatever the body hides.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from gharial.gate.carriers import readings
from gharial.model.errors import RequestProbes

MAX_PARAMETERS = 1_000
_WORDS = re.compile(r"[^\W_]+(?:_[^\W_]+)*")
_CHOOSING = re.compile(r"sort|order|filter|where|query|search|group|distinct|^\$?q$")
"""Parameters whose value may name fields, by their own name."""


def refuse_probing(probes: Collection[str], query: str) -> None:
    """Raise RequestProbes if the query names one of these folded field names to filter or sort by.

    A parameter probes if its name holds such a name as a word (`email`, `email[gte]`, `filter.email`, `email__lt`), or
    if it is one that chooses (`sort`, `order_by`, `$filter`, `where`, `q` …) and its value does. Doubled parameters are
    all looked at, and so are names that only some servers would read so: encoded twice, in raw bytes, in wide letters.
    A query of more than MAX_PARAMETERS parameters can't be judged, and is refused.
    """
    if not probes or not query:
        return
    parts = re.split("[&;]", query)
    if len(parts) > MAX_PARAMETERS:
        raise RequestProbes("the query has too many parameters to be judged")
    for part in parts:
        name, _, value = part.partition("=")
        names = readings(name)
        if any(_names_one(text, probes) for text in names) or (
            any(map(_CHOOSING.search, names)) and any(_names_one(text, probes) for text in readings(value))
        ):
            raise RequestProbes


def _names_one(text: str, probes: Collection[str]) -> bool:
    """True if a word of the text is one of the names; a word of several parts counts with and without its suffixes."""
    if text in probes:
        return True
    for word in _WORDS.findall(text):
        parts = re.split("__+", word)
        for piece in (word, *parts):
            if piece in probes:
                return True
            # `email_contains`, `email_gte`: frameworks append the operator.
            while "_" in piece:
                piece = piece.rpartition("_")[0]  # noqa: PLW2901
                if piece in probes:
                    return True
    return False
