"""Made-up traffic with labels: who calls when, for whom, and whether it is honest. Pure: the same at every run.

A scenario is a series of calls in the order of time. Numbers that have to look random come from a permutation, so that
no source of randomness is needed and no person comes twice where none should.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

HOUR, DAY = 3_600.0, 86_400.0
PACE_S = 1 / 10.4
"""37 million people in 41 days."""
_PRIME = 1_000_003


@dataclass(frozen=True, slots=True)
class SimulatedCall:
    """One call: when (seconds from the start), by whom, which id it names ("" for a list), and the people in it."""

    at_s: float
    client: str
    user: str
    asked: str
    people: tuple[int, ...]
    honest: bool


@dataclass(frozen=True, slots=True)
class Scenario:
    """A series of calls with a name; `what` says in a sentence what it is about."""

    name: str
    what: str
    days: float
    calls: Callable[[], Iterator[SimulatedCall]]


def scattered(number: int) -> int:
    """Return a number from 0 to 1,000,002 that looks like chance; no two numbers below that give the same."""
    return number * 618_034 % _PRIME


def clerks(count: int = 20, per_hour: int = 25, days: int = 10, first: int = 0) -> Iterator[SimulatedCall]:
    """Clerks at work from 8 to 16 o'clock; every third call is about somebody whom they have seen before."""
    parts = [_clerk(f"clerk-{n}", per_hour, days, first + n * 50_000) for n in range(count)]
    return heapq.merge(*parts, key=lambda call: call.at_s)


def _clerk(name: str, per_hour: int, days: int, first: int) -> Iterator[SimulatedCall]:
    seen = 0
    for day in range(days):
        for call in range(8 * per_hour):
            at_s = day * DAY + 8 * HOUR + call * HOUR / per_hour + scattered(first + call) % 60
            again = call % 3 == 2 and seen > 0
            number = scattered(first + (seen // 2 if again else seen))
            seen += not again
            yield SimulatedCall(at_s, "support-desk", name, str(10_000_000 + number), (number,), honest=True)


def batch(people: int = 5_000, days: int = 14) -> Iterator[SimulatedCall]:
    """A partner that reads the same customers every night at two, by pages of 100."""
    for day in range(days):
        for page in range(people // 100):
            at_s = day * DAY + 2 * HOUR + page * 20
            yield SimulatedCall(
                at_s, "billing-partner", "", "", tuple(range(page * 100, page * 100 + 100)), honest=True
            )


def spike(usual: int = 300, days: int = 10) -> Iterator[SimulatedCall]:
    """Marketing that sees so many people an hour, and four times as many in one hour of the last day."""
    number = 0
    for hour in range(days * 24):
        many = usual * 4 if hour == days * 24 - 6 else usual
        for call in range(many):
            number += 1
            at_s = hour * HOUR + call * HOUR / many
            yield SimulatedCall(at_s, "marketing", "", "", (scattered(number),), honest=True)


def harvest(
    every_s: float,
    days: float,
    *,
    ordered: bool = False,
    page: int = 1,
    identities: int = 1,
    client: str = "stolen-key",
    starts_s: float = 0.0,
) -> Iterator[SimulatedCall]:
    """A thief: a call every `every_s` seconds, `page` new people in each, by turns as one of `identities`."""
    number, calls = 0, int(days * DAY / every_s)
    for call in range(calls):
        people = tuple(number + n if ordered else scattered(900_000 + number + n) for n in range(page))
        number += page
        who = client if identities == 1 else f"{client}-{call % identities}"
        asked = str(10_000_000 + people[0]) if page == 1 else ""
        yield SimulatedCall(starts_s + call * every_s, who, "", asked, people, honest=False)


def growing(days: int = 40, first: int = 100, growth: float = 1.03) -> Iterator[SimulatedCall]:
    """An insider who sees 3 % more new people every day, hoping that nobody notices."""
    number = 0
    for day in range(days):
        today = int(first * growth**day)
        for call in range(today):
            number += 1
            at_s = day * DAY + 8 * HOUR + call * 8 * HOUR / today
            yield SimulatedCall(at_s, "insider", "", "", (scattered(300_000 + number),), honest=False)


def _mixed(*parts: Iterable[SimulatedCall]) -> Iterator[SimulatedCall]:
    return heapq.merge(*parts, key=lambda call: call.at_s)


SCENARIOS = (
    Scenario("clerks", "20 clerks, 25 calls an hour each, ten days", 10, clerks),
    Scenario("batch", "a partner that reads 5,000 customers every night", 14, batch),
    Scenario("spike", "marketing, 300 people an hour, once 1,200", 10, spike),
    Scenario("fast", "10.4 people a second, ids in order", 1 / 24, lambda: harvest(PACE_S, 1 / 24, ordered=True)),
    Scenario("shuffled", "the same, ids in no order", 1 / 24, lambda: harvest(PACE_S, 1 / 24)),
    Scenario("paged", "a thief, 100 people a page, a page every 9.6 s", 1 / 4, lambda: harvest(9.6, 1 / 4, page=100)),
    Scenario("slow", "a thief, one person every 20 s", 3, lambda: harvest(20, 3)),
    Scenario("spread-30", "10.4 people a second over 30 keys", 1 / 4, lambda: harvest(PACE_S, 1 / 4, identities=30)),
    Scenario("spread-1000", "the same over 1,000 keys", 1 / 4, lambda: harvest(PACE_S, 1 / 4, identities=1_000)),
    Scenario(
        "stolen-clerk",
        "a clerk's key in other hands after nine days, one person a second, beside 20 honest clerks",
        10,
        lambda: _mixed(clerks(), harvest(1.0, 0.1, client="support-desk", starts_s=9.4 * DAY)),
    ),
    Scenario("growing", "an insider who sees 3 % more people every day", 40, growing),
)  # fmt: skip
"""All scenarios, honest ones first."""
