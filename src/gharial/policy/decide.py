"""Which grants apply to a caller, and what they say about one tag: the most open, for each set of crossed budgets.

Nothing granted is redact. A crossed budget turns what its grant shows into something at least as strict as `then`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

from gharial.model.caller import Caller
from gharial.model.errors import Problem
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.technique import CLEAR, REDACT, Technique, find_most_open, join
from gharial.policy.who import holds

DEFAULT_RULE = "default"
"""The rule of a step that no grant decided."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """How one value is shown in one variant, which rule says so, and the budgets that pay for it (indexes) if clear."""

    technique: Technique
    rule: str
    charges: frozenset[int] = frozenset()


class Undecided(Exception):
    """Two grants say things about one tag of which it can't be told which is more open."""

    def __init__(self, first: Grant, second: Grant, one: Technique, other: Technique) -> None:
        super().__init__(f"{one} and {other}")
        self.first, self.second, self.one, self.other = first, second, one, other


def matching_grants(policy: Policy, caller: Caller) -> tuple[str, ...]:
    """Return the sorted names of the grants that apply to this caller and its purpose: the caller's class."""
    known: dict[str, bool] = {}
    found = []
    for grant in policy.grants:
        if grant.purposes is not None and caller.purpose not in grant.purposes:
            continue
        for name in grant.to:
            if name not in known:
                known[name] = holds(policy.who[name], caller)
            if known[name]:
                found.append(grant.name)
                break
    return tuple(found)


def technique_of(grant: Grant, shown: Technique, crossed: Sequence[int]) -> Technique:
    """How a grant shows what it shows as `shown`, once its budgets `crossed` (indexes of `grant.budgets`) are."""
    return reduce(join, (grant.budgets[index].then for index in crossed), shown)


def decide_tag(
    tag: str, grants: Sequence[Grant], budgets: Mapping[tuple[str, int], int], crossed: frozenset[int]
) -> Verdict:
    """Return what applies to a single tag: the most open of what `grants` say, redact if they say nothing.

    `budgets` maps (grant, index of its budget) to the plan's index, and `crossed` holds the plan's. Raises Undecided.
    """
    says: list[tuple[Technique, Grant]] = []
    for grant in grants:
        if tag in grant.shown:
            own = [i for i in range(len(grant.budgets)) if budgets.get((grant.name, i)) in crossed]
            says.append((technique_of(grant, grant.shown[tag], own), grant))
    if not says:
        return Verdict(REDACT, DEFAULT_RULE)
    best = find_most_open(technique for technique, _ in says)
    if best is None:
        raise _undecided(says)
    deciding = sorted((grant for technique, grant in says if technique == best), key=lambda g: g.name)
    charges: frozenset[int] = frozenset()
    if best == CLEAR:
        charges = frozenset(budgets[grant.name, i] for grant in deciding for i in range(len(grant.budgets)))
    return Verdict(best, f"grant:{deciding[0].name}", charges)


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
