"""Facts about the people in one answer: which of a plan's conditions hold for each scope, before anything is shown.

A missing fact never opens anything: a condition of a grant does not hold then, one of a guardrail does (`if_missing`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from gharial.gate.same import find_together
from gharial.model.finding import Kind, Scope, Transform
from gharial.model.place import fold_fact
from gharial.model.plan import Condition, Op, Plan
from gharial.policy.countries import COUNTRIES

CONSENT = "consent"
GROUP = "group"
_TELLS_NOTHING = (Op.TOKEN, Op.FPE, Op.ENCRYPT, Op.PSEUDONYM, Op.SUBSTITUTE, Op.REDACT, Op.NULL, Op.DROP)

Person = tuple[str, str]
"""Id space and text of a person, as the body or the path names it. The text is a value: it is kept nowhere."""


@dataclass(frozen=True, slots=True)
class Conditions:
    """The conditions of one plan, made ready: their values folded once."""

    plan: Plan
    values: tuple[frozenset[str], ...] = field(repr=False)
    countries: tuple[bool, ...] = field(repr=False)

    @property
    def ask_consent(self) -> bool:
        """True if people must be looked up at the consent resolver."""
        return any(condition.fact == CONSENT for condition in self.plan.conditions)


def conditions_of(plan: Plan) -> Conditions:
    """Return a plan's conditions, made ready."""
    return Conditions(
        plan,
        tuple(frozenset(map(fold_fact, condition.values)) for condition in plan.conditions),
        tuple(bool(c.values) and all(value in COUNTRIES for value in c.values) for c in plan.conditions),
    )


def unknown_holds(plan: Plan) -> frozenset[int]:
    """Return the conditions that hold for somebody of whom nothing is known."""
    return frozenset(index for index, condition in enumerate(plan.conditions) if condition.if_missing)


def find_variant(plan: Plan, holds: frozenset[int]) -> int:
    """Return the variant with exactly these conditions and no budget crossed. Raises ValueError if there is none."""
    for index, variant in enumerate(plan.variants):
        if not variant.crossed and frozenset(variant.holds) == holds:
            return index
    raise ValueError(f"the plan of route {plan.route} has no variant for its conditions")


def find_holds(
    conditions: Conditions,
    scopes: Sequence[Scope],
    people: Sequence[Sequence[Person]],
    consents: Mapping[Person, frozenset[str]],
    transforms: Sequence[Transform],
) -> tuple[frozenset[int], ...]:
    """Return, for each scope, the conditions that hold for all the people in it.

    `people[i]` are those of scope i (empty where nobody is named); facts told of a person in one scope count in all.
    """
    plan = conditions.plan
    if not plan.conditions:
        return (frozenset(),) * len(scopes)
    told = _facts_told(plan, scopes, people)
    together = find_together(plan.same, people) if plan.same else {}
    _tell_of_others(told, together)
    groups = {
        index: _groups(plan, index, scopes, people, together, transforms)
        for index, condition in enumerate(plan.conditions)
        if condition.fact == GROUP
    }
    found: list[frozenset[int]] = []
    for at, own in enumerate(people):
        holds = set()
        for index, condition in enumerate(plan.conditions):
            if condition.fact == GROUP:
                met = groups[index][at] >= condition.people
            elif condition.fact == CONSENT:
                met = _consent_holds(condition, conditions.values[index], own, consents)
            else:
                values = _values_of(condition.fact, at, own, told)
                met = _holds(condition, conditions.values[index], values, countries=conditions.countries[index])
            if met:
                holds.add(index)
        found.append(frozenset(holds))
    return tuple(found)


_Told = dict[tuple[str, Person | int], set[str]]


def _facts_told(plan: Plan, scopes: Sequence[Scope], people: Sequence[Sequence[Person]]) -> _Told:
    """Collect values by (fact, person), or by (fact, number of the scope) where a scope names nobody."""
    told: _Told = {}
    for at, (scope, own) in enumerate(zip(scopes, people, strict=True)):
        for cell, _, text in scope.values:
            fact = plan.cells[cell].fact
            if fact and text.strip():
                for owner in own or (at,):
                    told.setdefault((fact, owner), set()).add(text)
    return told


def _tell_of_others(told: _Told, together: Mapping[Person, Person]) -> None:
    """Let what is told of a person count for all who may be the same one; never in place of a fact that is missing.

    So it only makes stricter: an id that somebody forged beside his own must not lend him its facts.
    """
    of_all: dict[tuple[str, Person], set[str]] = {}
    joined = [(fact, owner, together[owner]) for fact, owner in told if isinstance(owner, tuple) and owner in together]
    for fact, owner, lead in joined:
        of_all.setdefault((fact, lead), set()).update(told[fact, owner])
    for fact, owner, lead in joined:
        told[fact, owner] = of_all[fact, lead]


def _values_of(fact: str, at: int, own: Sequence[Person], told: _Told) -> list[set[str]]:
    """Return the fact's values of each person of a scope; an empty set where it is missing."""
    return [told.get((fact, owner), set()) for owner in (own or (at,))]


def _holds(condition: Condition, wanted: frozenset[str], values: Sequence[set[str]], *, countries: bool) -> bool:
    """Judge one condition for all people of a scope: a grant's must hold for all of them, a guardrail's for any."""
    of_each = [_holds_for_one(condition, wanted, _usable(own, countries=countries)) for own in values]
    return any(of_each) if condition.if_missing else all(of_each)


def _usable(values: set[str], *, countries: bool) -> set[str]:
    """Return the values that can be judged; a text that is no country's code tells no country."""
    if not countries:
        return {fold_fact(value) for value in values}
    return {fold_fact(value) if value.strip().upper() in COUNTRIES else "" for value in values}


def _holds_for_one(condition: Condition, wanted: frozenset[str], values: set[str]) -> bool:
    # "" stands for a value that can't be judged: the same as none.
    judged = [condition.if_missing if not value else (value in wanted) is not condition.negated for value in values]
    if not judged:
        return condition.if_missing
    return any(judged) if condition.if_missing else all(judged)


def _consent_holds(
    condition: Condition, wanted: frozenset[str], own: Sequence[Person], consents: Mapping[Person, frozenset[str]]
) -> bool:
    """Judge consent: no answer means none. A person may have given several; one of those wanted is enough."""
    if not own:
        return condition.if_missing
    of_each = []
    for person in own:
        given = frozenset(map(fold_fact, consents.get(person, frozenset())))
        if not given:
            of_each.append(condition.if_missing)
        else:
            of_each.append(bool(given & wanted) is not condition.negated)
    return any(of_each) if condition.if_missing else all(of_each)


def _groups(
    plan: Plan,
    index: int,
    scopes: Sequence[Scope],
    people: Sequence[Sequence[Person]],
    together: Mapping[Person, Person],
    transforms: Sequence[Transform],
) -> list[int]:
    """Return for each scope how many different people of this answer show the same results as it does.

    Those who may be the same person (`together`) are one: a crowd is never larger for it.
    """
    shown = {cell: _telling(plan, index, cell, transforms) for cell in plan.conditions[index].cells}
    keys: list[tuple[object, ...]] = []
    members: dict[tuple[object, ...], set[object]] = {}
    for scope, own in zip(scopes, people, strict=True):
        key = tuple(
            (cell, *(run(kind, text) for run in shown.get(cell, ())))
            for cell, kind, text in scope.values
            if cell in shown
        )
        keys.append(key)
        # Records that name nobody can't be told apart from one another: together they count as one.
        members.setdefault(key, set()).update([together.get(person, person) for person in own] or ("",))
    return [len(members[key]) for key in keys]


def _telling(plan: Plan, index: int, cell: int, transforms: Sequence[Transform]) -> tuple[Transform, ...]:
    """Return all ways in which a cell tells something where a group condition holds.

    In whichever variant a record ends, people of a group look alike then: one variant alone could be one in which the
    grant lacks something else and everybody is redacted, which would count as alike.
    """
    steps = plan.cells[cell].steps
    found = {steps[at] for at, variant in enumerate(plan.variants) if index in variant.holds}
    return tuple(
        # A shifted date is as fine as the date, whoever it belongs to.
        _as_it_is if plan.steps[step].op is Op.DATE_SHIFT else transforms[step]
        for step in sorted(found)
        if plan.steps[step].op not in _TELLS_NOTHING
    )


def _as_it_is(kind: Kind, text: str) -> tuple[Kind, str]:
    return kind, text
