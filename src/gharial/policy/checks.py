"""What a policy's text alone does not show: grants and tags that contradict each other for some caller, and routes.

A policy with one of these problems never becomes active: publishing asks for all callers that could ever come, where
`compile` sees one class of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from itertools import chain, combinations

from gharial.model.errors import PolicyInvalid, Problem
from gharial.model.plan import Op
from gharial.policy.automaton import Automaton, Positions
from gharial.policy.compile import MAX_BUDGETS, MAX_NODES, compile_plan, overlap_problem, overlap_text
from gharial.policy.decide import Undecided, technique_of, undecided_problem
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.suggest import did_you_mean
from gharial.policy.technique import REDACT, Technique, compare
from gharial.policy.who import exclude_each_other


def check_policy(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> list[Problem]:
    """Return every contradiction; `routes` maps the policy's routes to their path parameters.

    Without routes, as when a policy is checked by itself, `path:` parameters are not looked at.
    """
    problems = {
        *_unknown_params(policy, routes),
        *_clashing_grants(policy),
        *_clashing_tags(policy, routes),
    }
    if not problems:
        # Sizes: the automaton and the limits do not depend on who asks, except for the number of budgets.
        for route, params in sorted(routes.items() or {"": ()}.items()):
            try:
                compile_plan(policy, route, params, ())
            except PolicyInvalid as error:
                problems.update(error.problems)
    return sorted(problems)


def find_warnings(policy: Policy) -> list[Problem]:
    """Return what is allowed and probably not meant."""
    found: list[Problem] = []
    has_subject = any(tag.subject for tag in policy.tags.values())
    for grant in policy.grants:
        if grant.budgets and not has_subject:
            what = f"the grant '{grant.name}' has a budget, but no tag has a subject: each record counts as one person"
            found.append(Problem(policy.file, grant.line, grant.column, what))
        found += [
            Problem(policy.file, grant.line, grant.column, f"'{grant.name}' reidentifies '{tag}', {why}")
            for tag in sorted(grant.reidentify)
            if (why := _useless_reidentify(policy, tag))
        ]
    return sorted([*found, *_many_budgets(policy)])


def _many_budgets(policy: Policy) -> Iterable[Problem]:
    """Grants that one caller may have together and that have too many budgets: such a caller is refused."""
    counted = [grant for grant in policy.grants if grant.budgets]
    for first in counted:
        together = [first]
        for grant in counted:
            if grant is not first and all(_may_meet(policy, grant, other) for other in together):
                together.append(grant)
        if sum(len(grant.budgets) for grant in together) > MAX_BUDGETS:
            names = ", ".join(sorted(grant.name for grant in together))
            what = f"a caller to whom all of {names} apply is refused: they have more than {MAX_BUDGETS} budgets"
            yield Problem(policy.file, first.line, first.column, what)
            return


def _useless_reidentify(policy: Policy, tag: str) -> str:
    if not policy.tags[tag].params:
        return "which has no 'path:' place: this version looks for tokens in path parameters only"
    techniques = chain.from_iterable(_effective(grant, tag) for grant in policy.grants)
    if not any(technique.op is Op.TOKEN for technique in techniques):
        return "which no grant shows as a token"
    return ""


def _unknown_params(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterable[Problem]:
    known = sorted(set(chain.from_iterable(routes.values())))
    for tag in policy.tags.values():
        for name in tag.params:
            if routes and name not in known:
                what = f"the tag '{tag.name}' finds path:{name}, but no route of this policy has a parameter "
                yield Problem(policy.file, tag.line, tag.column, what + did_you_mean(name, known))


def _effective(grant: Grant, tag: str) -> set[Technique]:
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
            for technique in _effective(grant, tag):
                by_technique.setdefault(technique, []).append(grant)
        for one, other in combinations(sorted(by_technique, key=str), 2):
            if compare(one, other) is not None:
                continue
            pair = _find_together(policy, by_technique[one], by_technique[other])
            if pair:
                yield undecided_problem(policy, tag, Undecided(*pair, one, other))


def _find_together(policy: Policy, some: list[Grant], others: list[Grant]) -> tuple[Grant, Grant] | None:
    """The first two different grants that one caller may have at the same time."""
    return next(((a, b) for a in some for b in others if a is not b and _may_meet(policy, a, b)), None)


def _may_meet(policy: Policy, a: Grant, b: Grant) -> bool:
    if a.purposes is not None and b.purposes is not None and not set(a.purposes) & set(b.purposes):
        return False
    return any(not exclude_each_other(policy.who[x], policy.who[y]) for x in a.to for y in b.to)


def _clashing_tags(policy: Policy, routes: Mapping[str, tuple[str, ...]]) -> Iterable[Problem]:
    """Each pair of tags that name one place, and of which it can't be told which is shown more strictly."""
    for first, second in sorted(_overlaps(policy, routes)):
        one, other = policy.tags[first], policy.tags[second]
        if one.subject and other.subject and one.subject != other.subject:
            yield overlap_problem(policy, first, second, "name people of different id spaces")
        for left, right in sorted(((a, b) for a in _ways(policy, first) for b in _ways(policy, second)), key=str):
            if compare(left[1], right[1]) is None and _together(policy, left[0], right[0]):
                yield overlap_problem(policy, first, second, overlap_text(left[1], right[1]))
                break


def _ways(policy: Policy, tag: str) -> set[tuple[str, Technique]]:
    """(grant, technique) pairs in which a tag may be shown; the grant "" for redact by default."""
    return {("", REDACT)} | {(grant.name, t) for grant in policy.grants for t in _effective(grant, tag)}


def _together(policy: Policy, first: str, second: str) -> bool:
    if not first or not second or first == second:
        return True
    return _may_meet(policy, policy.get_grant(first), policy.get_grant(second))


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
    return {pair for tags in found for pair in combinations(sorted(tags), 2)}
