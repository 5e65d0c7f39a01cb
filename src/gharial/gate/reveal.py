"""The reveal API as a use case: a caller's own tokens, and envelopes, become clear values where a grant says `reveal`.

Every value is opened, paid for and on record before any leaves; what is not allowed is refused with one error for all
reasons, so that an answer tells nothing of tokens that are not this caller's.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from gharial.audit.reveal_record import RevealedValue, reveal_record
from gharial.crypto import envelope
from gharial.crypto.digest import person_digest
from gharial.crypto.keyset import Keyset
from gharial.crypto.subject import (
    Sealed,
    Subject,
    find_sealed_envelope,
    find_sealed_token,
    is_subject_envelope,
    is_subject_token,
    open_with_subject,
)
from gharial.crypto.token import Recipient, TokenScope, find_binding, handed_over, looks_like_token, open_token
from gharial.crypto.vault import find_token, open_sealed
from gharial.gate.outcome import Headers
from gharial.gate.people import ERASED, Erased
from gharial.gate.ports import Charge
from gharial.gate.services import Services
from gharial.gate.watching import sight_of
from gharial.model.caller import Caller
from gharial.model.errors import (
    CallerBlocked,
    GharialError,
    TokenRefused,
    TooManyCalls,
    UnknownCredential,
    VaultUnavailable,
)
from gharial.model.finding import Kind
from gharial.model.plan import Op
from gharial.policy.document import Policy
from gharial.policy.reveal import REVEAL_ROUTE
from gharial.watch.meter import Crossing, ScopePeople
from gharial.watch.misuse import FOREIGN_TOKEN

MAX_ITEMS = 1_000
"""Values of one call."""
MAX_CLIENTS = 10_000
"""Clients whose rate is remembered."""
MAX_CHECKED = 100
"""Refused items of one call of which it is asked whose they are."""
MAX_FOREIGN = FOREIGN_TOKEN.grave_times
"""Tokens of somebody else that are told of one call: more would make it no graver."""


class RevealRefusal(enum.StrEnum):
    """Why a value was refused; told to the operator's metrics, never to the caller."""

    NO_RIGHT = "no_right"
    NOT_OPENED = "not_opened"
    ERASED = "erased"
    BUDGET = "budget"


@dataclass(frozen=True, slots=True)
class Item:
    """What a caller wants revealed: a token or an envelope, and the tag that it is of."""

    tag: str
    value: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Clear:
    """A value in clear, with its JSON type."""

    kind: Kind
    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Begun:
    """A call whose caller is known and may go on."""

    exchange_id: str
    started_s: float
    caller: Caller


class Rate:
    """A bucket of calls per client, refilled all the time; bounded, the least recently used client forgotten first."""

    def __init__(self, calls_per_minute: int) -> None:
        self._per_s = calls_per_minute / 60
        self._most = max(1.0, calls_per_minute / 6)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str, now_s: float) -> float:
        """Take a call; return 0, or after how many seconds there is one again."""
        left, at_s = self._buckets.pop(client, (self._most, now_s))
        # A clock that was set back gives nothing and takes nothing.
        left = min(self._most, left + max(0.0, now_s - at_s) * self._per_s)
        wait_s = 0.0 if left >= 1 else (1 - left) / self._per_s
        self._buckets[client] = (left if wait_s else left - 1, now_s)
        if len(self._buckets) > MAX_CLIENTS:
            self._buckets.popitem(last=False)
        return wait_s


class Revealer:
    """Reveals values for the callers of one gate. Its methods are for one event loop."""

    def __init__(self, services: Services, *, calls_per_minute: int) -> None:
        self._s = services
        self._rate = Rate(calls_per_minute)

    def begin(self, exchange_id: str, headers: Headers, peer: str) -> Begun:
        """Identify who calls.

        Raises UnknownCredential also where there is no credential, AmbiguousCredentials, RequestMalformed, TooManyCalls
        for a client that calls too often, CallerBlocked and CallerThrottled for one whom the watch has noticed.
        """
        now_s = self._s.clock.now_s()
        caller = self._s.identifier.identify(headers, now_s, peer).caller
        if caller.source == "none":
            raise UnknownCredential("without a credential nothing is revealed")
        if wait_s := self._rate.take(caller.client, now_s):
            raise TooManyCalls(wait_s)
        # Whom the watch masks gets nothing in clear, here neither.
        if self._s.watching.standing(caller).mask:
            raise CallerBlocked
        return Begun(exchange_id, now_s, caller)

    async def reveal(
        self, begun: Begun, items: Sequence[Item], *, of_handed_over: bool = False
    ) -> list[Clear | Erased | None]:
        """Return each value in clear, in the order of `items`; None for one that is refused.

        `of_handed_over`: they are results of data that a client handed over itself (`token.handed_over`).

        ERASED stands for one that this caller might have had if its person had not been erased.

        Charges and the audit record are on disk when this returns. Raises GharialError, and nothing is revealed then;
        what was counted stays counted.
        """
        active = self._s.publisher.active
        caller, keyset = begun.caller, active.keyset
        plans = active.reveals(caller, self._s.clock.now_s())
        allowed = frozenset(cell.tag for plan in plans for cell in plan.cells)
        tenant = handed_over(caller.tenant) if of_handed_over else caller.tenant
        recipient = Recipient(tenant, caller.client, caller.team)
        numbers = {number for item in items if item.tag in allowed and (number := find_token(item.value))}
        sealed = await self._s.vault.vault.find(sorted(numbers)) if numbers else {}
        of_people = {
            at: found
            for at, item in enumerate(items)
            if item.tag in allowed and (found := _find_sealed(keyset, recipient, item)) is not None
        }
        subjects = await self._find_subjects(keyset, of_people.values())
        whys: list[RevealRefusal | None] = []
        opened: list[Clear | None] = []
        erased: set[int] = set()
        for at, item in enumerate(items):
            clear = None
            if at in of_people:
                subject = subjects[of_people[at].handle]
                clear = Clear(*open_with_subject(subject, of_people[at])) if isinstance(subject, Subject) else None
                if isinstance(subject, Erased):
                    erased.add(at)
            elif item.tag in allowed:
                clear = _find_clear(keyset, recipient, item, sealed)
            opened.append(clear)
            why = RevealRefusal.ERASED if at in erased else None if clear else RevealRefusal.NOT_OPENED
            whys.append(RevealRefusal.NO_RIGHT if item.tag not in allowed else why)
        digests = [
            person_digest(keyset, caller.tenant, f"value:{item.tag}", clear.text) if clear else ""
            for item, clear in zip(items, opened, strict=True)
        ]
        records: list[RevealedValue | None] = [None] * len(items)
        charges: list[Charge] = []
        crossings: list[tuple[str, Crossing]] = []
        for plan in plans:
            cells = {cell.tag: index for index, cell in enumerate(plan.cells)}
            of_plan = [at for at, item in enumerate(items) if opened[at] is not None and item.tag in cells]
            if not of_plan:
                continue
            scopes = [ScopePeople((digests[at],), frozenset([cells[items[at].tag]])) for at in of_plan]
            reserved = self._s.meter.reserve(caller.principal, plan.policy, plan, scopes, self._s.clock.now_s())
            for at, variant in zip(of_plan, reserved.variants, strict=True):
                step = plan.steps[plan.cells[cells[items[at].tag]].steps[variant]]
                if step.op is Op.CLEAR and records[at] is None:
                    records[at] = RevealedValue(items[at].tag, digests[at], plan.policy, plan.version, step.rule)
            charges += [
                Charge(caller.principal, plan.policy, grant, digest, reserved.at_s)
                for grant, digest in reserved.charges
            ]
            crossings += [(plan.policy, replace(crossing, measure="refused")) for crossing in reserved.crossings]
        for at, record in enumerate(records):
            if record is None:
                opened[at] = None
                whys[at] = whys[at] or RevealRefusal.BUDGET
        kept = [record for record in records if record]
        refused = [
            item
            for at, (item, why) in enumerate(zip(items, whys, strict=True))
            if why is RevealRefusal.NOT_OPENED and at not in of_people and _is_sealed(item.value)
        ]
        foreign = _foreign(keyset, recipient, refused, allowed, sealed)
        self._watch(begun, [active.policies[plan.policy] for plan in plans], kept, foreign)
        await self._make_durable(begun, charges, crossings, kept, len(items))
        self._s.counters.revealed.update(record.tag for record in records if record)
        self._s.counters.reveal_refused.update(why.value for why in whys if why)
        return [ERASED if at in erased else clear for at, clear in enumerate(opened)]

    def _watch(
        self, begun: Begun, policies: Sequence[Policy], revealed: Sequence[RevealedValue], foreign: Sequence[Item]
    ) -> None:
        """Show the call to the watch: a value that leaves is a person, and each token of somebody else a refusal."""
        now_s, look = self._s.clock.now_s(), self._s.watching.look
        for policy in policies:
            people = [record.digest for record in revealed if record.policy == policy.name]
            if people:
                look(policy, sight_of(begun.caller, REVEAL_ROUTE, now_s, people=people), begun.exchange_id)
        for _ in foreign:
            sight = sight_of(begun.caller, REVEAL_ROUTE, now_s, refusal=TokenRefused.code)
            look(policies[0], sight, begun.exchange_id)

    async def _find_subjects(self, keyset: Keyset, sealed: Iterable[Sealed]) -> Mapping[bytes, Subject | Erased | None]:
        handles = list(dict.fromkeys(one.handle for one in sealed))
        people = self._s.vault.people
        if not handles:
            return {}
        if people is None:
            raise VaultUnavailable("there is no place for the keys of people here")
        return await people.find(keyset, handles)

    def refuse(self, exchange_id: str, begun: Begun | None, error: GharialError) -> None:
        """Count and record a call that is refused as a whole."""
        self._s.counters.refused[error.code] += 1
        if isinstance(error, TooManyCalls):
            # Whoever calls too often does not get to fill the disk.
            return
        caller = begun.caller if begun else Caller(self._s.tenant)
        started_s = begun.started_s if begun else self._s.clock.now_s()
        line = self._line(exchange_id, caller, started_s, status=error.status, error=error.code)
        try:
            self._s.audit.note(line)
        except GharialError:
            self._s.counters.audit_lines_lost += 1

    async def _make_durable(
        self,
        begun: Begun,
        charges: Sequence[Charge],
        crossings: Sequence[tuple[str, Crossing]],
        revealed: Sequence[RevealedValue],
        count: int,
    ) -> None:
        if charges:
            await self._s.store.charge(charges)
        for policy, crossing in crossings:
            await self._open_incident(begun, policy, crossing)
        line = self._line(
            begun.exchange_id,
            begun.caller,
            begun.started_s,
            status=200,
            revealed=revealed,
            refused=count - len(revealed),
            budgets_crossed=[crossing.grant for _, crossing in crossings],
        )
        await self._s.audit.append(line, durable=bool(revealed))

    async def _open_incident(self, begun: Begun, policy: str, crossing: Crossing) -> None:
        record, alarm = self._s.incidents.observe(
            crossing,
            caller=begun.caller,
            policy=policy,
            route=REVEAL_ROUTE,
            exchange_id=begun.exchange_id,
            now_s=self._s.clock.now_s(),
        )
        if record is None:
            return
        try:
            await self._s.store.put_incident(record, alarm)
        except GharialError:
            self._s.incidents.put_failed(record, alarm)
            raise
        if alarm is not None:
            self._s.wake_alarms()

    def _line(
        self,
        exchange_id: str,
        caller: Caller,
        started_s: float,
        *,
        status: int,
        error: str = "",
        revealed: Sequence[RevealedValue] = (),
        refused: int = 0,
        budgets_crossed: Iterable[str] = (),
    ) -> bytes:
        now_s = self._s.clock.now_s()
        return reveal_record(
            time=self._s.iso_time(now_s),
            exchange_id=exchange_id,
            caller=caller,
            status=status,
            error=error,
            revealed=revealed,
            refused=refused,
            budgets_crossed=tuple(budgets_crossed),
            duration_ms=max(0.0, (now_s - started_s) * 1000),
        )


def _find_sealed(keyset: Keyset, recipient: Recipient, item: Item) -> Sealed | None:
    """Return what is under a person's key in a token that was made for this recipient, or an envelope of the tag."""
    if is_subject_envelope(item.value):
        return find_sealed_envelope(keyset, recipient.tenant, item.tag, item.value)
    if not is_subject_token(item.value):
        return None
    bindings = [binding for scope in TokenScope if (binding := find_binding(recipient, item.tag, scope))]
    found = find_sealed_token(keyset, bindings, item.value)
    return None if found is None else found[1]


def _is_sealed(text: str) -> bool:
    """Return whether the text looks as if it were a token or an envelope."""
    return looks_like_token(text) or text.startswith(envelope.PREFIX) or is_subject_token(text)


def _foreign(
    keyset: Keyset, recipient: Recipient, refused: Sequence[Item], tags: frozenset[str], kept: Mapping[bytes, bytes]
) -> list[Item]:
    """Return those of the refused items that are not this caller's under any of these tags either, MAX_FOREIGN at most.

    Who does not know the tags of his tokens tries one after the other; that is no theft. Of many items some are looked
    at, evenly: they are enough to tell.
    """
    found: list[Item] = []
    for item in refused[:: 1 + len(refused) // MAX_CHECKED]:
        others = [Item(tag, item.value) for tag in tags if tag != item.tag]
        if any(
            _find_sealed(keyset, recipient, other) is not None or _find_clear(keyset, recipient, other, kept)
            for other in others
        ):
            continue
        found.append(item)
        if len(found) == MAX_FOREIGN:
            break
    return found


def _find_clear(keyset: Keyset, recipient: Recipient, item: Item, kept: Mapping[bytes, bytes]) -> Clear | None:
    """Open a token that was made for this recipient, or an envelope of the tag; None for anything else.

    `kept` is what the vault has sealed under those of its tokens that it knows.
    """
    if item.value.startswith(envelope.PREFIX):
        try:
            return Clear(*envelope.open_envelope(keyset, recipient.tenant, item.tag, item.value))
        except TokenRefused:
            return None
    if not looks_like_token(item.value):
        return None
    number = find_token(item.value)
    for scope in TokenScope:
        binding = find_binding(recipient, item.tag, scope)
        if binding is None:
            continue
        try:
            if number is not None:
                return Clear(*open_sealed(keyset, binding, number, kept.get(number, b"")))
            return Clear(*open_token(keyset, binding, item.value))
        except TokenRefused:
            continue
    return None
