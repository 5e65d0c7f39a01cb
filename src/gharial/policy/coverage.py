"""Which combinations of who, purpose, country and tag a policy's own tests touch, and which they do not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gharial.policy.case_syntax import PolicyCase
from gharial.policy.cases import CaseProblem, body_of_case
from gharial.policy.document import Policy
from gharial.policy.facts import ExchangeFacts
from gharial.policy.grants import Grant
from gharial.policy.places import find_tags
from gharial.policy.samples import caller_of
from gharial.policy.who import Who, holds

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
    """All combinations that rules tell apart. `purpose` "-" is none, or one that no rule about the row's tags names.

    `country` is a country or group that such a rule names, "elsewhere", "unknown", or "any" where none of them asks.
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
    """Return what the policy's tests touch. A test touches the tags of the values that it wants something of.

    For each who and tag there are as many cells as the rules that speak of them can tell apart: purposes and countries
    that no such rule asks for make no difference, and one test is as good as another.
    """
    # A test is about an answer.
    tags = [tag.name for tag in policy.tags.values() if tag.response]
    axes = {(who.name, tag): _axes(policy, who, tag) for who in policy.who.values() for tag in tags}
    cells: dict[tuple[str, str, str], list[str]] = {}
    for (who, tag), axis in axes.items():
        for purpose in (*axis.purposes, NO_PURPOSE):
            for country in (*axis.countries, ELSEWHERE, UNKNOWN) if axis.countries else (ANYWHERE,):
                cells.setdefault((who, purpose, country), []).append(tag)
    seen = {cell for case in policy.tests for cell in _touched(policy, case, axes)}
    rows = []
    for (who, purpose, country), tags in cells.items():
        touched = tuple(tag for tag in tags if (who, purpose, country, tag) in seen)
        rows.append(Row(who, purpose, country, touched, tuple(tag for tag in tags if tag not in touched)))
    return Coverage(tuple(rows))


@dataclass(frozen=True, slots=True)
class _Axes:
    """What the rules about one tag ask of one who: purposes, and countries or groups of them with their members."""

    purposes: tuple[str, ...]
    countries: Mapping[str, frozenset[str]]


def _axes(policy: Policy, who: Who, tag: str) -> _Axes:
    grants = [grant for grant in policy.grants if tag in grant.shown and _may_have(policy, who, grant)]
    guardrails = [
        guardrail for guardrail in policy.never if tag in guardrail.tags | guardrail.probe_tags | guardrail.token_tags
    ]
    purposes = {p for grant in grants for p in grant.purposes or ()}
    purposes |= {p for guardrail in guardrails for p in guardrail.purposes or ()}
    conditions = [
        *who.conditions,
        *(condition for grant in grants for condition in grant.needs.exchange),
        *(c for guardrail in guardrails for c in (*guardrail.when.exchange, *guardrail.unless.exchange)),
    ]
    named = sorted({str(text) for c in conditions if c.fact == "country" for text in c.written or c.values})
    return _Axes(tuple(sorted(purposes)), {n: policy.countries.get(n, frozenset([n])) for n in named})


def _may_have(policy: Policy, who: Who, grant: Grant) -> bool:
    """True if the grant is for this who, or for everyone."""
    to = (policy.who[name] for name in grant.to)
    return any(one.name == who.name or not (one.conditions or one.expressions) for one in to)


def _touched(
    policy: Policy, case: PolicyCase, axes: Mapping[tuple[str, str], _Axes]
) -> Iterator[tuple[str, str, str, str]]:
    try:
        body = body_of_case(policy, case)
    except CaseProblem:
        return
    for tag in {tag for want in case.want for tag in find_tags(policy, body.find_place(want.path))}:
        for who in _who(policy, case):
            axis = axes[who, tag]
            purpose = case.purpose if case.purpose in axis.purposes else NO_PURPOSE
            for country in _countries(case, axis):
                yield who, purpose, country, tag


def _countries(case: PolicyCase, axis: _Axes) -> list[str]:
    if not axis.countries:
        return [ANYWHERE]
    inside = [name for name, members in axis.countries.items() if case.country in members]
    return inside or [UNKNOWN if not case.country else ELSEWHERE]


def _who(policy: Policy, case: PolicyCase) -> list[str]:
    """Who the caller of a test is: the name that it says; of facts, every name they fit, else those of everyone."""
    if case.as_who:
        return [case.as_who]
    facts = ExchangeFacts(*caller_of({name: values for name, values in case.as_facts if values}))
    fitting = [who for who in policy.who.values() if not who.expressions and holds(who, facts)]
    named = [who.name for who in fitting if who.conditions]
    return named or [who.name for who in fitting]
