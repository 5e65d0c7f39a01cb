"""Ids asked for in order: those that one caller asks for rise or fall by small steps, or lie side by side."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from gharial.watch.sight import Sight, Verdict

SWEEP = "sweep"
MAX_FOLLOWED = 20_000
_LARGEST_STEP = 1_000
_NUMBER = re.compile(r"(.*?)([0-9]{1,18})\D{0,8}", re.DOTALL)
_LONGEST_HEAD = 64
_IN_ORDER = 0.8
"""The share of steps of one sign, out of those within the window, from which ids are in order."""
_NEAR = 3
"""Up to so many times the usual distance is near: some ids of a row may be missing."""
_LIE_NEAR = 0.5
"""The share of ids with a near next one from which ids lie side by side."""


@dataclass(frozen=True, slots=True)
class SweepRule:
    """At least `ids` ids in order within `within_s` seconds are too many."""

    name: str
    ids: int
    within_s: int


class _Walk:
    """The ids of one parameter within the window, by what stands before their number: id -> when, oldest first."""

    __slots__ = ("added", "ids")

    def __init__(self) -> None:
        self.added = 0
        self.ids: dict[int, float] = {}

    def add(self, number: int, at_s: float) -> bool:
        """Take up an id; False if it is known already."""
        known = number in self.ids
        self.ids.setdefault(number, at_s)
        return not known

    def forget(self, until_s: float) -> None:
        """Drop what came until then."""
        while self.ids and next(iter(self.ids.values())) <= until_s:
            self.drop_oldest()

    def drop_oldest(self) -> None:
        """Drop one id."""
        del self.ids[next(iter(self.ids))]


class Sweep:
    """State of one rule: a walk per principal, parameter and head of ids. Nothing of it is ever written down."""

    def __init__(self, rule: SweepRule) -> None:
        self.rule = rule
        self._walks: OrderedDict[tuple[str, str, str, str], _Walk] = OrderedDict()

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
        """Return how many ids are in order within the window, this one included; 0 if they are in none."""
        # As `person_digest` takes ids; a `+` before a number is read as a blank, or as nothing, by many an API.
        match = _NUMBER.fullmatch(_bare(text))
        if match is None:
            return 0
        head, number = match[1][-_LONGEST_HEAD:], int(match[2])
        walk = self._walks.setdefault((*key, head), _Walk())
        self._walks.move_to_end((*key, head))
        while len(self._walks) > MAX_FOLLOWED:
            self._walks.popitem(last=False)
        walk.forget(at_s - self.rule.within_s)
        # Asking again is what people do; it neither makes an order nor breaks one.
        if not walk.add(number, at_s):
            return 0
        # Bounded whatever the rate: as many ids as it takes to judge.
        while len(walk.ids) > 4 * self.rule.ids:
            walk.drop_oldest()
        walk.added += 1
        # Now and then only: the work on all ids is spread over some of them.
        if len(walk.ids) < self.rule.ids or walk.added % (1 + self.rule.ids // 20):
            return 0
        return max(_count_steps(list(walk.ids)), _count_near(sorted(walk.ids)))


def _bare(text: str) -> str:
    return unicodedata.normalize("NFC", text).strip().removeprefix("+").strip()


def _count_steps(ids: Sequence[int]) -> int:
    """Return how many ids, in the order in which they came, lead one way by small steps; 0 for too few of all."""
    steps = [after - before for before, after in pairwise(ids)]
    up, down = (sum(0 < way * step <= _LARGEST_STEP for step in steps) for way in (1, -1))
    in_order = max(up, down)
    return in_order + 1 if in_order >= _IN_ORDER * len(steps) else 0


def _count_near(ids: Sequence[int]) -> int:
    """Return how many of these sorted ids have a next one at the usual distance; 0 if they are too few of all.

    In which order they came does not count, so turns, several walks at once and jumps between hide nothing. Of ids
    picked at random no distance is the usual one, unless they are a good part of all that there are.
    """
    gaps = Counter(after - before for before, after in pairwise(ids))
    usual = max(gaps, key=lambda gap: (gaps[gap], -gap), default=0)
    near = sum(gaps[usual * times] for times in range(1, _NEAR + 1))
    return near + 1 if near >= _LIE_NEAR * (len(ids) - 1) else 0
