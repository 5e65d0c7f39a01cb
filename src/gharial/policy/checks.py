"""What a policy's text alone does not show: grants and tags that contradict each other for some caller, and routes.

A policy with one of these problems never becomes active: publishing asks for all callers that could ever come, where
`compile` sees one class of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import chain, combinations

from gharial.model.errors import PolicyInvalid, Problem
from gharial.policy.automaton import Automaton, Positions
from gharial.policy.compile import compile_plan
from gharial.policy.conditions import Condition, exclude_each_other
from gharial.policy.document import Policy
from gharial.policy.extras import find_same_places
from gharial.policy.grants import Grant
from gharial.policy.layout import MAX_NODES, overlap_problem, overlap_text
from gharial.policy.suggest import did_you_mean
from gharial.policy.technique import REDACT, Technique, compare
from gharial.policy.verdict import Undecided, technique_of, undecided_problem


def check_policy(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return every contradiction; `routes` maps the policy's routes to their path parameters.

    Without routes, as when a policy is checked by itself, `path:` parameters are not looked at.
    """
    problems = {
        *_unsupported(policy),
        *_unknown_params(policy, routes),
        *_clashing_grants(policy),
        *_clashing_tags(policy, routes),
    }
    if not problems:
        # Sizes: the automaton and the limits do not depend on who asks, except for the number of variants.
        for route, params in sorted(routes.items() or {"": ()}.items()):
            try:
                compile_plan(policy, route, params, ())
            except PolicyInvalid as error:
                problems.update(error.problems)
    return sorted(problems)


PROBE_GUARD = False
"""Whether this version refuses requests that filter or sort by what their caller may not see."""


def _unsupported(policy: Policy) -> Iterable[Problem]:
    """What can be written and compiled, and not yet be carried out."""
    for guardrail in policy.never:
        if not PROBE_GUARD and guardrail.probe_tags:
            what = f"'filter_or_sort_by' of '{guardrail.name}' is not supported by this version"
            yield Problem(policy.file, guardrail.line, guardrail.column, what)


def _unknown_params(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterable[Problem]:
    known = sorted(set(chain.from_iterable(routes.values())))
    for tag in policy.tags.values():
        for name in tag.params:
            if routes and name not in known:
                what = f"the tag '{tag.name}' finds path:{name}, but no route of this policy has a parameter "
                yield Problem(policy.file, tag.line, tag.column, what + did_you_mean(name, known))


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


def _clashing_grants(policy: Policy) -> Iterable[Problem]:
    """Each pair of grants that one caller may have, and of which it can't be told which is more open for a tag."""
    for tag in sorted(policy.tags):
        by_technique: dict[Technique, list[Grant]] = {}
        for grant in policy.grants:
            for technique in techniques_of(grant, tag):
                by_technique.setdefault(technique, []).append(grant)
        for one, other in combinations(sorted(by_technique, key=str), 2):
            if compare(one, other) is not None:
                continue
            pair = _find_together(policy, by_technique[one], by_technique[other])
            if pair:
                yield undecided_problem(policy, tag, Undecided(*pair, one, other))


def _find_together(policy: Policy, some: list[Grant], others: list[Grant]) -> tuple[Grant, Grant] | None:
    """The first two different grants that one caller may have at the same time."""
    return next(((a, b) for a in some for b in others if a is not b and may_meet(policy, a, b)), None)


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


def _clashing_tags(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterable[Problem]:
    """Each pair of tags that name one place, and of which it can't be told which is shown more strictly."""
    for first, second in sorted(_overlaps(policy, routes)):
        one, other = policy.tags[first], policy.tags[second]
        if one.subject and other.subject and one.subject != other.subject:
            yield overlap_problem(policy, first, second, "name people of different id spaces")
        if one.fact and other.fact and one.fact != other.fact:
            yield overlap_problem(policy, first, second, "tell different facts of a person")
        for left, right in sorted(((a, b) for a in _ways(policy, first) for b in _ways(policy, second)), key=str):
            if compare(left[1], right[1]) is None and _together(policy, left[0], right[0]):
                yield overlap_problem(policy, first, second, overlap_text(left[1], right[1]))
                break


def _ways(policy: Policy, tag: str) -> set[tuple[str, Technique]]:
    """(grant, technique) pairs in which a tag may be shown; the grant "" for redact by default."""
    return {("", REDACT)} | {(grant.name, t) for grant in policy.grants for t in techniques_of(grant, tag)}


def _together(policy: Policy, first: str, second: str) -> bool:
    if not first or not second or first == second:
        return True
    return may_meet(policy, policy.get_grant(first), policy.get_grant(second))


def _overlaps(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> set[tuple[str, str]]:
    """Pairs of tags, in the order of their names, that find one and the same value."""
    found: set[frozenset[str]] = set()
    for name in set(chain.from_iterable(routes.values())):
        found.add(frozenset(tag.name for tag in policy.tags.values() if name in tag.params))
    automaton = Automaton.of((tag.name, path) for tag in policy.tags.values() for path in tag.body_paths)
    start = automaton.start()
    found.add(start.found)
    seen: set[Positions] = {start.positions}
    queue = deque(seen)
    while queue and len(seen) <= MAX_NODES:
        moves = automaton.moves(queue.popleft())
        for move in (*moves.names.values(), *moves.indexes.values(), moves.other_name, moves.other_index):
            found.add(move.found)
            if move.positions not in seen:
                seen.add(move.positions)
                queue.append(move.positions)
    return {pair for tags in found for pair in combinations(sorted(tags), 2)} | find_same_places(policy.tags.values())
