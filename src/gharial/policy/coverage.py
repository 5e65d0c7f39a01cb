"""Which combinations of who, purpose, country and tag a policy's own tests touch, and which they do not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from gharial.policy.case_syntax import PolicyCase
from gharial.policy.cases import CaseProblem, body_of_case
from gharial.policy.classes import conditions_of
from gharial.policy.document import Policy
from gharial.policy.facts import ExchangeFacts
from gharial.policy.places import find_tags
from gharial.policy.samples import caller_of
from gharial.policy.who import holds

NO_PURPOSE = "-"
UNKNOWN, ELSEWHERE, ANYWHERE = "unknown", "elsewhere", "any"


@dataclass(frozen=True, slots=True)
class Row:
    """One combination of who, purpose and country, and which tags tests touch in it, and which they do not."""

    who: str
    purpose: str
    country: str
    touched: tuple[str, ...]
    untouched: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Coverage:
    """All combinations. `purpose` "-" is none; `country` is a country or group that the policy names, "elsewhere",
    "unknown", or "any" where the policy does not look at the caller's country.
    """

    rows: tuple[Row, ...]

    @property
    def cells(self) -> int:
        """How many cells there are."""
        return sum(len(row.touched) + len(row.untouched) for row in self.rows)

    @property
    def touched(self) -> int:
        """How many of them a test touches."""
        return sum(len(row.touched) for row in self.rows)

    @property
    def percent(self) -> float:
        """The share that is touched; 100 where there is nothing to touch."""
        return 100.0 * self.touched / self.cells if self.cells else 100.0


def cover(policy: Policy) -> Coverage:
    """Return what the policy's tests touch. A test touches the tags of the values that it wants something of."""
    purposes = {p for rule in policy.grants for p in rule.purposes or ()}
    purposes |= {p for rule in policy.never for p in rule.purposes or ()}
    countries = _countries(policy)
    seen: set[tuple[str, str, str, str]] = set()
    for case in policy.tests:
        seen |= _touched(policy, case, countries)
        purposes |= {case.purpose} - {""}
    rows = []
    for who in policy.who:
        for purpose in (*sorted(purposes), NO_PURPOSE):
            for country in (*countries, ELSEWHERE, UNKNOWN) if countries else (ANYWHERE,):
                touched = tuple(tag for tag in policy.tags if (who, purpose, country, tag) in seen)
                untouched = tuple(tag for tag in policy.tags if tag not in touched)
                rows.append(Row(who, purpose, country, touched, untouched))
    return Coverage(tuple(rows))


def _countries(policy: Policy) -> Mapping[str, frozenset[str]]:
    """The countries and groups that conditions on the caller's country name, with their members."""
    named = sorted(
        {
            str(text)
            for conditions in conditions_of(policy)
            for condition in conditions.exchange
            if condition.fact == "country"
            for text in condition.written or condition.values
        }
    )
    return {name: policy.countries.get(name, frozenset([name])) for name in named}


def _touched(
    policy: Policy, case: PolicyCase, countries: Mapping[str, frozenset[str]]
) -> set[tuple[str, str, str, str]]:
    try:
        body = body_of_case(policy, case)
    except CaseProblem:
        return set()
    tags = {tag for want in case.want for tag in find_tags(policy, body.find_place(want.path))}
    inside = [name for name, members in countries.items() if case.country in members]
    where = inside or [UNKNOWN if not case.country else ELSEWHERE] if countries else [ANYWHERE]
    purpose = case.purpose or NO_PURPOSE
    return {(who, purpose, country, tag) for who in _who(policy, case) for country in where for tag in tags}


def _who(policy: Policy, case: PolicyCase) -> list[str]:
    """Who the caller of a test is: the name that it says; of facts, every name they fit, else those of everyone."""
    if case.as_who:
        return [case.as_who]
    facts = ExchangeFacts(*caller_of({name: values for name, values in case.as_facts if values}))
    fitting = [who for who in policy.who.values() if not who.expressions and holds(who, facts)]
    named = [who.name for who in fitting if who.conditions]
    return named or [who.name for who in fitting]
