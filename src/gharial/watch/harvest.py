"""Too many different people: more than a number, or than several times what is usual for whoever is counted."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gharial.watch.baseline import Baseline
from gharial.watch.distinct import RollingDistinct
from gharial.watch.sight import Sight, Verdict

HARVEST = "harvest"
Z_TOO_FAR = 6.0
Z_CRITICAL = 10.0
MAX_COUNTED = 20_000
"""Counters of one watch; the one that was quiet longest goes first."""


@dataclass(frozen=True, slots=True)
class HarvestRule:
    """Count `per` over windows; more than `people`, or `factor` times the usual (0: not asked), at least `floor`."""

    name: str
    per: str
    over_s: tuple[int, ...]
    factor: float
    people: int
    floor: int


@dataclass(slots=True)
class _Counter:
    distinct: RollingDistinct
    baseline: Baseline


class Harvest:
    """State of one rule: a counter and a baseline per window for each whom it counts."""

    def __init__(self, rule: HarvestRule) -> None:
        self.rule = rule
        self._counters: OrderedDict[tuple[str, int], _Counter] = OrderedDict()
        self.changed: set[tuple[str, int]] = set()

    def look(self, sight: Sight, *, learn_all: bool = False) -> Sequence[Verdict]:
        """Count the people of an exchange; a verdict for each window that holds too many.

        With `learn_all` windows that hold too many teach what is usual as well.
        """
        if not sight.people:
            return ()
        who = sight.who(self.rule.per)
        found = []
        for window_s in self.rule.over_s:
            counter = self._counter(who, window_s)
            count = counter.distinct.add(sight.people, sight.at_s)
            verdict = self._judge(who, window_s, count, counter.baseline, sight.people)
            counter.baseline.learn(count, sight.at_s, frozen=verdict is not None and not learn_all)
            if verdict is not None:
                found.append(verdict)
        return found

    def accept(self, incident_key: str) -> None:
        """Take what led to an incident for usual: somebody looked, and it was honest."""
        for (who, window_s), counter in self._counters.items():
            if incident_key.endswith("\x1f".join(("", self.rule.name, who, str(window_s)))):
                counter.baseline.accept(counter.distinct.count(0.0))
                self.changed.add((who, window_s))

    def dump(self, key: tuple[str, int]) -> dict[str, Any] | None:
        """Return the state of one counter as JSON has it, None if it is gone."""
        counter = self._counters.get(key)
        if counter is None:
            return None
        return {"distinct": counter.distinct.dump(), "baseline": counter.baseline.dump()}

    def load(self, key: tuple[str, int], state: dict[str, Any]) -> None:
        """Take up one counter. Raises ValueError for what `dump` did not give."""
        if not isinstance(state, dict) or not isinstance(state.get("distinct"), dict):
            raise ValueError("not a counter")
        self._counters[key] = _Counter(
            RollingDistinct.load(key[1], state["distinct"]), Baseline.load(key[1], dict(state.get("baseline") or {}))
        )

    def _counter(self, who: str, window_s: int) -> _Counter:
        key = (who, window_s)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _Counter(RollingDistinct(window_s), Baseline(window_s))
            if len(self._counters) > MAX_COUNTED:
                self._counters.popitem(last=False)
        self._counters.move_to_end(key)
        self.changed.add(key)
        return counter

    def _judge(
        self, who: str, window_s: int, count: int, baseline: Baseline, people: tuple[str, ...]
    ) -> Verdict | None:
        rule, usual, z = self.rule, baseline.usual, baseline.z(count)
        if count <= rule.floor or (rule.people and count <= rule.people):
            return None
        limit = rule.people or rule.floor
        if rule.factor and usual is not None:
            # Whichever comes first: so many times the usual, or so far from it.
            if count <= rule.factor * usual and z < Z_TOO_FAR:
                return None
            limit = max(rule.floor, round(rule.factor * usual))
        told = "" if usual is None else f"; usual are {round(usual)}"
        return Verdict(
            detector=HARVEST,
            watch=rule.name,
            key="\x1f".join((rule.name, who, str(window_s))),
            severity="critical" if z >= Z_CRITICAL or count > 3 * limit else "high",
            count=count,
            limit=limit,
            window_s=window_s,
            what=f"{count} different people{told}",
            people=people,
        )
