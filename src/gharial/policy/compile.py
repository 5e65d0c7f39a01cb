"""Policy x route x class of caller -> Plan: pure data, the same whatever the order in which a policy is written.

A value below a tagged container takes part in what holds for the container. Where two tags name one place, the stricter
result holds, and where that can't be told the author is asked (PolicyInvalid). Where one is only nested in the other,
which is possible on paper for any two `$..` paths, the result is at least as strict as both (`technique.join`).
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

import msgspec

from gharial.model.errors import PolicyInvalid, Problem
from gharial.model.plan import (
    NONE,
    NOWHERE,
    PLAN_FORMAT,
    Budget,
    Cell,
    Node,
    Param,
    Plan,
    Step,
    Variant,
    dump_plan,
)
from gharial.policy.automaton import Automaton, Move, Positions
from gharial.policy.decide import Undecided, Verdict, decide_tag, undecided_problem
from gharial.policy.document import Policy
from gharial.policy.grants import Grant
from gharial.policy.tags import Tag
from gharial.policy.technique import CLEAR, Technique, find_strictest, join

MAX_NODES = 20_000
"""Nodes of one plan."""
MAX_LINKS = 2_000_000
"""Names and indexes in all nodes of one plan together."""
MAX_BUDGETS = 6
"""Budgets of one class of callers: each doubles the number of variants."""

Fate = tuple[Verdict, ...]
"""What holds for a value: one verdict per variant."""


class _Place(NamedTuple):
    """One node before it has a number.

    `tag` is "" where nothing is listed yet; `fate` an index of `_Layout.fates`; `subject` as in Cell.
    """

    positions: Positions
    tag: str
    fate: int
    subject: str


def compile_plan(policy: Policy, route: str, params: tuple[str, ...], grants: tuple[str, ...]) -> Plan:
    """Return the plan of one route, whose template has the parameters `params`, for one class of callers (`grants`).

    Raises PolicyInvalid where grants or tags contradict each other for this class, or the plan would be too large;
    `checks.check_policy` finds such contradictions beforehand. Raises KeyError for a grant that does not exist.
    """
    applying = [policy.get_grant(name) for name in sorted(set(grants))]
    tags = {name: tag for name, tag in sorted(policy.tags.items()) if _is_here(tag, params)}
    budgets, numbers = _budgets(policy, applying, tags.keys())
    variants = [crossed for size in range(len(budgets) + 1) for crossed in combinations(range(len(budgets)), size)]
    fates = _fates(policy, tags, applying, numbers, variants)
    layout = _Layout(policy, fates)
    nodes = layout.nodes(Automaton.of((name, path) for name, tag in tags.items() for path in tag.body_paths))
    plan = Plan(
        format=PLAN_FORMAT,
        policy=policy.name,
        version=policy.version,
        route=route,
        mode=policy.mode,
        grants=tuple(grant.name for grant in applying),
        unlisted=policy.unlisted,
        nodes=nodes,
        params=tuple(_params(params, tags, applying, layout)),
        cells=tuple(layout.cells),
        steps=tuple(layout.steps),
        budgets=budgets,
        variants=tuple(Variant(crossed) for crossed in variants),
    )
    return msgspec.structs.replace(plan, digest=hashlib.sha256(dump_plan(plan)).hexdigest()[:32])


def _is_here(tag: Tag, params: tuple[str, ...]) -> bool:
    return bool(tag.body_paths) or any(name in params for name in tag.params)


def _budgets(
    policy: Policy, applying: list[Grant], here: Collection[str]
) -> tuple[tuple[Budget, ...], dict[tuple[str, int], int]]:
    """The plan's budgets, and their indexes by (grant, index of its budget): only of grants that show clear here."""
    found: list[Budget] = []
    numbers: dict[tuple[str, int], int] = {}
    for grant in applying:
        if not any(technique == CLEAR and tag in here for tag, technique in grant.shown.items()):
            continue
        for index, rule in enumerate(grant.budgets):
            numbers[grant.name, index] = len(found)
            found.append(Budget(grant.name, rule.people, rule.window_s))
    if len(found) > MAX_BUDGETS:
        last = next(g for g in applying if g.name == found[MAX_BUDGETS].grant)
        names = ", ".join(sorted({budget.grant for budget in found}))
        what = f"callers to whom all of {names} apply have more than {MAX_BUDGETS} budgets"
        raise PolicyInvalid([Problem(policy.file, last.line, last.column, what)])
    return tuple(found), numbers


def _fates(
    policy: Policy,
    tags: Mapping[str, Tag],
    applying: list[Grant],
    numbers: Mapping[tuple[str, int], int],
    variants: list[tuple[int, ...]],
) -> dict[str, Fate]:
    """What holds for each tag by itself. Raises PolicyInvalid with every tag about which grants disagree."""
    fates: dict[str, Fate] = {}
    problems: set[Problem] = set()
    for name in tags:
        try:
            fates[name] = tuple(decide_tag(name, applying, numbers, frozenset(crossed)) for crossed in variants)
        except Undecided as clash:
            problems.add(undecided_problem(policy, name, clash))
    if problems:
        raise PolicyInvalid(problems)
    return fates


def _params(params: tuple[str, ...], tags: Mapping[str, Tag], applying: list[Grant], layout: _Layout) -> list[Param]:
    """The tagged parameters of the route, in the order of its template."""
    found: list[Param] = []
    for name in params:
        own = frozenset(tag.name for tag in tags.values() if name in tag.params)
        if not own:
            continue
        tag, fate, subject = layout.combine(own)
        cell = layout.cell(tag, fate, subject)
        opens = any(own & grant.reidentify for grant in applying)
        found.append(Param(name, tuple(sorted(own)), cell, subject, opens))
    return found


@dataclass(slots=True)
class _Layout:
    """Numbers nodes, cells and steps in the order in which they are met, breadth first, names in their order."""

    policy: Policy
    tag_fates: Mapping[str, Fate]
    cells: list[Cell] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    _cell_numbers: dict[tuple[str, int, str], int] = field(default_factory=dict)
    _step_numbers: dict[Step, int] = field(default_factory=dict)
    _fates: list[Fate] = field(default_factory=list)
    _fate_numbers: dict[Fate, int] = field(default_factory=dict)
    _combined: dict[frozenset[str], tuple[str, int, str]] = field(default_factory=dict)
    _joined: dict[tuple[int, int], int] = field(default_factory=dict)

    def nodes(self, automaton: Automaton) -> tuple[Node, ...]:
        """Walk the automaton from its start and give each distinct place a number."""
        outside = _Place(frozenset(), "", NONE, "")
        numbers = {self._land(outside, automaton.start(), by_name=True): 0}
        queue = deque(numbers)
        nodes: list[Node] = []
        links = 0

        def number(place: _Place) -> int:
            if not place.positions and not place.tag:
                return NOWHERE
            if place not in numbers:
                numbers[place] = len(numbers)
                queue.append(place)
            return numbers[place]

        while queue:
            here = queue.popleft()
            moves = automaton.moves(here.positions)
            links += len(moves.names) + len(moves.indexes)
            if len(numbers) > MAX_NODES or links > MAX_LINKS:
                raise PolicyInvalid([self._too_large()])
            nodes.append(
                Node(
                    names={n: number(self._land(here, move, by_name=True)) for n, move in moves.names.items()},
                    indexes={i: number(self._land(here, move, by_name=False)) for i, move in moves.indexes.items()},
                    other_name=number(self._land(here, moves.other_name, by_name=True)),
                    other_index=number(self._land(here, moves.other_index, by_name=False)),
                    cell=self.cell(here.tag, here.fate, here.subject) if here.tag else NONE,
                )
            )
        return tuple(nodes)

    def combine(self, tags: frozenset[str]) -> tuple[str, int, str]:
        """What holds where several tags name one place: the tag it counts as, the fate, the id space of the person."""
        known = self._combined.get(tags)
        if known is None:
            known = self._combined[tags] = self._combine(tags)
        return known

    def cell(self, tag: str, fate: int, subject: str) -> int:
        """Return the number of this cell."""
        key = (tag, fate, subject)
        if key not in self._cell_numbers:
            verdicts = self._fates[fate]
            steps = tuple(self._step(tag, verdict) for verdict in verdicts)
            charges = tuple(tuple(sorted(verdict.charges)) for verdict in verdicts)
            self._cell_numbers[key] = len(self.cells)
            self.cells.append(Cell(tag, steps, charges, subject))
        return self._cell_numbers[key]

    def _step(self, tag: str, verdict: Verdict) -> int:
        step = Step(verdict.technique.op, tag, verdict.rule, verdict.technique.args)
        if step not in self._step_numbers:
            self._step_numbers[step] = len(self.steps)
            self.steps.append(step)
        return self._step_numbers[step]

    def _land(self, here: _Place, move: Move, *, by_name: bool) -> _Place:
        """The place that a move leads to from `here`.

        An element of a list of ids names a person as the list's tag does; a member of an object does not.
        """
        inherited = "" if by_name else here.subject
        if not move.found:
            return _Place(move.positions, here.tag, here.fate, inherited)
        tag, fate, subject = self.combine(move.found)
        if here.tag:
            fate = self._join(fate, here.fate)
        return _Place(move.positions, tag, fate, subject or inherited)

    def _combine(self, tags: frozenset[str]) -> tuple[str, int, str]:
        ordered = sorted(tags)
        strictest = [self._strictest(ordered, variant) for variant in range(len(self.tag_fates[ordered[0]]))]
        subjects = {space: name for name in ordered if (space := self.policy.tags[name].subject)}
        if len(subjects) > 1:
            first, second = sorted(subjects.values())[:2]
            raise PolicyInvalid([overlap_problem(self.policy, first, second, "name people of different id spaces")])
        first_tag = next(t for t in ordered if self.tag_fates[t][0].technique == strictest[0].technique)
        return first_tag, self._fate_number(tuple(strictest)), next(iter(subjects), "")

    def _strictest(self, tags: list[str], variant: int) -> Verdict:
        verdicts = [self.tag_fates[tag][variant] for tag in tags]
        worst = find_strictest(verdict.technique for verdict in verdicts)
        if worst is None:
            first, second = next(
                (a, b)
                for a, b in combinations(range(len(tags)), 2)
                if find_strictest([verdicts[a].technique, verdicts[b].technique]) is None
            )
            what = overlap_text(verdicts[first].technique, verdicts[second].technique)
            raise PolicyInvalid([overlap_problem(self.policy, tags[first], tags[second], what)])
        rule = next(verdict.rule for verdict in verdicts if verdict.technique == worst)
        # Clear only where every tag is clear: then the person is charged to all the grants that allowed it.
        charges = frozenset[int]().union(*(verdict.charges for verdict in verdicts)) if worst == CLEAR else frozenset()
        return Verdict(worst, rule, charges)

    def _join(self, own: int, outer: int) -> int:
        """What holds for a tagged value within a tagged container."""
        key = (own, outer)
        if key not in self._joined:
            pairs = zip(self._fates[own], self._fates[outer], strict=True)
            self._joined[key] = self._fate_number(tuple(_join_verdicts(a, b) for a, b in pairs))
        return self._joined[key]

    def _fate_number(self, fate: Fate) -> int:
        if fate not in self._fate_numbers:
            self._fate_numbers[fate] = len(self._fates)
            self._fates.append(fate)
        return self._fate_numbers[fate]

    def _too_large(self) -> Problem:
        tag = min(self.policy.tags.values(), key=lambda t: (t.line, t.column))
        what = f"the paths of all tags together need more than {MAX_NODES:,} nodes or {MAX_LINKS:,} links; write fewer"
        return Problem(self.policy.file, tag.line, tag.column, f"{what} paths with '..' and '*'")


def _join_verdicts(own: Verdict, outer: Verdict) -> Verdict:
    technique = join(own.technique, outer.technique)
    if technique == CLEAR:
        return Verdict(CLEAR, own.rule, own.charges | outer.charges)
    # Where both say the same the narrower tag's rule is named; it also keeps the number of different fates small.
    return Verdict(technique, outer.rule if technique == outer.technique != own.technique else own.rule)


def overlap_text(one: Technique, other: Technique) -> str:
    """Say that two techniques can't be ordered."""
    return f"as {one} and as {other}, of which it can't be told which is stricter"


def overlap_problem(policy: Policy, first: str, second: str, what: str) -> Problem:
    """The problem of two tags that name one place and contradict each other, at the one that is written later."""
    one, other = sorted((policy.tags[first], policy.tags[second]), key=lambda t: (t.line, t.column))
    text = f"'{one.name}' and '{other.name}' find the same value, but {what}; choose one for both"
    return Problem(policy.file, other.line, other.column, text)
