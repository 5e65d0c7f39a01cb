"""One body of one exchange: who is in it, what may be shown of them, and the rewritten bytes.

Every protocol runs this same function. Nothing leaves here before reservations and audit are durable: that is the
exchange's duty, with what this returns.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TypeVar

from gharial.crypto.digest import person_digest
from gharial.crypto.keyset import Keyset
from gharial.crypto.transform import transforms_by_scope, transforms_with_vault
from gharial.gate.persons import Person, find_holds
from gharial.gate.ports import Consent
from gharial.gate.publish import Prepared
from gharial.gate.same import join_ids
from gharial.gate.vault import ExchangeTokens
from gharial.model.errors import GateFull
from gharial.model.finding import Limits, Rewritten, Scope
from gharial.model.plan import Op, Plan, Unlisted
from gharial.payload.coding import undo_codings
from gharial.payload.media import Format, Media
from gharial.payload.rewrite import check_format, open_body
from gharial.watch.meter import BudgetBook, Reservation, ScopePeople, split_digests

THREAD_FROM_BYTES = 64 * 1024
"""Bodies of this size and more are worked on in a thread, so that one of them does not hold up all other calls."""

THREAD_SLOW_FROM_BYTES = 4 * 1024
"""The same where the work on a byte is far more: all but plain JSON under a plan that the fast reader runs."""

MAX_WAITING_BYTES = 48_000_000
"""How many bytes of such bodies may wait for it; beyond, the gate is full for large bodies."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Disclosure:
    """A rewritten body and what must be durable before it leaves.

    `people_told` are those of `people_clear` of whom more is clear than everybody may see, and what stands for records
    without a person where that is so; `strangers` are what stands for all such records, as an estimate counts them.
    `people_clear` and `people_protected` are digests, each person once (one who is named by ids of several spaces with
    all of them, joined by "+"); `unknown` counts records without a person.
    `consents` is what the resolver said, None where nobody was asked.
    """

    rewritten: Rewritten
    reservation: Reservation
    people_clear: tuple[str, ...]
    people_told: tuple[str, ...]
    people_protected: tuple[str, ...]
    unknown: int
    strangers: tuple[str, ...] = ()
    techniques: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    shows_clear: bool = True
    consents: Mapping[Person, frozenset[str]] | None = field(default=None, repr=False)


async def disclose(
    body: bytes,
    *,
    prepared: Prepared,
    media: Media,
    limits: Limits,
    keyset: Keyset,
    tenant: str,
    request_people: Sequence[tuple[str, str]],
    meter: BudgetBook,
    principal: str,
    ledger: str,
    exchange_id: str,
    now_s: Callable[[], float],
    consent: Consent,
    tokens: ExchangeTokens,
) -> Disclosure:
    """Rewrite `body` by the plan and reserve budgets for the people in it.

    `request_people` are (id space, text) of persons that the request's path or query names. `ledger` is the name under
    which the meter keeps the charges (the policy's). Those of `tokens` that the body shows are durable when this
    returns. Raises the errors of the payload room, and VaultUnavailable; the reservation of an exchange that is refused
    later stays, so that refusing can't be used to count fewer people than were at stake.
    """
    plan = prepared.plan
    check_format(plan, media.format)
    plain, uncoded = await _without_codings(body, media, limits)
    size = len(plain)
    from_bytes = _thread_from(plan, media)
    reader = await off_loop(lambda: open_body(plan, uncoded, plain, limits), size, from_bytes)
    scopes = await off_loop(reader.survey, size, from_bytes)
    holds: tuple[frozenset[int], ...] | None = None
    consents: Mapping[Person, frozenset[str]] | None = None
    if plan.conditions:
        named = [scope.subjects or tuple(request_people) for scope in scopes]
        consents = await _ask_consent(prepared, named, consent)
        given = consents or {}
        holds = await off_loop(
            lambda: find_holds(prepared.conditions, scopes, named, given, prepared.transforms), size, from_bytes
        )
    in_request = tuple(person_digest(keyset, tenant, *person) for person in request_people)

    def own_people() -> tuple[tuple[str, ...], ...]:
        own = tuple(tuple(person_digest(keyset, tenant, *person) for person in scope.subjects) for scope in scopes)
        return _join(plan, scopes, own, request_people, in_request) if plan.same else own

    own = await off_loop(own_people, size, from_bytes)
    people = _people_of(scopes, own, in_request, exchange_id, holds)
    # The time of the reservation, not of the request: the upstream or the consent resolver may have taken long.
    reservation = meter.reserve(principal, ledger, plan, people, now_s())
    transforms = transforms_with_vault(prepared.transforms, tokens)
    by_scope = transforms_by_scope(transforms, [_stands_for(scope.people) for scope in people])

    def finish() -> Rewritten:
        return reader.finish(reservation.variants, transforms, by_scope=by_scope)

    rewritten = await tokens.run(lambda: off_loop(finish, size, from_bytes))
    clear, protected, unknown = _split_people(plan, people, reservation.variants)
    told = _shown_people(plan, people, reservation.variants, prepared.open_tags)
    return Disclosure(
        rewritten=rewritten,
        reservation=reservation,
        people_clear=clear,
        people_told=_without_envelope(told),
        people_protected=protected,
        unknown=unknown,
        strangers=_without_envelope(dict.fromkeys(one for scope in people for one in scope.people), only_unknown=True),
        techniques=_techniques(plan, rewritten),
        shows_clear=_shows_clear(plan, rewritten),
        consents=consents,
    )


async def _ask_consent(
    prepared: Prepared, named: Sequence[Sequence[Person]], consent: Consent
) -> Mapping[Person, frozenset[str]] | None:
    """Return who consented to what; None: nobody had to be asked. In one batch, and only where it matters."""
    everybody = tuple(dict.fromkeys(person for own in named for person in own))
    return await consent.fetch(everybody) if prepared.conditions.ask_consent and everybody else None


async def _without_codings(body: bytes, media: Media, limits: Limits) -> tuple[bytes, Media]:
    """Return the body without its codings, and how it is read then. Raises as `undo_codings`.

    Never on the loop: how large it becomes is not known before, and all that follows goes by that size.
    """
    if not media.codings:
        return body, media
    undo = functools.partial(undo_codings, body, media.codings, limits)
    plain = await asyncio.get_running_loop().run_in_executor(_inflater, undo)
    return plain, replace(media, codings=())


def _thread_from(plan: Plan, media: Media) -> int:
    """Return from which size on a body of this kind is worked on beside the loop."""
    is_fast = media.format is Format.JSON and not plan.needs_reference
    return THREAD_FROM_BYTES if is_fast else THREAD_SLOW_FROM_BYTES


async def off_loop(work: Callable[[], _T], size: int, from_bytes: int = THREAD_FROM_BYTES) -> _T:
    """Run work on a body beside the event loop if the body is large: one at a time, and only so many bytes waiting.

    `size` is that of the body without codings. Raises GateFull beyond MAX_WAITING_BYTES. More threads would not be
    faster, but would take the interpreter from the loop, and with it from all other calls.
    """
    if size < from_bytes:
        return work()
    if _waiting.size + size > MAX_WAITING_BYTES and _waiting.size:
        raise GateFull
    _waiting.size += size
    try:
        return await asyncio.get_running_loop().run_in_executor(_worker, work)
    finally:
        _waiting.size -= size


class _Waiting:
    """Bytes of large bodies that wait for the worker or are worked on."""

    size = 0


_waiting = _Waiting()
_worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gharial-large-bodies")
# Its own, so that a small body, which most answers with a coding are, does not wait for all the work on a large one.
_inflater = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gharial-codings")


def _people_of(
    scopes: Sequence[Scope],
    own: Sequence[tuple[str, ...]],
    in_request: tuple[str, ...],
    exchange_id: str,
    holds: Sequence[frozenset[int]] | None,
) -> tuple[ScopePeople, ...]:
    return tuple(
        ScopePeople(
            own[index] or in_request or (f"{_UNKNOWN}{exchange_id}:{index}",),
            scope.cells,
            holds[index] if holds is not None else frozenset(),
        )
        for index, scope in enumerate(scopes)
    )


def _join(
    plan: Plan,
    scopes: Sequence[Scope],
    own: Sequence[tuple[str, ...]],
    request_people: Sequence[Person],
    in_request: tuple[str, ...],
) -> tuple[tuple[str, ...], ...]:
    """Return the people of each scope, those ids that are one person joined; `own` are the digests of its subjects."""
    named = [
        tuple((space, digest) for (space, _), digest in zip(scope.subjects, digests, strict=True))
        for scope, digests in zip(scopes, own, strict=True)
    ]
    # Whom the request names counts beside whoever is joined, where a value is shown of him alone.
    alone = any(scope.cells and not scope.subjects for scope in scopes)
    spaces = (space for space, _ in request_people)
    return join_ids(plan.same, named, zip(spaces, in_request, strict=True) if alone else ())


_UNKNOWN = "?"


def _stands_for(people: Sequence[str]) -> str:
    """Return what stands for the person of a record: of several, always the same one. "" for an unknown person."""
    # By single ids: whether they are joined hangs on the other records, and must not move anybody's dates.
    ids = (one for person in people for one in split_digests(person))
    return min((one for one in ids if not one.startswith(_UNKNOWN)), default="")


def _split_people(
    plan: Plan, scopes: Sequence[ScopePeople], variants: Sequence[int]
) -> tuple[tuple[str, ...], tuple[str, ...], int]:
    """Return the known people of whom a tagged value leaves clear, the other known ones, and how many are unknown."""
    clear = _shown_people(plan, scopes, variants)
    seen = dict.fromkeys(person for scope in scopes for person in scope.people)
    unknown = sum(person.startswith(_UNKNOWN) for person in seen)
    known = [person for person in seen if not person.startswith(_UNKNOWN)]
    return tuple(p for p in known if p in clear), tuple(p for p in known if p not in clear), unknown


def _shown_people(
    plan: Plan, scopes: Sequence[ScopePeople], variants: Sequence[int], without: frozenset[str] = frozenset()
) -> dict[str, None]:
    """Return the people, known or not, of whom a tagged value leaves clear; tags `without` do not count."""
    clear: dict[str, None] = {}
    steps, cells = plan.steps, plan.cells
    # Records of one kind are mostly met by the same cells: what these show is looked up once.
    shows: dict[tuple[frozenset[int], int], bool] = {}
    for scope, variant in zip(scopes, variants, strict=True):
        shown = shows.get((scope.cells, variant))
        if shown is None:
            shown = any(
                steps[cells[cell].steps[variant]].op is Op.CLEAR and cells[cell].tag not in without
                for cell in scope.cells
            )
            shows[scope.cells, variant] = shown
        if shown:
            clear.update(dict.fromkeys(scope.people))
    return clear


def _without_envelope(people: Mapping[str, None], *, only_unknown: bool = False) -> tuple[str, ...]:
    """Return people without a single unknown one among known ones: that is what holds the records, not a record."""
    unknown = [person for person in people if person.startswith(_UNKNOWN)]
    known = [person for person in people if not person.startswith(_UNKNOWN)]
    counted = [] if known and len(unknown) == 1 else unknown
    return tuple(counted) if only_unknown else (*known, *counted)


def _techniques(plan: Plan, rewritten: Rewritten) -> dict[str, dict[str, int]]:
    """Return how often each technique was applied, per tag."""
    found: dict[str, dict[str, int]] = {}
    for index, count in rewritten.counts.items():
        step = plan.steps[index]
        if count:
            ops = found.setdefault(step.tag, {})
            ops[step.op] = ops.get(step.op, 0) + count
    return found


def _shows_clear(plan: Plan, rewritten: Rewritten) -> bool:
    if rewritten.unlisted and plan.unlisted is Unlisted.PASS:
        return True
    return any(count and plan.steps[index].op is Op.CLEAR for index, count in rewritten.counts.items())
