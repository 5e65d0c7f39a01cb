"""What a replay counts: places by route, kind of caller and tag, kinds of changes, refusals, and what was left out."""

from __future__ import annotations

import enum
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gharial.model.plan import Mode

MAX_ROWS = 20_000
"""Rows, and changes, that are told apart; beyond it they are counted under OTHERS."""
OTHERS = "(others)"


class Way(enum.StrEnum):
    """Which way a place goes. `OTHER`: it changes, and which is stricter can't be told; `UNKNOWN`: it may change."""

    SAME = "same"
    MORE_OPEN = "more_open"
    STRICTER = "stricter"
    OTHER = "other"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """Counts of places for one route, kind of caller and tag (empty: no tag names them, now or before).

    `newly_unlisted` are those, among all, that a tag named and none would. `maybe_more_open` are among `unknown`.
    """

    route: str
    caller: str
    tag: str
    same: int = 0
    more_open: int = 0
    stricter: int = 0
    other: int = 0
    unknown: int = 0
    newly_unlisted: int = 0
    maybe_more_open: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """One kind of change, and how often it was met. Indexes in `place` are generalised to `[*]`."""

    way: Way
    route: str
    caller: str
    tag: str
    place: str
    before: str
    after: str
    rule_before: str
    rule_after: str
    count: int


@dataclass(frozen=True, slots=True)
class Refusals:
    """Exchanges that were answered and would be refused."""

    route: str
    caller: str
    code: str
    count: int


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay found. `left_out` says what was not compared."""

    policy: str
    version: int
    exchanges: int
    places: int
    rows: tuple[Row, ...]
    changes: tuple[Change, ...]
    newly_refused: tuple[Refusals, ...]
    modes: Mapping[str, int] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)

    def total(self, name: str) -> int:
        """Return the sum of one column of the rows."""
        return sum(getattr(row, name) for row in self.rows)

    @property
    def may_be_more_open(self) -> bool:
        """True unless it is certain that nothing is shown more openly than it was."""
        opens = any(mode.endswith(f"-> {Mode.SHADOW}") for mode in self.modes)
        return opens or bool(self.total("more_open") or self.total("maybe_more_open") or self.total("other"))


class Texts(NamedTuple):
    """How something is shown before and after, and by which rules."""

    before: str
    after: str
    rule_before: str = ""
    rule_after: str = ""


class Tally:
    """Counts; `found` says what came of it."""

    def __init__(self) -> None:
        self.exchanges = 0
        self.places = 0
        self.refused: Counter[tuple[str, str, str]] = Counter()
        self.modes: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self._rows: dict[tuple[str, str, str], Counter[str]] = {}
        self._changes: Counter[tuple[Way, str, str, str, str, Texts]] = Counter()

    def row(self, route: str, caller: str, tag: str) -> Counter[str]:
        """Return the counts of one row, by the names of its columns."""
        key = (route, caller, tag)
        if key not in self._rows and len(self._rows) >= MAX_ROWS:
            key = (route, OTHERS, tag)
        return self._rows.setdefault(key, Counter())

    def change(self, way: Way, route: str, caller: str, tag: str, place: str, texts: Texts, count: int = 1) -> None:
        """Count a change, in its row as well."""
        self.row(route, caller, tag)[way] += count
        key = (way, route, caller, tag, place, texts)
        if key not in self._changes and len(self._changes) >= MAX_ROWS:
            key = (way, route, OTHERS, tag, OTHERS, texts)
        self._changes[key] += count

    def found(self, policy: str, version: int) -> Replay:
        """Return what was counted; the most important first."""
        rows = [
            Row(
                *key,
                same=counts[Way.SAME],
                more_open=counts[Way.MORE_OPEN],
                stricter=counts[Way.STRICTER],
                other=counts[Way.OTHER],
                unknown=counts[Way.UNKNOWN],
                newly_unlisted=counts["newly_unlisted"],
                maybe_more_open=counts["maybe_more_open"],
            )
            for key, counts in sorted(self._rows.items())
        ]
        order = [Way.MORE_OPEN, Way.OTHER, Way.UNKNOWN, Way.STRICTER]
        changes = [Change(*key[:5], *key[5], count=count) for key, count in self._changes.items()]
        changes.sort(key=lambda c: (order.index(c.way), -c.count, c.route, c.caller, c.tag, c.place, c.after))
        return Replay(
            policy=policy,
            version=version,
            exchanges=self.exchanges,
            places=self.places,
            rows=tuple(rows),
            changes=tuple(changes),
            newly_refused=tuple(Refusals(*key, count=count) for key, count in sorted(self.refused.items())),
            modes=dict(sorted(self.modes.items())),
            left_out=dict(sorted(self.left_out.items())),
        )
