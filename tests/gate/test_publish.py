"""What is kept of plans and transforms is bounded, in number and in weight."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gharial.gate.publish import _Kept


def test_what_is_kept_is_made_once():
    """A second look-up finds what the first one made."""
    kept: _Kept[list[int]] = _Kept(2, 100, len)
    first = kept.get("a", lambda: [1])
    assert kept.get("a", lambda: [2]) is first


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 50)), max_size=60))
def test_what_is_kept_stays_within_its_bounds(asked):
    """However things come, there are never more, nor heavier ones together, than the bounds; but one is always kept."""
    kept: _Kept[str] = _Kept(4, 60, len)
    for key, weight in asked:
        kept.get(key, lambda weight=weight: "x" * weight or "y")
        held = list(kept._found.values())
        assert len(held) <= 4
        assert sum(map(len, held)) <= 60 or len(held) == 1
        assert sum(map(len, held)) == kept._weight
