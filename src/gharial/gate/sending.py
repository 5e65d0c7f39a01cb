"""Values of a request on their way to the upstream (`in: [request]`): each is sent as the plan's step says, or goes."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass, field

from gharial.model.finding import Kind, Transform
from gharial.model.plan import Op, Step


class Gone(enum.Enum):
    """The value is not sent at all, nor is its name."""

    GONE = "gone"


GONE = Gone.GONE

_LEFT_OUT = (Op.DROP, Op.NULL)
"""Outside JSON there is no null: an empty text would be a value."""


@dataclass(frozen=True, slots=True)
class Sending:
    """The steps of a plan, and what carries each of them out."""

    steps: Sequence[Step]
    transforms: Sequence[Transform] = field(repr=False)

    def hides(self, step: int) -> bool:
        """True if what comes here is sent otherwise than it came."""
        return self.steps[step].op is not Op.CLEAR

    def protect(self, step: int, text: str) -> str | Gone | None:
        """Return what is sent in place of a text; None: it stays as it came."""
        op = self.steps[step].op
        if op is Op.CLEAR:
            return None
        if op in _LEFT_OUT:
            return GONE
        return self.transforms[step](Kind.STRING, text)[1]
