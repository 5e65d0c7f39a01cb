"""Too many people: above a floor from the first day on, above what is usual once that is known."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from gharial.watch.baseline import KEPT, NEEDED, Baseline
from gharial.watch.harvest import Harvest, HarvestRule
from gharial.watch.sight import Sight

HOUR = 3_600
RULE = HarvestRule("harvest", "client", (HOUR,), 6.0, 0, 200)


def a_sight(at_s: float, *numbers: int, client: str = "acme", user: str = "") -> Sight:
    return Sight(at_s, "default", client, user, people=tuple(f"digest-{number}" for number in numbers))


def teach(harvest: Harvest, per_hour: int, hours: int, start: int = 0) -> None:
    """Hours in which so many people each are seen, other ones every time."""
    for hour in range(start, start + hours):
        for number in range(per_hour):
            harvest.look(a_sight(hour * HOUR + number * HOUR / per_hour, hour * 10_000 + number))


def test_without_a_baseline_the_floor_alone_decides():
    """Nothing waits for learning: the person after the floor is too many, from the first call on."""
    harvest = Harvest(RULE)
    found = [bool(harvest.look(a_sight(number / 10, number))) for number in range(300)]
    assert found.index(True) in range(190, 212)
    assert all(found[212:])


def test_a_harvest_of_ten_a_second_is_seen_within_the_floor():
    """10.4 people a second, as in the case to catch: seen within 25 seconds."""
    harvest = Harvest(RULE)
    seen = next(n for n in range(1_000) if harvest.look(a_sight(n / 10.4, n)))
    assert seen / 10.4 < 25


def test_whoever_sees_many_every_hour_is_left_alone():
    """A partner with 1,000 people an hour is no harvest while that is usual, and is one at more than six times that."""
    harvest = Harvest(RULE)
    teach(harvest, 150, NEEDED + 1)
    assert not any(harvest.look(a_sight((NEEDED + 2) * HOUR + n, 500_000 + n)) for n in range(195))
    harvest = Harvest(HarvestRule("harvest", "client", (HOUR,), 6.0, 0, 100))
    teach(harvest, 90, NEEDED + 1)
    start = (NEEDED + 3) * HOUR
    verdicts = [harvest.look(a_sight(start + n, 600_000 + n)) for n in range(800)]
    first = next(n for n, found in enumerate(verdicts) if found)
    assert 90 * 4 < first < 90 * 6 * 1.1
    assert verdicts[first][0].limit >= 100


def test_a_number_is_a_limit_without_learning():
    """`above: 50` is 50, whatever is usual."""
    harvest = Harvest(HarvestRule("harvest", "user", (HOUR,), 0.0, 50, 0))
    found = [bool(harvest.look(a_sight(number, number))) for number in range(60)]
    assert found.index(True) == 50


def test_each_is_counted_apart():
    """Two clients under the floor each are no harvest; two users of one client are, where clients are counted."""
    harvest = Harvest(HarvestRule("harvest", "client", (HOUR,), 0.0, 50, 0))
    assert not any(harvest.look(a_sight(n, n, client=f"client-{n % 2}")) for n in range(100))
    assert any(harvest.look(a_sight(n, 1_000 + n, client="one", user=f"u{n % 5}")) for n in range(60))


def test_severity_rises():
    """Three times the limit is critical."""
    harvest = Harvest(HarvestRule("harvest", "client", (HOUR,), 0.0, 10, 0))
    severities = [v[0].severity for n in range(40) if (v := harvest.look(a_sight(n, n)))]
    assert severities[0] == "high"
    assert severities[-1] == "critical"


def test_what_was_kept_counts_on():
    """After a restart the count goes on where it was."""
    harvest = Harvest(RULE)
    for number in range(150):
        harvest.look(a_sight(number, number))
    (key,) = harvest.changed
    fresh = Harvest(RULE)
    fresh.load(key, json.loads(json.dumps(harvest.dump(key))))
    found = [bool(fresh.look(a_sight(150 + n, 150 + n))) for n in range(100)]
    assert found.index(True) in range(40, 62)


def test_windows_of_an_incident_teach_nothing():
    """A harvest that goes on for days never becomes usual."""
    harvest = Harvest(RULE)
    for hour in range(3 * NEEDED):
        for number in range(300):
            harvest.look(a_sight(hour * HOUR + number * 10, hour * 1_000 + number))
    counter = harvest._counters["client\x1fdefault\x1facme", HOUR]
    assert counter.baseline.usual is None


@given(st.lists(st.integers(1, 500), min_size=NEEDED + 1, max_size=KEPT))
def test_growth_is_learned_slowly(counts):
    """Whatever comes, the largest count that is learned grows by less than a hundredth and one in an hour."""
    baseline = Baseline(HOUR)
    for hour, count in enumerate(counts):
        baseline.learn(count, hour * HOUR, frozen=False)
    baseline.learn(1, (len(counts) + 1) * HOUR, frozen=False)
    past = list(baseline._past)
    for at in range(NEEDED, len(past)):
        assert past[at] <= max(past[:at]) * 1.01 + 2
