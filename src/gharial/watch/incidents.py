"""Turns crossed budgets into incidents: one per kind of event while it lasts, one alarm when it opens.

A harvest crosses its budget thousands of times a second; what comes out is one record, put at most once a second.
"""

from __future__ import annotations

import base64
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from gharial.model.caller import Caller
from gharial.model.incident import IncidentRecord
from gharial.watch.meter import Crossing
from gharial.watch.sight import Sight, Verdict

PEOPLE_BUDGET = "people_budget"
"""The detector of this module."""

MAX_PEOPLE_COUNTED = 10_000
"""Distinct people withheld are counted exactly below this number; a record that holds it means "at least"."""

PUT_EVERY_S = 1.0

_MAX_OPEN = 10_000
_MAX_PEOPLE_HELD = 1_000_000


class _Alarm(msgspec.Struct, frozen=True):
    """The alarm, in the order of its members."""

    type: str
    incident: str
    severity: str
    detector: str
    client: str
    user: str
    route: str
    policy: str
    grant: str
    people_clear: int
    limit_people: int
    window_s: int
    measure: str
    opened: str
    summary: str
    show: str


@dataclass(slots=True)
class _Open:
    """An incident that goes on. `earlier` is what was counted before its set of people was lost (restart, memory)."""

    record: IncidentRecord
    people: set[str]
    earlier: int = 0
    put_at_s: float = float("-inf")
    waiting: bool = True
    alarm: bytes | None = None


class IncidentBook:
    """The open incidents of one gateway.

    Memory is bounded: 10,000 people per incident, a million in all (beyond, the incident that was quiet longest keeps
    its number and forgets its people, so the number becomes "at least"), 10,000 incidents.
    `new_bytes` gives random bytes, `iso_time` a time in seconds since the epoch as ISO 8601 in UTC.
    """

    def __init__(self, *, new_bytes: Callable[[int], bytes], iso_time: Callable[[float], str]) -> None:
        self._new_bytes = new_bytes
        self._iso_time = iso_time
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._held = 0

    def load(self, records: Iterable[IncidentRecord]) -> None:
        """Take up incidents from before a restart, in any order. They go on without a second alarm.

        Whom they had counted is not stored, so a number grows again only once more distinct people came since.
        """
        for record in sorted(records, key=lambda r: r.last_seen_s):
            self._open[record.key] = _Open(record, set(), earlier=record.people_withheld, waiting=False)
            self._open.move_to_end(record.key)
        while len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)

    def observe(
        self,
        crossing: Crossing,
        *,
        caller: Caller,
        policy: str,
        route: str,
        exchange_id: str,
        now_s: float,
    ) -> tuple[IncidentRecord | None, bytes | None]:
        """Open an incident or carry the open one of the same kind on.

        Returns the record to put now (None if it was put less than a second ago; `flush` gives it later) and, only
        where it was opened, the alarm as JSON. If the put fails, hand both to `put_failed`.
        """
        key = "\x1f".join((PEOPLE_BUDGET, caller.principal, policy, crossing.grant, str(crossing.window_s)))
        entry = self._open.get(key)
        if entry is None or now_s - entry.record.last_seen_s > entry.record.window_s:
            self._drop(key)
            record = IncidentRecord(
                incident_id=self._new_id(),
                key=key,
                detector=PEOPLE_BUDGET,
                severity="high",
                principal=caller.principal,
                client=caller.client,
                user=caller.user,
                route=route,
                policy=policy,
                grant=crossing.grant,
                limit_people=crossing.limit,
                window_s=crossing.window_s,
                opened_s=now_s,
                last_seen_s=now_s,
                people_clear=crossing.people_counted,
                people_withheld=0,
                measure=crossing.measure,
                exchange_id=exchange_id,
            )
            entry = self._open[key] = _Open(record, set(), alarm=self._alarm(record))
        self._open.move_to_end(key)
        self._count(entry, crossing.people_withheld)
        entry.record = replace(
            entry.record,
            last_seen_s=max(entry.record.last_seen_s, now_s),
            limit_people=crossing.limit,
            people_clear=crossing.people_counted,
            people_withheld=max(entry.earlier, len(entry.people)),
            measure=crossing.measure,
        )
        entry.waiting = True
        self._make_room()
        # A clock that was set back must not hold updates back.
        if 0 <= now_s - entry.put_at_s < PUT_EVERY_S:
            return None, None
        return _take(entry, now_s)

    def observe_verdict(
        self, verdict: Verdict, sight: Sight, *, policy: str, severity: str, measure: str, exchange_id: str
    ) -> str:
        """Open an incident for what a detector says, or carry the open one on; returns its id.

        It waits for `flush`, with its alarm if it was opened, or if it has become graver.
        """
        key = "\x1f".join((verdict.detector, policy, verdict.key))
        entry = self._open.get(key)
        if entry is None or sight.at_s - entry.record.last_seen_s > entry.record.window_s:
            self._drop(key)
            record = IncidentRecord(
                incident_id=self._new_id(),
                key=key,
                detector=verdict.detector,
                severity=severity,
                principal=sight.principal,
                client=sight.client,
                user=sight.user,
                route=sight.route,
                policy=policy,
                grant=verdict.watch,
                limit_people=verdict.limit,
                window_s=verdict.window_s,
                opened_s=sight.at_s,
                last_seen_s=sight.at_s,
                people_clear=verdict.count,
                people_withheld=0,
                measure=measure,
                exchange_id=exchange_id,
            )
            entry = self._open[key] = _Open(record, set())
            entry.alarm = self._alarm(record, _verdict_summary(record, verdict))
        elif _RANK[severity] > _RANK[entry.record.severity]:
            entry.record = replace(entry.record, severity=severity)
            entry.alarm = self._alarm(entry.record, _verdict_summary(entry.record, verdict))
        self._open.move_to_end(key)
        entry.record = replace(
            entry.record,
            last_seen_s=max(entry.record.last_seen_s, sight.at_s),
            people_clear=max(entry.record.people_clear, verdict.count),
            limit_people=verdict.limit,
            measure=measure,
        )
        entry.waiting = True
        self._make_room()
        return entry.record.incident_id

    def key_of(self, incident_id: str) -> str:
        """Return the key of an open incident, "" if there is none."""
        return next((e.record.key for e in self._open.values() if e.record.incident_id == incident_id), "")

    def flush(self, now_s: float) -> tuple[tuple[IncidentRecord, bytes | None], ...]:
        """Return what waits to be put, with its alarm if that was never stored, and let go of what is over.

        Call it about once a second, and before the process ends.
        """
        out: list[tuple[IncidentRecord, bytes | None]] = []
        for key, entry in list(self._open.items()):
            if entry.waiting:
                record, alarm = _take(entry, now_s)
                out.append((record, alarm))
            elif now_s - entry.record.last_seen_s > entry.record.window_s:
                self._drop(key)
        return tuple(out)

    def put_failed(self, record: IncidentRecord, alarm: bytes | None) -> None:
        """Take back what could not be stored: the next `observe` or `flush` gives it again, so no alarm is lost."""
        entry = self._open.get(record.key)
        if entry is None or entry.record.incident_id != record.incident_id:
            self._drop(record.key)
            entry = self._open[record.key] = _Open(record, set(), earlier=record.people_withheld)
        entry.waiting = True
        entry.put_at_s = float("-inf")
        entry.alarm = alarm or entry.alarm

    def _count(self, entry: _Open, people: Iterable[str]) -> None:
        for person in people:
            if len(entry.people) >= MAX_PEOPLE_COUNTED:
                return
            if person not in entry.people:
                entry.people.add(person)
                self._held += 1

    def _make_room(self) -> None:
        if self._held > _MAX_PEOPLE_HELD:
            for entry in self._open.values():
                self._held -= len(entry.people)
                entry.earlier = entry.record.people_withheld
                entry.people = set()
                if self._held <= _MAX_PEOPLE_HELD:
                    break
        while len(self._open) > _MAX_OPEN:
            self._drop(next(iter(self._open)))

    def _drop(self, key: str) -> None:
        entry = self._open.pop(key, None)
        if entry is not None:
            self._held -= len(entry.people)

    def _new_id(self) -> str:
        return "inc_" + base64.b32encode(self._new_bytes(8)).decode().lower()[:12]

    def _alarm(self, record: IncidentRecord, summary: str = "") -> bytes:
        return msgspec.json.encode(
            _Alarm(
                type="gharial.incident",
                incident=record.incident_id,
                severity=record.severity,
                detector=record.detector,
                client=record.client,
                user=record.user,
                route=record.route,
                policy=record.policy,
                grant=record.grant,
                people_clear=record.people_clear,
                limit_people=record.limit_people,
                window_s=record.window_s,
                measure=record.measure,
                opened=self._iso_time(record.opened_s),
                summary=summary or _summary(record),
                show=f"gharial incidents show {record.incident_id}",
            )
        )


def people_text(people: int) -> str:
    """Return a count of people withheld as text: "17", or "at least 10000" where counting ended."""
    return f"at least {people}" if people >= MAX_PEOPLE_COUNTED else str(people)


def window_text(window_s: int) -> str:
    """Return a window's length in its largest whole unit: "1 hour", "30 minutes", "90 seconds". At least a second."""
    units = (("day", 86_400), ("hour", 3600), ("minute", 60), ("second", 1))
    unit, seconds = next(u for u in units if window_s >= u[1] and window_s % u[1] == 0)
    count = window_s // seconds
    return f"{count} {unit}" if count == 1 else f"{count} {unit}s"


def _take(entry: _Open, now_s: float) -> tuple[IncidentRecord, bytes | None]:
    alarm, entry.alarm = entry.alarm, None
    entry.waiting = False
    entry.put_at_s = now_s
    return entry.record, alarm


_RANK = {"low": 0, "medium": 1, "high": 2, "critical": 3}


def _verdict_summary(record: IncidentRecord, verdict: Verdict) -> str:
    user = f" (user {record.user})" if record.user else ""
    done = f"; done: {record.measure} ('gharial incidents undo {record.incident_id}' ends it)" if record.measure else ""
    return (
        f"Client {record.client}{user}: {verdict.what} within {window_text(verdict.window_s)}, by the watch "
        f"{verdict.watch} of policy {record.policy}, whose limit is {verdict.limit}{done}."
    )


def _summary(record: IncidentRecord) -> str:
    user = f" (user {record.user})" if record.user else ""
    after = f"further people come as {record.measure}" if record.measure else "further people are withheld"
    return (
        f"Client {record.client}{user} was shown {record.people_clear} people in clear within "
        f"{window_text(record.window_s)} under grant {record.grant} of policy {record.policy}, "
        f"which allows {record.limit_people}; {after}."
    )
