"""How many different people within a rolling window: exact for few, a sketch for many.

Up to EXACT people are kept as digests with the time when each was last met. Beyond, the window's slots hold one
HyperLogLog sketch each (Apache DataSketches, 2^12 registers: 1.6 % standard error, about 2 to 4 KB a slot), and one
running union gives the estimate. A sketch never forgets within its slot, so a window is long by up to one slot.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

EXACT = 64
"""Up to so many people a count is exact."""
SLOTS = 60
"""Into so many slots a window is divided."""
_LOG2_REGISTERS = 12


class RollingDistinct:
    """Different people within the last `window_s` seconds. Times never go back: an earlier one counts as the latest."""

    __slots__ = ("_exact", "_latest_s", "_slots", "_union", "window_s")

    def __init__(self, window_s: int) -> None:
        self.window_s = window_s
        self._exact: OrderedDict[str, float] | None = OrderedDict()
        self._slots: OrderedDict[int, Any] = OrderedDict()
        self._union: Any = None
        self._latest_s = 0.0

    @property
    def is_exact(self) -> bool:
        """True while every person is remembered by itself."""
        return self._exact is not None

    def add(self, people: Iterable[str], at_s: float) -> int:
        """Count these people, and return how many different ones the window holds now."""
        at_s = self._latest_s = max(at_s, self._latest_s)
        self._forget(at_s)
        if self._exact is not None:
            for person in people:
                self._exact[person] = at_s
                self._exact.move_to_end(person)
            if len(self._exact) > EXACT:
                self._begin_sketches()
        else:
            slot = self._slot(at_s)
            for person in people:
                slot.update(person)
                self._union.update(person)
        return self.count(at_s)

    def count(self, at_s: float) -> int:
        """Return how many different people the window that ends now holds; exact or estimated."""
        self._forget(max(at_s, self._latest_s))
        if self._exact is not None:
            return len(self._exact)
        return round(float(self._union.get_estimate()))

    def dump(self) -> dict[str, Any]:
        """Return the state as JSON has it; digests and sketches, never a value."""
        return {
            "latest_s": self._latest_s,
            "exact": None if self._exact is None else list(self._exact.items()),
            "slots": {
                str(number): base64.b64encode(sketch.serialize_compact()).decode()
                for number, sketch in self._slots.items()
            },
        }

    @classmethod
    def load(cls, window_s: int, state: dict[str, Any]) -> RollingDistinct:
        """Take up what `dump` gave. Raises ValueError for anything else."""
        made = cls(window_s)
        try:
            made._latest_s = float(state["latest_s"])
            if state["exact"] is not None:
                made._exact = OrderedDict((str(person), float(at_s)) for person, at_s in state["exact"])
                return made
            made._exact = None
            sketch = _sketches()
            for number, text in sorted(state["slots"].items(), key=lambda item: int(item[0])):
                made._slots[int(number)] = sketch.hll_sketch.deserialize(base64.b64decode(text))
            made._rebuild()
        except (KeyError, TypeError, AttributeError, RuntimeError, IndexError) as error:
            raise ValueError(f"not a rolling count ({type(error).__name__})") from None
        except ValueError:
            raise ValueError("not a rolling count") from None
        return made

    def _forget(self, now_s: float) -> None:
        if self._exact is not None:
            while self._exact and next(iter(self._exact.values())) <= now_s - self.window_s:
                self._exact.popitem(last=False)
            return
        oldest = self._number(now_s) - SLOTS
        # They stand in their order.
        gone = False
        while self._slots and next(iter(self._slots)) < oldest:
            self._slots.popitem(last=False)
            gone = True
        if gone:
            self._rebuild()
        if not self._slots:
            # Nobody is left, so counting may be exact again.
            self._exact, self._union = OrderedDict(), None

    def _begin_sketches(self) -> None:
        exact, self._exact = self._exact or OrderedDict(), None
        for person, at_s in exact.items():
            self._slot(at_s).update(person)
        self._rebuild()

    def _rebuild(self) -> None:
        self._union = _sketches().hll_union(_LOG2_REGISTERS)
        for sketch in self._slots.values():
            self._union.update(sketch)

    def _slot(self, at_s: float) -> Any:
        number = self._number(at_s)
        if number not in self._slots:
            self._slots[number] = _sketches().hll_sketch(_LOG2_REGISTERS)
        return self._slots[number]

    def _number(self, at_s: float) -> int:
        return int(at_s * SLOTS // self.window_s)


def _sketches() -> Any:
    # Loaded where the first large count needs it: it brings numpy, which a small gateway never uses.
    import datasketches

    return datasketches
