"""Ids asked for in order: successive values of one parameter that rise or fall by small steps of one size."""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from gharial.watch.sight import Sight, Verdict

SWEEP = "sweep"
MAX_FOLLOWED = 20_000
_LARGEST_STEP = 1_000
_NUMBER = re.compile(r"(.*?)([0-9]{1,18})\D{0,8}", re.DOTALL)
_IN_ORDER = 0.8
"""The share of steps of one sign, out of those within the window, from which ids are in order."""


@dataclass(frozen=True, slots=True)
class SweepRule:
    """At least `ids` ids in order within `within_s` seconds are too many."""

    name: str
    ids: int
    within_s: int


@dataclass(slots=True)
class _Walk:
    """The last id of one parameter, by what stands before its number, and the steps that led to it: (when, sign)."""

    head: str = ""
    last: int = 0
    steps: deque[tuple[float, int]] = field(default_factory=deque)


class Sweep:
    """State of one rule: a walk per principal and parameter. Nothing of it is ever written down."""

    def __init__(self, rule: SweepRule) -> None:
        self.rule = rule
        self._walks: OrderedDict[tuple[str, str, str], _Walk] = OrderedDict()

    def look(self, sight: Sight) -> Sequence[Verdict]:
        """Follow the ids of an exchange; a verdict where they go in order for too long."""
        found = []
        for parameter, text in sight.asked:
            count = self._follow((sight.principal, sight.route, parameter), text, sight.at_s)
            if count >= self.rule.ids:
                found.append(
                    Verdict(
                        detector=SWEEP,
                        watch=self.rule.name,
                        key="\x1f".join((self.rule.name, sight.principal, sight.route, parameter)),
                        severity="high",
                        count=count,
                        limit=self.rule.ids,
                        window_s=self.rule.within_s,
                        what=f"{count} ids asked for in order, by {parameter}",
                        people=sight.people,
                    )
                )
        return found

    def _follow(self, key: tuple[str, str, str], text: str, at_s: float) -> int:
        """Return how many ids lie in order within the window, this one included; 0 if they are in none."""
        match = _NUMBER.fullmatch(text)
        if match is None:
            return 0
        walk = self._walks.get(key)
        head, number = match[1], int(match[2])
        if walk is None or walk.head != head:
            walk = self._walks[key] = _Walk(head, number)
            while len(self._walks) > MAX_FOLLOWED:
                self._walks.popitem(last=False)
            return 1
        self._walks.move_to_end(key)
        step, walk.last = number - walk.last, number
        while walk.steps and walk.steps[0][0] <= at_s - self.rule.within_s:
            walk.steps.popleft()
        if step == 0:
            # Asking again is what people do; it neither makes an order nor breaks one.
            return 0
        walk.steps.append((at_s, (step > 0) - (step < 0) if abs(step) <= _LARGEST_STEP else 0))
        # Bounded whatever the rate: as many steps as it takes to judge.
        while len(walk.steps) > 4 * self.rule.ids:
            walk.steps.popleft()
        up, down = (sum(sign == wanted for _, sign in walk.steps) for wanted in (1, -1))
        in_order = max(up, down)
        return in_order + 1 if in_order >= _IN_ORDER * len(walk.steps) else 0
