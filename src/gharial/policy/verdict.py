"""What grants and guardrails say about one tag in one variant: the most open grant, then the guardrails as a floor.

Nothing granted is redact. A crossed budget turns what its grant shows into something at least as strict as `then`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from gharial.model.errors import Problem
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.guardrails import Guardrail
from gharial.policy.technique import CLEAR, REDACT, Technique, find_most_open, join

DEFAULT_RULE = "default"
"""The rule of a step that no grant decided."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one value is shown in one variant, which rule says so, and the budgets that pay for it (indexes) if clear."""

    technique: Technique
    rule: str
    charges: frozenset[int] = frozenset()


Fate = tuple[Verdict, ...]
"""What holds for a value: one verdict per variant."""


@dataclass(frozen=True, slots=True)
class Floor:
    """The most open technique that guardrails still allow, and the guardrail that it is named after."""

    technique: Technique
    guardrail: str


class Undecided(Exception):
    """Two grants say things about one tag of which it can't be told which is more open."""

    def __init__(self, first: Grant, second: Grant, one: Technique, other: Technique) -> None:
        super().__init__(f"{one} and {other}")
        self.first, self.second, self.one, self.other = first, second, one, other


def technique_of(grant: Grant, shown: Technique, crossed: Sequence[int]) -> Technique:
    """How a grant shows what it shows as `shown`, once its budgets `crossed` (indexes of `grant.budgets`) are."""
    return reduce(join, (grant.budgets[index].then for index in crossed), shown)


def decide_tag(says: Sequence[tuple[Grant, Technique, frozenset[int]]]) -> Verdict:
    """Return the most open of what grants say of one tag, redact if they say nothing.

    `says` are (grant, technique, the plan's budgets of that grant). Raises Undecided.
    """
    if not says:
        return Verdict(REDACT, DEFAULT_RULE)
    best = find_most_open(technique for _, technique, _ in says)
    if best is None:
        raise _undecided([(technique, grant) for grant, technique, _ in says])
    deciding = sorted(((grant.name, charges) for grant, technique, charges in says if technique == best))
    charges = frozenset[int]().union(*(charges for _, charges in deciding)) if best == CLEAR else frozenset[int]()
    return Verdict(best, f"grant:{deciding[0][0]}", charges)


def floor_of(guardrails: Sequence[Guardrail]) -> Floor | None:
    """Return what these guardrails, which act on one tag, allow at most. None without guardrails."""
    asked = sorted((g.name, g.at_least) for g in guardrails if g.at_least is not None)
    return join_floors([Floor(technique, name) for name, technique in asked])


def join_floors(floors: Sequence[Floor]) -> Floor | None:
    """Return the floor that is at least as strict as each."""
    if not floors:
        return None
    technique = reduce(join, (floor.technique for floor in floors))
    named = sorted(floor.guardrail for floor in floors if floor.technique == technique)
    return Floor(technique, named[0] if named else min(floor.guardrail for floor in floors))


def raise_to(verdict: Verdict, floor: Floor | None) -> Verdict:
    """Return the verdict, or what the floor leaves of it. Charges vanish with clear."""
    if floor is None:
        return verdict
    technique = join(verdict.technique, floor.technique)
    if technique == verdict.technique:
        return verdict
    return Verdict(technique, f"never:{floor.guardrail}")


def undecided_problem(policy: Policy, tag: str, clash: Undecided) -> Problem:
    """The problem of two grants that contradict each other, at the one that is written later."""
    earlier, later = sorted(
        ((clash.first, clash.one), (clash.second, clash.other)), key=lambda pair: (pair[0].line, pair[0].column)
    )
    what = (
        f"'{tag}' is {earlier[1]} in the grant '{earlier[0].name}' and {later[1]} in '{later[0].name}'; of these it "
        "can't be told which is more open, and one caller may have both: choose one for both"
    )
    return Problem(policy.file, later[0].line, later[0].column, what)


def _undecided(says: Sequence[tuple[Technique, Grant]]) -> Undecided:
    """The first two of the most open ones that can't be compared."""
    open_ones = [(t, g) for t, g in says if not any(find_most_open([t, o]) == o != t for o, _ in says)]
    (one, first), (other, second) = next(
        (a, b) for n, a in enumerate(open_ones) for b in open_ones[n + 1 :] if find_most_open([a[0], b[0]]) is None
    )
    return Undecided(first, second, one, other)
