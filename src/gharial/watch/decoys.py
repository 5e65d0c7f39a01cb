"""Decoys: ids of nobody. Who asks for one has no honest reason. In lists they may stand, so only asking counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gharial.watch.sight import Sight, Verdict

DECOY = "decoy"


@dataclass(frozen=True, slots=True)
class DecoyRule:
    """The decoys of one watch, as digests of people in every id space of the policy."""

    name: str


class Decoys:
    """Recognises decoys by the digests of the people whom a request names."""

    def __init__(self, rule: DecoyRule, digests: Iterable[str]) -> None:
        self.rule = rule
        self._digests = frozenset(digests)

    def look(self, sight: Sight, named: Sequence[str]) -> Sequence[Verdict]:
        """A verdict if a decoy was asked for; `named` are digests of whom the request names."""
        touched = sorted(self._digests.intersection(named))
        if not touched:
            return ()
        return [
            Verdict(
                detector=DECOY,
                watch=self.rule.name,
                key="\x1f".join((self.rule.name, sight.principal)),
                severity="critical",
                count=len(touched),
                limit=0,
                window_s=86_400,
                what="a decoy was touched",
                people=tuple(touched),
            )
        ]
