"""Refusals that tell of intent: tokens of somebody else, and filters on fields that the caller may not see."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from gharial.watch.sight import Sight, Verdict

MAX_FOLLOWED = 20_000


@dataclass(frozen=True, slots=True)
class MisuseRule:
    """`times` refusals with this code within `within_s` seconds; from `grave_times` on the severity is `grave`."""

    name: str
    code: str
    times: int
    within_s: int
    severity: str
    grave_times: int
    grave: str
    what: str


FOREIGN_TOKEN = MisuseRule(
    "foreign-token", "token.refused", 1, 600, "high", 20, "critical", "tokens that are not this caller's"
)
PROBING = MisuseRule(
    "probing", "request.probes", 10, 600, "medium", 50, "high", "filters by fields that this caller may not see"
)
RULES = (FOREIGN_TOKEN, PROBING)
"""What is always watched for, in every policy."""


class Misuse:
    """State of one rule: the times of the last refusals of each principal."""

    def __init__(self, rule: MisuseRule) -> None:
        self.rule = rule
        self._times: OrderedDict[str, deque[float]] = OrderedDict()

    def look(self, sight: Sight) -> Sequence[Verdict]:
        """Count a refusal with the rule's code; a verdict from the rule's number on."""
        rule = self.rule
        if sight.refusal != rule.code:
            return ()
        times = self._times.setdefault(sight.principal, deque(maxlen=rule.grave_times))
        self._times.move_to_end(sight.principal)
        if len(self._times) > MAX_FOLLOWED:
            self._times.popitem(last=False)
        times.append(sight.at_s)
        while times[0] <= sight.at_s - rule.within_s:
            times.popleft()
        if len(times) < rule.times:
            return ()
        return [
            Verdict(
                detector=rule.name,
                watch=rule.name,
                key="\x1f".join((rule.name, sight.principal)),
                severity=rule.grave if len(times) >= rule.grave_times else rule.severity,
                count=len(times),
                limit=rule.times,
                window_s=rule.within_s,
                what=f"{len(times)} {rule.what}",
            )
        ]
