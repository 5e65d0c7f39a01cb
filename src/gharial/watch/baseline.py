"""What is usual for one counter: the median of its past, and how far today is from it.

A period that lay within an incident is not learned from, and what is learned grows by a tenth a week at most, so that
nobody can teach the watch a harvest by growing slowly.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from statistics import median
from typing import Any

KEPT = 64
"""So many past periods are remembered."""
NEEDED = 7
"""With fewer there is no baseline."""
GROWTH_PER_WEEK = 1.1
_DAY_S = 86_400
_WEEK_S = 7 * _DAY_S
_MAD_TO_SIGMA = 1.4826
_SMALLEST_MAD = 0.2
"""For whoever sees the same number every day six deviations are then about six times as many."""


class Baseline:
    """The largest counts of past periods: windows of `window_s` seconds, or days where a window is longer."""

    __slots__ = ("_best", "_frozen", "_number", "_past", "period_s")

    def __init__(self, window_s: int) -> None:
        self.period_s = min(window_s, _DAY_S)
        self._past: deque[int] = deque(maxlen=KEPT)
        self._number: int | None = None
        self._best = 0
        self._frozen = False

    def learn(self, count: int, at_s: float, *, frozen: bool) -> None:
        """Take note of a count. `frozen`: an incident is open, so this window teaches nothing."""
        number = int(at_s // self.period_s)
        if self._number is None or number > self._number:
            if self._number is not None and self._best and not self._frozen:
                self._past.append(min(self._best, self._most()))
            self._number, self._best, self._frozen = number, 0, False
        self._best = max(self._best, count)
        self._frozen |= frozen

    def accept(self, count: int) -> None:
        """Take this count for usual from now on, whatever was before."""
        self._past.clear()
        self._past.extend([max(1, count)] * NEEDED)
        self._frozen = False

    @property
    def usual(self) -> float | None:
        """The median of the past windows; None while there are too few."""
        return median(self._past) if len(self._past) >= NEEDED else None

    def z(self, count: int) -> float:
        """Return how many robust standard deviations log(1 + count) lies above the usual; 0 without a baseline."""
        if len(self._past) < NEEDED:
            return 0.0
        logs = [math.log1p(past) for past in self._past]
        middle = median(logs)
        mad = max(median(abs(log - middle) for log in logs), _SMALLEST_MAD)
        return (math.log1p(count) - middle) / (_MAD_TO_SIGMA * mad)

    def dump(self) -> dict[str, Any]:
        """Return the state as JSON has it."""
        return {"past": list(self._past), "number": self._number, "best": self._best, "frozen": self._frozen}

    @classmethod
    def load(cls, window_s: int, state: dict[str, Any]) -> Baseline:
        """Take up what `dump` gave. Raises ValueError for anything else."""
        made = cls(window_s)
        try:
            made._past.extend(_counts(state["past"]))
            made._number = None if state["number"] is None else int(state["number"])
            made._best, made._frozen = int(state["best"]), bool(state["frozen"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a baseline ({type(error).__name__})") from None
        return made

    def _most(self) -> int:
        """The largest count that may be learned now."""
        if len(self._past) < NEEDED:
            return 2**62
        periods_a_week = _WEEK_S / self.period_s
        # Per period, the part of a week's growth that falls to it.
        growth: float = GROWTH_PER_WEEK ** (1 / periods_a_week)
        return math.ceil(max(self._past) * growth) + 1


def _counts(values: Iterable[object]) -> list[int]:
    return [int(value) for value in values if isinstance(value, int)]
