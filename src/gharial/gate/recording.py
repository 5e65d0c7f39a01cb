"""What `gharial record` keeps of an exchange: where values stand, their types and what was done; never a value.

An exchange hands over a `Sighting`, which holds the body, and goes on; the recorder's own thread makes a line of it.
Of a value only its first character is looked at, and whether a detector knows it. What could still be data:

* Names of members. One that the policy's paths name is told; of the rest only those that read like names, and none of
  an object with so many members that it is taken for a table whose keys are data (`gate.walk`).
* Facts about people. Countries are told, and the values that the policy's own conditions name; nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeGuard

import msgspec

from gharial.crypto.digest import person_digest
from gharial.crypto.keyset import Keyset
from gharial.gate.disclose import Disclosure
from gharial.gate.publish import Prepared
from gharial.gate.walk import Leaf, Walk, walk
from gharial.model.caller import Caller
from gharial.model.errors import MediaUnreadable
from gharial.model.finding import Limits, Scope
from gharial.model.names import is_ordinary_name
from gharial.model.place import fold_fact
from gharial.model.plan import NONE, Op, Plan, Step, Unlisted
from gharial.model.recording import (
    OTHER_VALUE,
    RECORDING_VERSION,
    Claim,
    RecordedCaller,
    RecordedExchange,
    RecordedParam,
    RecordedPlace,
    RecordedScope,
    Scalar,
    Shown,
)
from gharial.payload.detectors import DETECTORS
from gharial.payload.media import Format, Media
from gharial.payload.program import Program
from gharial.payload.rewrite import open_body, plain_text
from gharial.policy.countries import COUNTRIES
from gharial.policy.technique import Technique

Outcome = Literal["forward", "refuse", "shadow", "abandoned"]

_KEPT_PLANS = 256
_MAX_INTEGER = 2**63
_UNLISTED_RULE = "unlisted"
_NOBODY = RecordedScope()


@dataclass(frozen=True, slots=True)
class Sighting:
    """One exchange as the recorder needs it. It holds the body: it lives in memory, and briefly.

    `asked` are (`query:NAME`, text) of people whom the query names. `mode` is empty and `prepared` None where the
    exchange was refused before it was decided which plan applies.
    """

    exchange_id: str
    at_s: float
    policy: str
    mode: str
    route: str
    method: str
    outcome: Outcome
    error: str
    caller: Caller
    prepared: Prepared | None = field(repr=False)
    params: Mapping[str, str] = field(repr=False)
    reidentified: Mapping[str, int] = field(repr=False)
    asked: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    media: Media | None = None
    body: bytes = field(default=b"", repr=False)
    disclosure: Disclosure | None = field(default=None, repr=False)


class Recorder(Protocol):
    """Where exchanges are recorded while a recording runs."""

    def wants(self, route: str) -> bool:
        """Return whether exchanges of this route are recorded."""

    def take(self, sighting: Sighting) -> None:
        """Record an exchange some time soon, or count it as lost. Never raises, never waits."""


@dataclass(slots=True)
class RecordingSwitch:
    """The recorder of the recording that runs, or None: then an exchange does nothing for it."""

    recorder: Recorder | None = None


@dataclass(frozen=True, slots=True)
class _Ready:
    """A plan made ready: one whose pass one tells all facts, and the program by which leaves are walked."""

    plan: Plan
    program: Program


class Describer:
    """Makes lines of sightings. Its methods are for one thread."""

    def __init__(
        self,
        *,
        tenant: str,
        keyset: Keyset,
        limits: Limits,
        iso_time: Callable[[float], str],
    ) -> None:
        self._tenant = tenant
        self._keyset = keyset
        self._limits = limits
        self._iso_time = iso_time
        self._ready: OrderedDict[str, _Ready] = OrderedDict()

    def describe(self, seen: Sighting) -> RecordedExchange:
        """Return what is kept of an exchange. Raises the errors of the payload room."""
        plan = seen.prepared.plan if seen.prepared else None
        found = RecordedExchange(
            v=RECORDING_VERSION,
            time=self._iso_time(seen.at_s),
            at_s=seen.at_s,
            exchange=seen.exchange_id,
            policy=seen.policy,
            version=plan.version if plan else 0,
            mode=seen.mode,
            route=seen.route,
            method=seen.method,
            outcome=seen.outcome,
            error=seen.error,
            caller=_caller(seen.caller),
            grants=plan.grants if plan else (),
            guardrails=plan.guardrails if plan else (),
            plan=plan.digest if plan else "",
            budgets=tuple((b.grant, b.window_s, b.people) for b in plan.budgets) if plan else (),
            params=tuple(self._params(seen, plan)),
            reidentified=dict(seen.reidentified),
            detectors=tuple(sorted(DETECTORS)),
        )
        if seen.prepared is None or seen.disclosure is None or seen.media is None:
            return found
        return self._with_body(found, seen.prepared, seen.disclosure, seen.media, seen.body)

    def _params(self, seen: Sighting, plan: Plan | None) -> list[RecordedParam]:
        subjects = {param.key: param.subject for param in plan.params} if plan else {}
        return [
            RecordedParam(name, self._digest(subjects.get(name) or f"path:{name}", text), subjects.get(name, ""))
            for name, text in (*seen.params.items(), *seen.asked)
        ]

    def _digest(self, space: str, text: str) -> str:
        return person_digest(self._keyset, self._tenant, space, text)

    def _with_body(
        self, found: RecordedExchange, prepared: Prepared, disclosure: Disclosure, media: Media, body: bytes
    ) -> RecordedExchange:
        if media.format is not Format.JSON:
            raise MediaUnreadable("only exchanges in JSON are recorded")
        ready = self._make_ready(prepared.plan)
        plan = ready.plan
        plain = plain_text(media, body, self._limits)
        reader = open_body(plan, Media(media.format), plain, self._limits)
        scopes = reader.survey()
        seen = walk(ready.program, plain, json_levels=plan.json_in_strings, detectors=DETECTORS)
        variants = disclosure.reservation.variants
        matched = _match(seen, scopes, exact=not plan.needs_reference)
        if matched is not None and len(variants) != len(scopes):
            matched = None
        held: Mapping[str, int] | None = None
        if plan.needs_reference and len(variants) == len(scopes):
            written = reader.finish(variants, prepared.transforms, want_places=True)
            held = {finding.place: finding.step for finding in written.findings}
        shown: dict[Shown, int] = {}
        numbers: dict[int, int] = {}
        places = []
        for leaf in seen.leaves:
            how = _shown(plan, leaf, variants, matched)
            if held is not None:
                how = _held(plan, leaf, held, how)
            places.append(
                RecordedPlace(
                    leaf.where.safe,
                    leaf.type,
                    numbers.setdefault(leaf.scope, len(numbers)),
                    shown.setdefault(how, len(shown)),
                    leaf.detectors,
                )
            )
        recorded = [
            self._scope(plan, scopes, variants, matched.get(index), found.params) if matched is not None else _NOBODY
            for index in numbers
        ]
        if matched is not None:
            recorded = _with_charges(plan, seen, matched, variants, numbers, recorded)
        told = {fact for scope in recorded for fact in scope.facts}
        named = _named_values(plan)
        return msgspec.structs.replace(
            found,
            scopes=tuple(recorded),
            same=plan.same,
            subjects=tuple((at, leaf.subject) for at, leaf in enumerate(seen.leaves) if leaf.subject),
            facts=tuple(
                (at, plan.cells[leaf.cell].fact)
                for at, leaf in enumerate(seen.leaves)
                if leaf.cell != NONE and plan.cells[leaf.cell].fact
            ),
            consent=self._consent(disclosure),
            fact_values={fact: tuple(sorted(named.get(fact, ()))) for fact in sorted(told)},
            shown=tuple(shown),
            places=tuple(places),
            hidden={path: tuple(sorted(names)) for path, names in seen.hidden.items()},
            json_levels=plan.json_in_strings,
            cut=seen.cut,
            scopes_known=matched is not None,
        )

    def _make_ready(self, plan: Plan) -> _Ready:
        """Return the plan with every fact reported, whether or not this policy asks for it: another one may."""
        ready = self._ready.get(plan.digest)
        if ready is None:
            cells = tuple(msgspec.structs.replace(c, report=c.report or bool(c.fact)) for c in plan.cells)
            telling = msgspec.structs.replace(plan, cells=cells)
            # What only the reference executor can do is no matter of the trie, along which leaves are walked.
            plain = msgspec.structs.replace(
                plan, extras=(), json_in_strings=0, needs_reference="", unlisted=Unlisted.DROP
            )
            ready = self._ready[plan.digest] = _Ready(telling, Program(plain))
            if len(self._ready) > _KEPT_PLANS:
                self._ready.popitem(last=False)
        else:
            self._ready.move_to_end(plan.digest)
        return ready

    def _scope(
        self,
        plan: Plan,
        scopes: Sequence[Scope],
        variants: Sequence[int],
        at: int | None,
        params: Sequence[RecordedParam],
    ) -> RecordedScope:
        """Return what is kept of scope `at` of pass one; None for a record that no tag meets."""
        in_path = tuple(param.digest for param in params if param.subject)
        if at is None:
            return RecordedScope(in_path)
        named = _named_values(plan)
        facts: dict[str, dict[str, None]] = {}
        for cell, _, text in scopes[at].values:
            fact = plan.cells[cell].fact
            if fact and text.strip():
                facts.setdefault(fact, {})[_fact_value(text, named.get(fact, frozenset()))] = None
        crossed = (plan.budgets[index] for index in plan.variants[variants[at]].crossed)
        return RecordedScope(
            people=tuple(self._digest(space, text) for space, text in scopes[at].subjects) or in_path,
            facts={fact: tuple(values) for fact, values in facts.items()},
            crossed=tuple((budget.grant, budget.window_s) for budget in crossed),
        )

    def _consent(self, disclosure: Disclosure) -> dict[str, tuple[str, ...]] | None:
        if disclosure.consents is None:
            return None
        return {
            self._digest(*person): tuple(sorted({w if is_ordinary_name(w) else OTHER_VALUE for w in given}))
            for person, given in disclosure.consents.items()
            if given
        }


def _caller(caller: Caller) -> RecordedCaller:
    claims: dict[str, Claim] = {}
    for name, value in caller.claims.items():
        if isinstance(value, (tuple, list)):
            claims[name] = tuple(item for item in value if _is_scalar(item))
        elif _is_scalar(value):
            claims[name] = value
    return RecordedCaller(
        tenant=caller.tenant,
        client=caller.client,
        user=caller.user,
        team=caller.team,
        roles=caller.roles,
        purpose=caller.purpose,
        country=caller.country,
        network=caller.network,
        claims=claims,
    )


def _is_scalar(value: object) -> TypeGuard[Scalar]:
    if isinstance(value, int) and not isinstance(value, bool):
        return abs(value) < _MAX_INTEGER
    return value is None or isinstance(value, (str, float, bool))


def _with_charges(
    plan: Plan,
    seen: Walk,
    matched: Mapping[int, int],
    variants: Sequence[int],
    numbers: Mapping[int, int],
    recorded: Sequence[RecordedScope],
) -> list[RecordedScope]:
    """Return the scopes with the budgets that their leaves are charged to."""
    charged: dict[int, set[int]] = {}
    for leaf in seen.leaves:
        if leaf.cell != NONE and leaf.scope in matched and plan.cells[leaf.cell].charges:
            charged.setdefault(leaf.scope, set()).update(plan.cells[leaf.cell].charges[variants[matched[leaf.scope]]])
    return [
        msgspec.structs.replace(
            scope,
            charged=tuple((plan.budgets[b].grant, plan.budgets[b].window_s) for b in sorted(charged.get(index, ()))),
        )
        for index, scope in zip(numbers, recorded, strict=True)
    ]


def _match(seen: Walk, scopes: Sequence[Scope], *, exact: bool) -> dict[int, int] | None:
    """Return which scope of the walk is which of pass one, or None if they can't be told to be the same.

    Both number scopes in the order of the body, pass one only those that a cell meets.
    """
    met = [index for index, scope in enumerate(seen.scopes) if scope.cells]
    if len(met) > len(scopes) or (len(met) < len(scopes) and not seen.cut):
        return None
    for index, scope in zip(met, scopes, strict=False):
        own = seen.scopes[index]
        if own.named != bool(scope.subjects) or not own.cells <= scope.cells:
            return None
        if exact and not seen.cut and own.cells != scope.cells:
            return None
    return {index: at for at, index in enumerate(met)}


def _named_values(plan: Plan) -> dict[str, frozenset[str]]:
    """Return the values, folded, that the conditions name for each fact, but for countries, which are told anyway."""
    found: dict[str, frozenset[str]] = {}
    for condition in plan.conditions:
        values = frozenset(fold_fact(value) for value in condition.values if value not in COUNTRIES)
        found[condition.fact] = found.get(condition.fact, frozenset()) | values
    return found


def _fact_value(text: str, named: frozenset[str]) -> str:
    code = text.strip().upper()
    if code in COUNTRIES:
        return code
    folded = fold_fact(text)
    return folded if folded in named else OTHER_VALUE


def _shown(plan: Plan, leaf: Leaf, variants: Sequence[int], matched: Mapping[int, int] | None) -> Shown:
    """Return what was done with a leaf by its cell, or by one around it that was dropped for another record."""
    own = None
    if leaf.cell != NONE:
        own = _find_step(plan, leaf.cell, leaf.scope, variants, matched)
        if own is not None and own.op is Op.DROP:
            return _of_step(own)
    for cell, scope in leaf.containers:
        step = _find_step(plan, cell, scope, variants, matched)
        if step is None and any(plan.steps[s].op is Op.DROP for s in plan.cells[cell].steps):
            return Shown(plan.cells[cell].tag, "", "")
        if step is not None and step.op is Op.DROP:
            return _of_step(step)
    if leaf.cell == NONE:
        return _unlisted(plan)
    return _of_step(own) if own is not None else Shown(plan.cells[leaf.cell].tag, "", "")


def _find_step(
    plan: Plan, cell: int, scope: int, variants: Sequence[int], matched: Mapping[int, int] | None
) -> Step | None:
    """Return a cell's step in a scope of the walk; None if scopes can't be told and it depends on them."""
    steps = plan.cells[cell].steps
    if matched is not None:
        return plan.steps[steps[variants[matched[scope]]]]
    return plan.steps[steps[0]] if len(set(steps)) == 1 else None


def _held(plan: Plan, leaf: Leaf, held: Mapping[str, int], by_trie: Shown) -> Shown:
    """Return what the executor says that it did with a leaf, or with the nearest container around it.

    `by_trie` holds where it says nothing (an empty container), and where a container went that held a leaf which would
    have gone by itself.
    """
    if leaf.where.exact in held:
        return _of_step(plan.steps[held[leaf.where.exact]])
    where = leaf.where.around
    while where is not None:
        if where.exact in held:
            around = _of_step(plan.steps[held[where.exact]])
            return by_trie if by_trie.technique == around.technique else around
        where = where.around
    return by_trie if leaf.cell != NONE else _unlisted(plan)


def _unlisted(plan: Plan) -> Shown:
    # `pass` and, where no detector recognises anything, `detect` leave a value as it is.
    technique = {Unlisted.DROP: "drop", Unlisted.REDACT: "redact"}.get(plan.unlisted, "clear")
    return Shown("", technique, _UNLISTED_RULE)


def _of_step(step: Step) -> Shown:
    technique = Technique(step.op, tuple(pair for pair in step.args if pair[0] != "type"))
    return Shown(step.tag, str(technique), step.rule)
