"""How many different people a window holds: exact for few, close for many, and kept over a restart."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gharial.watch.distinct import EXACT, SLOTS, RollingDistinct

events = st.lists(st.tuples(st.integers(0, 5_000), st.integers(0, 40)), max_size=60).map(
    lambda found: sorted(found, key=lambda event: event[0])
)


def people(*numbers: int) -> list[str]:
    return [f"digest-{number}" for number in numbers]


@given(events)
def test_few_are_counted_exactly(found: Sequence[tuple[int, int]]):
    """Up to EXACT people the count is that of a set over the window, whatever the order of times and people."""
    counter = RollingDistinct(1_000)
    for at, (at_s, number) in enumerate(found):
        want = {person for when, person in found[: at + 1] if when > at_s - 1_000}
        assert counter.add(people(number), at_s) == len(want)
        assert counter.is_exact


def test_many_are_counted_closely():
    """20,000 people are counted within three standard errors, and a person who comes again adds nothing."""
    counter = RollingDistinct(3_600)
    for number in range(20_000):
        counter.add(people(number), number / 10)
    first = counter.count(2_000)
    assert not counter.is_exact
    assert abs(first - 20_000) < 3 * 0.016 * 20_000
    counter.add(people(*range(20_000)), 2_000)
    assert counter.count(2_000) == first


def test_a_window_forgets():
    """After a window and a slot nobody of before counts, and counting is exact again."""
    counter = RollingDistinct(600)
    counter.add(people(*range(EXACT + 1)), 0)
    assert counter.count(599) > EXACT * 0.9
    assert counter.count(600 + 600 / SLOTS + 600 / SLOTS) == 0
    assert counter.add(people(1), 2_000) == 1
    assert counter.is_exact


@pytest.mark.parametrize("count", [0, 3, EXACT, EXACT + 1, 5_000])
def test_what_was_kept_counts_on(count):
    """A counter that went through JSON counts as the one that stayed in memory."""
    counter = RollingDistinct(3_600)
    counter.add(people(*range(count)), 100.0)
    loaded = RollingDistinct.load(3_600, json.loads(json.dumps(counter.dump())))
    assert loaded.count(100.0) == counter.count(100.0)
    more = people(*range(count, count + 10))
    assert loaded.add(more, 200.0) == counter.add(more, 200.0)


@pytest.mark.parametrize(
    "state", [{}, {"latest_s": 1}, {"latest_s": 1, "exact": None, "slots": {"1": "AAAA"}}, {"latest_s": 1, "exact": 7}]
)
def test_another_state_is_refused(state):
    """What this module did not write is an error, and never a count."""
    with pytest.raises(ValueError, match="rolling count"):
        RollingDistinct.load(60, state)


def test_a_clock_set_back_makes_nobody_young():
    """A time before the last one counts as the last one."""
    counter = RollingDistinct(100)
    counter.add(people(1), 1_000)
    counter.add(people(2), 500)
    assert counter.count(1_050) == 2
    assert counter.count(1_101) == 0
