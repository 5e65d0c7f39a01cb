"""How many examples a property test tries: few at every run, more in CI, many where somebody asks for them."""

from __future__ import annotations

import os

import pytest

_SHARES = {"": 20, "ci": 3, "thorough": 1}
"""By what the number of a test's examples is divided, by the value of GHARIAL_EFFORT."""
_EFFORT = os.environ.get("GHARIAL_EFFORT", "")
_SHARE = _SHARES.get(_EFFORT, _SHARES[""])
_FEWEST = 5
THOROUGH = _EFFORT in ("ci", "thorough")


def examples(thorough: int) -> int:
    """Return how many examples to try now, of a test that tries `thorough` where GHARIAL_EFFORT=thorough."""
    return min(thorough, max(_FEWEST, thorough // _SHARE))


thorough_only = pytest.mark.skipif(not THOROUGH, reason="takes long: runs where GHARIAL_EFFORT is ci or thorough")
"""Marks a test, or a case of one, that takes seconds by its nature."""
