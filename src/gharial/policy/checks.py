"""What a policy's text alone does not show: grants and tags that contradict each other for some caller, and routes.

A policy with one of these problems never becomes active: publishing asks for all callers that could ever come, where
`compile` sees one class of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain, combinations

from gharial.model.errors import PolicyInvalid, Problem
from gharial.policy.automaton import Automaton, Positions
from gharial.policy.compile import compile_plan, fields_of
from gharial.policy.conditions import Condition, exclude_each_other
from gharial.policy.document import Policy
from gharial.policy.extras import find_same_places
from gharial.policy.grants import Grant
from gharial.policy.layout import MAX_NODES, overlap_problem, overlap_text
from gharial.policy.sent import find_contradictions
from gharial.policy.suggest import did_you_mean
from gharial.policy.tags import Tag
from gharial.policy.technique import Technique, compare
from gharial.policy.verdict import Undecided, technique_of, undecided_problem

MAX_COMPARISONS = 1_000_000
"""Pairs of techniques, grants and tags that are compared with one another; about three seconds of work."""


def check_policy(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return every contradiction; `routes` maps the policy's routes to their path parameters.

    Without routes, as when a policy is checked by itself, `path:` parameters are not looked at.
    """
    problems = {
        *_unknown_params(policy, routes),
        *_two_spaces(policy),
        *_both_ways(policy),
        *_clashes(policy, routes),
    }
    if not problems:
        # Sizes: the automaton and the limits do not depend on who asks, except for the number of variants.
        for route, params in sorted(routes.items() or {"": ()}.items()):
            try:
                compile_plan(policy, route, params, ())
            except PolicyInvalid as error:
                problems.update(error.problems)
    return sorted(problems)


def _unknown_params(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterable[Problem]:
    known = sorted(set(chain.from_iterable(routes.values())))
    for tag in policy.tags.values():
        for name in tag.params:
            if routes and name not in known:
                what = f"the tag '{tag.name}' finds path:{name}, but no route of this policy has a parameter "
                yield Problem(policy.file, tag.line, tag.column, what + did_you_mean(name, known))


def _two_spaces(policy: Policy) -> Iterable[Problem]:
    """Each pair of tags of one part of a request that would name people of different id spaces."""
    for own in fields_of(policy.tags.values()).values():
        named = [policy.tags[name] for name in sorted(own) if policy.tags[name].subject]
        for one, other in combinations(named, 2):
            if one.subject != other.subject:
                yield overlap_problem(policy, one.name, other.name, "name people of different id spaces")


def _both_ways(policy: Policy) -> Iterable[Problem]:
    """What is both protected on its way to the API and opened there."""
    if not any(tag.request for tag in policy.tags.values()):
        return ()
    tags = policy.tags.values()
    finds = ((tag.name, path) for tag in tags for path in (tag.sent_paths or tag.body_paths))
    return find_contradictions(policy, {*_found_together(Automaton.of(finds)), *fields_of(tags).values()})


def techniques_of(grant: Grant, tag: str) -> set[Technique]:
    """All ways in which a grant may show a tag, whatever budgets are crossed."""
    if tag not in grant.shown:
        return set()
    indexes = range(len(grant.budgets))
    found = {technique_of(grant, grant.shown[tag], (index,)) for index in indexes} | {grant.shown[tag]}
    # Several crossed at once: the joins of what each alone gives, of which there are few.
    while more := {technique_of(grant, shown, (index,)) for shown in found for index in indexes} - found:
        found |= more
    return found


class _TooMuch(Exception):
    """More comparisons than a policy of sensible size needs."""


@dataclass(slots=True)
class _Ways:
    """In which ways each tag may be shown, and by which grants; counts the comparisons made with it."""

    policy: Policy
    of: Mapping[str, Mapping[Technique, list[Grant]]]
    left: int = MAX_COMPARISONS
    _orders: dict[tuple[Technique, Technique], int | None] = field(default_factory=dict)

    @classmethod
    def of_policy(cls, policy: Policy) -> _Ways:
        found: dict[str, dict[Technique, list[Grant]]] = {tag: {} for tag in sorted(policy.tags)}
        for grant in policy.grants:
            for tag in grant.shown:
                for technique in techniques_of(grant, tag):
                    found[tag].setdefault(technique, []).append(grant)
        return cls(policy, found)

    def clashes(self, first: str, second: str) -> Iterator[tuple[Technique, Technique]]:
        """Ways to show two tags that can't be ordered, in the order of their texts."""
        for one in sorted(self.of[first], key=str):
            for other in sorted(self.of[second], key=str):
                self.spend()
                pair = (one, other)
                if pair not in self._orders:
                    self._orders[pair] = compare(one, other)
                if self._orders[pair] is None:
                    yield pair

    def find_together(self, some: list[Grant], others: list[Grant], *, same: bool) -> tuple[Grant, Grant] | None:
        """The first two grants that one caller may have at the same time; with `same`, also one and the same."""
        for a in some:
            for b in others:
                self.spend()
                if (same and a is b) or (a is not b and may_meet(self.policy, a, b)):
                    return a, b
        return None

    def spend(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise _TooMuch


def _clashes(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterator[Problem]:
    ways = _Ways.of_policy(policy)
    try:
        yield from _clashing_grants(policy, ways)
        yield from _clashing_tags(policy, routes, ways)
    except _TooMuch:
        rules: list[Tag | Grant] = [*policy.grants, *policy.tags.values()]
        line, column = min((rule.line, rule.column) for rule in rules)
        what = "there are too many grants and tags to compare with one another: more than "
        yield Problem(policy.file, line, column, f"{what}{MAX_COMPARISONS:,} pairs; write fewer, or fewer of one place")


def _clashing_grants(policy: Policy, ways: _Ways) -> Iterator[Problem]:
    """Each pair of grants that one caller may have, and of which it can't be told which is more open for a tag."""
    for tag, shown in ways.of.items():
        for one, other in ways.clashes(tag, tag):
            if str(one) > str(other):
                continue
            pair = ways.find_together(shown[one], shown[other], same=False)
            if pair:
                yield undecided_problem(policy, tag, Undecided(*pair, one, other))


def may_meet(policy: Policy, a: Grant, b: Grant) -> bool:
    """True if one caller may have both grants for one exchange, as far as can be told."""
    return any(
        not exclude_each_other((*policy.who[x].conditions, *_own(a)), (*policy.who[y].conditions, *_own(b)))
        for x in a.to
        for y in b.to
    )


def _own(grant: Grant) -> tuple[Condition, ...]:
    purposes = () if grant.purposes is None else (Condition("purpose", grant.purposes),)
    return (*grant.needs.exchange, *purposes)


def _clashing_tags(policy: Policy, routes: Mapping[str, tuple[str, ...]], ways: _Ways) -> Iterator[Problem]:
    """Each pair of tags that name one place, and of which it can't be told which is shown more strictly."""
    for first, second in sorted(_overlaps(policy, routes, ways)):
        one, other = policy.tags[first], policy.tags[second]
        if one.subject and other.subject and one.subject != other.subject:
            yield overlap_problem(policy, first, second, "name people of different id spaces")
        if one.fact and other.fact and one.fact != other.fact:
            yield overlap_problem(policy, first, second, "tell different facts of a person")
        # What no grant shows is redacted, which can be compared with everything.
        for left, right in ways.clashes(first, second):
            if ways.find_together(ways.of[first][left], ways.of[second][right], same=True):
                yield overlap_problem(policy, first, second, overlap_text(left, right))
                break


def _overlaps(policy: Policy, routes: Mapping[str, tuple[str, ...]], ways: _Ways) -> set[tuple[str, str]]:
    """Pairs of tags, in the order of their names, that find one and the same value."""
    found: set[frozenset[str]] = set()
    for name in set(chain.from_iterable(routes.values())):
        found.add(frozenset(tag.name for tag in policy.tags.values() if name in tag.params))
    tags = policy.tags.values()
    found |= _found_together(Automaton.of((tag.name, path) for tag in tags for path in tag.body_paths))
    found |= _found_together(Automaton.of_xml((tag.name, path) for tag in tags for path in tag.xml_paths))
    pairs = find_same_places(policy.tags.values())
    for together in found:
        for pair in combinations(sorted(together), 2):
            ways.spend()
            pairs.add(pair)
    return pairs


def _found_together(automaton: Automaton) -> set[frozenset[str]]:
    """Return the tags of each place that paths find."""
    start = automaton.start()
    found = {start.found}
    seen: set[Positions] = {start.positions}
    queue = deque(seen)
    while queue and len(seen) <= MAX_NODES:
        moves = automaton.moves(queue.popleft())
        for move in (*moves.names.values(), *moves.indexes.values(), moves.other_name, moves.other_index):
            found.add(move.found)
            if move.positions not in seen:
                seen.add(move.positions)
                queue.append(move.positions)
    return found
