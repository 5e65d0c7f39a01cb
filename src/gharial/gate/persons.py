"""Facts about the people in one answer: which of a plan's conditions hold for each scope, before anything is shown.

A missing fact never opens anything: a condition of a grant does not hold then, one of a guardrail does (`if_missing`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
    together = find_together(plan.same, people) if plan.same else {}
    groups = {
        index: _groups(plan, index, scopes, people, together, transforms)
        for index, condition in enumerate(plan.conditions)
        if condition.fact == GROUP
    }
    facts = {
        index: _judge_fact(conditions, index, scopes, people, together)
        for index, condition in enumerate(plan.conditions)
        if condition.fact not in (GROUP, CONSENT)
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
                met = facts[index][at]
            if met:
                holds.add(index)
        found.append(frozenset(holds))
    return tuple(found)


def _judge_fact(
    conditions: Conditions,
    index: int,
    scopes: Sequence[Scope],
    people: Sequence[Sequence[Person]],
    together: Mapping[Person, Person],
) -> list[bool]:
    """Say for each scope whether a condition on a fact holds for all the people in it.

    Each value is judged once, and so is each person: in proportion to the body, however often somebody is named in it.
    """
    condition = conditions.plan.conditions[index]
    told: dict[Person | int, bool] = {}
    for at, (scope, own) in enumerate(zip(scopes, people, strict=True)):
        judged = _judge_values(conditions, index, scope)
        # Where a scope names nobody, its values are those of the scope.
        for owner in (own or (at,)) if judged else ():
            told[owner] = _strictest(condition, (*judged, told.get(owner, judged[0])))
    _tell_of_others(condition, told, together)
    return [
        # What is missing satisfies no grant, and every guardrail.
        _strictest(condition, [told.get(owner, condition.if_missing) for owner in (own or (at,))])
        for at, own in enumerate(people)
    ]


def _judge_values(conditions: Conditions, index: int, scope: Scope) -> list[bool]:
    """Say what the values that a scope tells of a fact make of a condition: True, False, both, or nothing at all."""
    plan, condition = conditions.plan, conditions.plan.conditions[index]
    wanted, countries = conditions.values[index], conditions.countries[index]
    found: dict[bool, None] = {}
    for cell, _, text in scope.values:
        if plan.cells[cell].fact == condition.fact and text.strip():
            value = fold_fact(text) if not countries or text.strip().upper() in COUNTRIES else ""
            # A text that is no country's code tells no country, and what can't be judged is the same as none.
            found[(value in wanted) is not condition.negated if value else condition.if_missing] = None
    return list(found)


def _strictest(condition: Condition, judged: Iterable[bool]) -> bool:
    """Join what was judged, of values or of people: a grant's condition holds if all say so, a guardrail's if any."""
    return any(judged) if condition.if_missing else all(judged)


def _tell_of_others(condition: Condition, told: dict[Person | int, bool], together: Mapping[Person, Person]) -> None:
    """Let what is told of a person count for all who may be the same one; never in place of a fact that is missing.

    So it only makes stricter: an id that somebody forged beside his own must not lend him its facts.
    """
    of_all: dict[Person, bool] = {}
    joined = [(owner, together[owner]) for owner in told if isinstance(owner, tuple) and owner in together]
    for owner, lead in joined:
        of_all[lead] = _strictest(condition, (told[owner], of_all.get(lead, told[owner])))
    for owner, lead in joined:
        told[owner] = of_all[lead]


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
