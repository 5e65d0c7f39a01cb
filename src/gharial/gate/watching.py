"""The watch as the gate uses it: what an exchange shows goes to the detectors, and what they say has consequences.

Everything here is synchronous, so that a measure holds before the caller's next exchange can begin.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from gharial.gate.ports import Clock
from gharial.model.caller import ANONYMOUS, Caller
from gharial.model.errors import CallerBlocked, CallerThrottled, PolicyInvalid, Problem
from gharial.policy.document import Policy
from gharial.policy.watch_syntax import Measure, Watch
from gharial.watch.decoys import DecoyRule, Decoys
from gharial.watch.harvest import HARVEST, Harvest, HarvestRule
from gharial.watch.incidents import IncidentBook
from gharial.watch.measures import BLOCK, FOR_S, MASK, THROTTLE, ActiveMeasure, MeasureBook, Standing
from gharial.watch.misuse import RULES, Misuse
from gharial.watch.sight import Sight, Verdict
from gharial.watch.sweep import Sweep, SweepRule

ReadDecoys = Callable[[str, Policy], Sequence[str]]
"""Returns the ids that a `file:` reference lists. Raises OSError or ValueError."""
DigestPerson = Callable[[str, str], str]
"""Returns the digest of a person: (id space, text)."""

_CARRIED_OUT = {"throttle": THROTTLE, "mask": MASK, "decoy": MASK, "block": BLOCK}
"""Measures by their word; instead of made-up values a caller gets masked ones."""


MAX_POLICIES_WATCHED = 1_000
"""Versions of policies whose counters are held in memory."""


@dataclass(slots=True)
class Detectors:
    """What watches over one policy, with what its entries ask for. `watches` are those that this was made of."""

    watches: tuple[Watch, ...]
    harvests: dict[str, Harvest] = field(default_factory=dict)
    sweeps: dict[str, Sweep] = field(default_factory=dict)
    decoys: dict[str, Decoys] = field(default_factory=dict)


class Watching:
    """All detectors of one gate, the measures that hold, and the incidents that they lead to."""

    def __init__(
        self,
        incidents: IncidentBook,
        clock: Clock,
        read_decoys: ReadDecoys,
        digest: DigestPerson,
    ) -> None:
        self._incidents = incidents
        self._clock = clock
        self._read_decoys = read_decoys
        self._digest = digest
        self._of: OrderedDict[tuple[str, int], Detectors] = OrderedDict()
        self._misuse = [Misuse(rule) for rule in RULES]
        self.measures = MeasureBook()
        self.seen: Counter[str] = Counter()
        """How often each detector said "too much"."""

    def check(self, policies: Mapping[str, Policy]) -> None:
        """Raise PolicyInvalid where a policy's decoys can't be read."""
        for policy in policies.values():
            self._decoys_of(policy)

    def standing(self, caller: Caller) -> Standing:
        """Return what holds for a caller now.

        Raises CallerBlocked, and CallerThrottled where too little time has passed since its last exchange.
        """
        now_s = self._clock.now_s()
        sight = _sight(caller, now_s)
        found = self.measures.standing([sight.who(per) for per in ("client", "user", "team")], now_s)
        if found.block:
            raise CallerBlocked
        if found.throttle and not self.measures.has_room(caller.principal, now_s):
            raise CallerThrottled
        return found

    def look(
        self, policy: Policy, sight: Sight, exchange_id: str, named: Sequence[str] = (), *, act: bool = True
    ) -> None:
        """Show an exchange to the detectors of its policy; incidents and measures follow.

        `named` are digests of whom the request names. Without `act` nothing but incidents follows (shadow).
        """
        detectors = self.detectors_of(policy)
        found: list[Verdict] = []
        for harvest in detectors.harvests.values():
            # In shadow everything is learned: that is what looking on is for.
            found += harvest.look(sight, learn_all=not act)
        for sweep in detectors.sweeps.values():
            found += sweep.look(sight)
        for decoys in detectors.decoys.values():
            found += decoys.look(sight, named)
        for misuse in self._misuse:
            found += misuse.look(sight)
        for verdict in found:
            self.seen[verdict.detector] += 1
            watch = next((watch for watch in policy.watch if watch.name == verdict.watch), None)
            self._answer(verdict, watch, policy.name, sight, exchange_id, act=act)

    def undo(self, incident_id: str) -> tuple[ActiveMeasure, ...]:
        """End what was done for an incident. A harvest that was honest after all counts as usual from now on."""
        gone = self.measures.undo(incident_id)
        key = self._incidents.key_of(incident_id)
        for (policy, _), detectors in self._of.items():
            for harvest in detectors.harvests.values():
                if key.startswith("\x1f".join((HARVEST, policy, harvest.rule.name, ""))):
                    harvest.accept(key)
        return gone

    def _answer(
        self, verdict: Verdict, watch: Watch | None, policy: str, sight: Sight, exchange_id: str, *, act: bool
    ) -> None:
        wanted = [measure for measure in (watch.do if watch else ()) if measure.name in _CARRIED_OUT]
        severity = next((m.severity for m in (watch.do if watch else ()) if m.severity), verdict.severity)
        names = [_CARRIED_OUT[measure.name] for measure in wanted]
        if sight.client == ANONYMOUS:
            # All who have no credential are one client: what one of them does must not be done to all.
            names = []
        told = ", ".join(names) if act else ", ".join(f"would {name}" for name in names)
        incident_id = self._incidents.observe_verdict(
            verdict, sight, policy=policy, severity=severity, measure=told, exchange_id=exchange_id
        )
        if act and sight.client != ANONYMOUS:
            for measure in wanted:
                self._impose(measure, verdict, watch, sight, incident_id)

    def _impose(self, measure: Measure, verdict: Verdict, watch: Watch | None, sight: Sight, incident_id: str) -> None:
        per = watch.people_per if watch is not None and watch.people_per in ("client", "team") else "user"
        self.measures.impose(
            ActiveMeasure(
                name=_CARRIED_OUT[measure.name],
                who=sight.who(per),
                until_s=sight.at_s + (measure.for_s or FOR_S),
                imposed_s=sight.at_s,
                watch=verdict.watch,
                incident_id=incident_id,
            )
        )

    def harvests(self) -> Sequence[tuple[str, str, Harvest]]:
        """All watches that count people, as (policy, watch, state)."""
        return [
            (name, watch, harvest) for (name, _), own in self._of.items() for watch, harvest in own.harvests.items()
        ]

    def detectors_of(self, policy: Policy) -> Detectors:
        """Return what watches over a policy. What an entry has counted goes on while it stays as it is."""
        key = (policy.name, policy.version)
        held = self._of.get(key)
        if held is not None and held.watches is policy.watch:
            return held
        before = next((own for (name, _), own in reversed(self._of.items()) if name == policy.name), None)
        made = self._of[key] = self._make(policy, before)
        self._of.move_to_end(key)
        if len(self._of) > MAX_POLICIES_WATCHED:
            self._of.popitem(last=False)
        return made

    def _make(self, policy: Policy, before: Detectors | None) -> Detectors:
        made = Detectors(policy.watch)
        for watch in policy.watch:
            if watch.people_per:
                rule = HarvestRule(
                    watch.name, watch.people_per, watch.over_s, watch.baseline_factor, watch.people, watch.floor
                )
                kept = before.harvests.get(watch.name) if before else None
                made.harvests[watch.name] = kept if kept is not None and kept.rule == rule else Harvest(rule)
            elif watch.ids_in_order is not None:
                made.sweeps[watch.name] = Sweep(SweepRule(watch.name, *watch.ids_in_order))
        made.decoys = self._decoys_of(policy)
        return made

    def _decoys_of(self, policy: Policy) -> dict[str, Decoys]:
        spaces = sorted({tag.subject for tag in policy.tags.values() if tag.subject})
        found: dict[str, Decoys] = {}
        for watch in policy.watch:
            if not watch.ids:
                continue
            try:
                ids = self._read_decoys(watch.ids, policy)
            except (OSError, ValueError) as error:
                what = (
                    f"the decoys of '{watch.name}' can't be read from {watch.ids}, beside gharial.yaml, one id a line: "
                    f"{type(error).__name__}"
                )
                raise PolicyInvalid([Problem(policy.file, watch.line, watch.column, what)]) from None
            digests = [self._digest(space, text) for space in spaces for text in ids]
            found[watch.name] = Decoys(DecoyRule(watch.name), digests)
        return found


def sight_of(
    caller: Caller,
    route: str,
    at_s: float,
    *,
    people: Sequence[str] = (),
    asked: Sequence[tuple[str, str]] = (),
    refusal: str = "",
) -> Sight:
    """Return what an exchange of this caller shows to the watch."""
    return Sight(
        at_s=at_s,
        tenant=caller.tenant,
        client=caller.client,
        user=caller.user,
        team=caller.team,
        route=route,
        people=tuple(people),
        asked=tuple(asked),
        refusal=refusal,
    )


def _sight(caller: Caller, at_s: float) -> Sight:
    return sight_of(caller, "", at_s)
