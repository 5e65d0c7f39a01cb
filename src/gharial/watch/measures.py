"""What is done about a caller for a while: throttle, mask, block. Each has an end and can be undone.

A measure holds from the very next exchange of whom it is for. The watch renews it for as long as it sees too much.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

THROTTLE, MASK, BLOCK = "throttle", "mask", "block"
LADDER = (THROTTLE, MASK, BLOCK)
"""From the mildest on."""
FOR_S = 3_600
"""How long a measure lasts unless the policy says otherwise."""
THROTTLED_PER_MINUTE = 6
"""Exchanges that a throttled caller still gets."""
MAX_MEASURES = 20_000


@dataclass(frozen=True, slots=True)
class ActiveMeasure:
    """One measure: for whom (`who`, a key of `Sight.who`), until when, by which watch and for which incident."""

    name: str
    who: str
    until_s: float
    imposed_s: float
    watch: str
    incident_id: str


@dataclass(frozen=True, slots=True)
class Standing:
    """What holds for a caller now. `until_s` is when the last of it ends."""

    throttle: bool = False
    mask: bool = False
    block: bool = False
    until_s: float = 0.0


NOTHING = Standing()


class MeasureBook:
    """The measures that hold, by whom they are for. Bounded; the one that ends first goes first."""

    def __init__(self) -> None:
        self._active: OrderedDict[tuple[str, str], ActiveMeasure] = OrderedDict()
        self._spent: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self.changed = False

    def load(self, measures: Iterable[ActiveMeasure]) -> None:
        """Take up measures from before a restart."""
        self._active.update({(measure.who, measure.name): measure for measure in measures})

    def impose(self, measure: ActiveMeasure) -> bool:
        """Put a measure in force, or prolong the one that is; returns whether it is new."""
        key = (measure.who, measure.name)
        held = self._active.get(key)
        self.changed = True
        if held is not None and held.until_s > measure.imposed_s:
            self._active[key] = replace(held, until_s=max(held.until_s, measure.until_s))
            return False
        self._active[key] = measure
        if len(self._active) > MAX_MEASURES:
            first = min(self._active, key=lambda known: self._active[known].until_s)
            del self._active[first]
        return True

    def standing(self, whos: Sequence[str], now_s: float) -> Standing:
        """Return what holds for a caller that is known by these keys."""
        if not self._active:
            return NOTHING
        held = [m for who in whos for name in LADDER if (m := self._active.get((who, name))) and m.until_s > now_s]
        if not held:
            return NOTHING
        names = {measure.name for measure in held}
        return Standing(THROTTLE in names, MASK in names, BLOCK in names, max(measure.until_s for measure in held))

    def has_room(self, principal: str, now_s: float) -> bool:
        """Return whether a throttled principal may make this exchange, and count it if so."""
        room, at_s = self._spent.get(principal, (float(THROTTLED_PER_MINUTE), now_s))
        # A clock that was set back gives no room and takes none.
        room = min(THROTTLED_PER_MINUTE, room + max(0.0, now_s - at_s) * THROTTLED_PER_MINUTE / 60)
        self._spent[principal] = (room - 1 if room >= 1 else room, now_s)
        self._spent.move_to_end(principal)
        if len(self._spent) > MAX_MEASURES:
            self._spent.popitem(last=False)
        return room >= 1

    def undo(self, incident_id: str) -> tuple[ActiveMeasure, ...]:
        """End the measures of an incident; returns them."""
        gone = tuple(measure for measure in self._active.values() if measure.incident_id == incident_id)
        for measure in gone:
            del self._active[measure.who, measure.name]
        self.changed |= bool(gone)
        return gone

    def active(self, now_s: float) -> tuple[ActiveMeasure, ...]:
        """Return what holds now, in the order in which it was imposed, and let go of what has ended."""
        over = [key for key, measure in self._active.items() if measure.until_s <= now_s]
        for key in over:
            del self._active[key]
        self.changed |= bool(over)
        return tuple(self._active.values())
