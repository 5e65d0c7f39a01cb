"""Kinds of people on whom plans depend: facts about a person, and budgets that are crossed, as variants of plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gharial.model.plan import Condition, Plan
from gharial.policy.classes import conditions_of, country_groups
from gharial.policy.conditions import CONSENT, GROUP
from gharial.policy.countries import COUNTRIES
from gharial.policy.document import Policy
from gharial.policy.facts import Value
from gharial.policy.samples import Axis, Facts, Question, Sample, combine, make_axis

MAX_KINDS = 2_000
BudgetKey = tuple[str, int]
"""(grant, window in seconds)."""


@dataclass(frozen=True, slots=True)
class Person:
    """One kind of people: facts, and the budgets that are crossed. `picks` say it in the words of `People.axes`."""

    facts: Facts
    crossed: frozenset[BudgetKey]
    picks: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class People:
    """All kinds of people that some plans, together, tell apart, the plainest first."""

    axes: tuple[Axis, ...]
    kinds: tuple[Person, ...]


@dataclass(frozen=True, slots=True)
class Words:
    """How policies speak of people: the texts that they name per fact, and groups of countries."""

    texts: Mapping[str, tuple[Value, ...]]
    countries: Mapping[str, frozenset[str]]


def words_of(policies: Sequence[Policy]) -> Words:
    """Return the words of policies."""
    texts: dict[str, dict[Value, None]] = {}
    for policy in policies:
        for conditions in conditions_of(policy):
            for condition in conditions.person:
                texts.setdefault(condition.fact, {}).update(dict.fromkeys(condition.written or condition.values))
    return Words({fact: tuple(found) for fact, found in texts.items()}, country_groups(policies))


def find_people(plans: Sequence[Plan], words: Words) -> People:
    """Return the kinds of people that the plans, together, tell apart."""
    budgets = sorted({(b.grant, b.window_s) for plan in plans for b in plan.budgets})
    asked: dict[str, dict[Condition, None]] = {}
    for plan in plans:
        for condition in plan.conditions:
            asked.setdefault(condition.fact, {})[condition] = None
    axes = [_axis(fact, list(conditions), words) for fact, conditions in sorted(asked.items())]
    crossings = _crossings(budgets)
    found = [
        Person(combination.facts, crossed, (*combination.picks, *([n] if budgets else [])))
        for combination in combine(axes, MAX_KINDS)[0]
        for n, (crossed, _) in enumerate(crossings)
    ]
    if budgets:
        axes.append(Axis("", tuple(Sample((n,), label, n) for n, (_, label) in enumerate(crossings))))
    return People(tuple(axes), tuple(found))


def variants_of(plan: Plan, people: People) -> tuple[int, ...]:
    """Return the variant in which a plan treats each kind of people."""
    table = _variants(plan)
    held: dict[int, frozenset[int]] = {}
    found = []
    for person in people.kinds:
        holds = held.get(id(person.facts))
        if holds is None:
            holds = held[id(person.facts)] = holding(plan, person.facts)
        crossed = frozenset(n for n, b in enumerate(plan.budgets) if (b.grant, b.window_s) in person.crossed)
        found.append(table[crossed, holds])
    return tuple(found)


def holding(plan: Plan, facts: Facts) -> frozenset[int]:
    """Return the conditions of a plan that hold for a person with these facts (residency, consent, group, …)."""
    return frozenset(n for n, condition in enumerate(plan.conditions) if condition_holds(condition, facts))


def condition_holds(condition: Condition, facts: Facts) -> bool:
    """Return whether a plan's condition holds for one person; "group" is how many people of the answer look the same.

    `gate.persons.find_holds` is what decides about bodies; this says the same of a person whose facts are given.
    """
    values = [str(value).strip() for value in facts.get(condition.fact, ()) if str(value).strip()]
    if condition.fact == GROUP:
        return bool(values) and int(values[0]) >= condition.people
    if not values:
        return condition.if_missing
    wanted = {text.casefold() for text in condition.values}
    if condition.fact == CONSENT:
        # Consents add up; of a fact that is told twice all or any must fit, see Condition.
        return any(text.casefold() in wanted for text in values) is not condition.negated
    countries = bool(condition.values) and all(text in COUNTRIES for text in condition.values)
    met = [
        condition.if_missing
        if countries and text.upper() not in COUNTRIES
        else (text.casefold() in wanted) is not condition.negated
        for text in values
    ]
    return any(met) if condition.if_missing else all(met)


def find_variant(plan: Plan, facts: Facts, crossed: frozenset[int] = frozenset()) -> int:
    """Return the variant for a person with these facts, budgets `crossed` (indexes of `plan.budgets`)."""
    return _variants(plan)[crossed, holding(plan, facts)]


def _variants(plan: Plan) -> Mapping[tuple[frozenset[int], frozenset[int]], int]:
    return {(frozenset(v.crossed), frozenset(v.holds)): n for n, v in enumerate(plan.variants)}


def _axis(fact: str, conditions: Sequence[Condition], words: Words) -> Axis:
    if fact == GROUP:
        sizes = sorted({condition.people for condition in conditions})
        samples = [Sample((), "of few", 0), *(Sample((size,), f"of {size} alike", 1) for size in sizes)]
        return Axis(fact, tuple(samples))
    questions = [
        Question(fact, words.texts.get(fact, ()), lambda facts, c=condition: condition_holds(c, facts))  # type: ignore[misc]
        for condition in conditions
    ]
    return make_axis(fact, questions, words.countries)


def _crossings(budgets: Sequence[BudgetKey]) -> list[tuple[frozenset[BudgetKey], str]]:
    found = [(frozenset[BudgetKey](), "within budget")]
    found += [(frozenset([b]), f"beyond the budget of {b[0]} per {window_text(b[1])}") for b in budgets]
    return [*found, (frozenset(budgets), "beyond all budgets")] if len(budgets) > 1 else found


def window_text(window_s: int) -> str:
    """Return a window as people write it: "1h", "30d"."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if window_s % size == 0:
            return f"{window_s // size}{unit}"
    return f"{window_s}s"
