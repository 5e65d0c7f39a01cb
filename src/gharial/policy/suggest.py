"""Suggestions for misspelt names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

from gharial.model.yaml_text import quote

_MAX_CANDIDATES = 500


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `name` in quotes, and if one of `known` is close, "; did you mean 'x'?" behind it."""
    if len(name) > 60:
        return quote(name)
    # Closeness costs time in the length of the list; a file with thousands of names gets mistakes without suggestions.
    candidates = sorted(set(known))
    if len(candidates) > _MAX_CANDIDATES:
        return quote(name)
    close = difflib.get_close_matches(name, candidates, n=1, cutoff=0.6)
    return f"{quote(name)}; did you mean {quote(close[0])}?" if close else quote(name)
