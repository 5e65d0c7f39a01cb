"""How many examples a property test tries: few at every run, many where somebody (CI) asks for them."""

from __future__ import annotations

import os

import pytest

THOROUGH = os.environ.get("GHARIAL_EFFORT") == "thorough"
_FEWEST = 5
_QUICK_SHARE = 20


def examples(thorough: int) -> int:
    """Return how many examples to try now, of a test that tries `thorough` where GHARIAL_EFFORT=thorough."""
    return thorough if THOROUGH else min(thorough, max(_FEWEST, thorough // _QUICK_SHARE))


thorough_only = pytest.mark.skipif(not THOROUGH, reason="takes long: runs where GHARIAL_EFFORT=thorough, as in CI")
"""Marks a test, or a case of one, that takes seconds by its nature."""
