"""Time as the audit writes it."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import example, given
from hypothesis import strategies as st

from gharial.wiring.world import iso_time


@given(st.floats(0, 4e9))
@example(1_700_000_000.9999996)
@example(1_700_000_000.9995)
def test_times_are_written_as_the_standard_library_writes_them(seconds: float):
    """To the millisecond, in UTC, with a Z; whatever the fraction is."""
    expected = datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
    assert iso_time(seconds) == expected
