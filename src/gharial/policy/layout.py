"""From what holds for each tag to the nodes, cells and steps of a plan.

A value below a tagged container takes part in what holds for the container. Where two tags name one place, the stricter
result holds, and where that can't be told the author is asked (PolicyInvalid). Where one is only nested in the other,
which is possible on paper for any two `$..` paths, the result is at least as strict as both (`technique.join`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from gharial.model.errors import PolicyInvalid, Problem
from gharial.model.plan import NONE, NOWHERE, Cell, Node, Step
from gharial.policy.automaton import Automaton, Move, Positions
from gharial.policy.document import Policy
from gharial.policy.minimal import merge_alike
from gharial.policy.technique import CLEAR, Technique, find_strictest, join
from gharial.policy.verdict import Fate, Floor, Verdict, join_floors, raise_to

MAX_NODES = 20_000
"""Nodes of one plan."""
MAX_LINKS = 2_000_000
"""Names and indexes in all nodes of one plan together."""


class Found(NamedTuple):
    """What holds where some tags name one place.

    `tag` is the one that it counts as ("" where nothing is listed yet); `fate` an index of the layout's fates;
    `subject` and `fact` as in Cell.
    """

    tag: str
    fate: int
    subject: str
    fact: str


_OUTSIDE = Found("", NONE, "", "")
_AROUND = "*"
"""Stands for the tag of a container around, whose cell holds without being named again; no tag is called so."""


class _Place(NamedTuple):
    """One node before it has a number.

    Below a tagged value it is the same place whatever the tag, as long as the tag's fate is: 50 paths `$..a.b` would
    else need a node for each pair of them.
    """

    positions: Positions
    found: Found


@dataclass(slots=True)
class Layout:
    """Numbers nodes, cells and steps in the order in which they are met, breadth first, names in their order.

    `fates` and `floors` hold, per single tag and variant, what grants say and what guardrails ask.
    """

    policy: Policy
    tag_fates: Mapping[str, Fate]
    tag_floors: Mapping[str, tuple[Floor | None, ...]]
    cells: list[Cell] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    techniques: list[Technique] = field(default_factory=list)
    _cell_numbers: dict[Found, int] = field(default_factory=dict)
    _step_numbers: dict[Step, int] = field(default_factory=dict)
    _fates: list[Fate] = field(default_factory=list)
    _fate_numbers: dict[Fate, int] = field(default_factory=dict)
    _combined: dict[frozenset[str], Found] = field(default_factory=dict)
    _joined: dict[tuple[int, int], int] = field(default_factory=dict)

    def nodes(self, automaton: Automaton) -> tuple[Node, ...]:
        """Walk the automaton from its start and give each place that differs from all others a number."""
        outside = _Place(frozenset(), _OUTSIDE)
        numbers = {self._land(outside, automaton.start(), by_name=True): 0}
        queue = deque(numbers)
        nodes: list[Node] = []
        links = 0

        def number(place: _Place) -> int:
            if not place.positions and place.found.tag in ("", _AROUND):
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
                raise PolicyInvalid([too_large(self.policy)])
            nodes.append(
                Node(
                    names={n: number(self._land(here, move, by_name=True)) for n, move in moves.names.items()},
                    indexes={i: number(self._land(here, move, by_name=False)) for i, move in moves.indexes.items()},
                    other_name=number(self._land(here, moves.other_name, by_name=True)),
                    # In XML this is an attribute: other than a list's element, it does not name who its element names.
                    other_index=number(self._land(here, moves.other_index, by_name=automaton.xml)),
                    cell=NONE if here.found.tag in ("", _AROUND) else self.cell(here.found),
                )
            )
        return merge_alike(nodes)

    def combine(self, tags: frozenset[str]) -> Found:
        """What holds where several tags name one place. Raises PolicyInvalid where they contradict each other."""
        known = self._combined.get(tags)
        if known is None:
            known = self._combined[tags] = self._combine(tags)
        return known

    def fates_with(self, tag: str) -> list[Fate]:
        """What holds at each place that a tag names, alone or with others, among those that were combined."""
        return [self._fates[found.fate] for tags, found in self._combined.items() if tag in tags]

    def cell(self, found: Found) -> int:
        """Return the number of this cell."""
        if found not in self._cell_numbers:
            verdicts = self._fates[found.fate]
            steps = tuple(self.step(found.tag, verdict) for verdict in verdicts)
            charges = tuple(tuple(sorted(verdict.charges)) for verdict in verdicts)
            self._cell_numbers[found] = len(self.cells)
            self.cells.append(Cell(found.tag, steps, charges, found.subject, found.fact))
        return self._cell_numbers[found]

    def plain_cell(self, verdict: Verdict, variants: int) -> int:
        """Return the number of a cell of no tag that is the same in all variants."""
        return self.cell(Found("", self._fate_number((verdict,) * variants), "", ""))

    def step(self, tag: str, verdict: Verdict) -> int:
        """Return the number of this step."""
        technique = verdict.technique
        step = step_of(self.policy, tag, verdict)
        if step not in self._step_numbers:
            self._step_numbers[step] = len(self.steps)
            self.steps.append(step)
            self.techniques.append(technique)
        return self._step_numbers[step]

    def _land(self, here: _Place, move: Move, *, by_name: bool) -> _Place:
        """The place that a move leads to from `here`.

        An element of a list of ids names a person as the list's tag does (and tells a fact); a member of an object
        does not.
        """
        subject, fact = ("", "") if by_name else (here.found.subject, here.found.fact)
        if not move.found:
            kept = here.found._replace(subject=subject, fact=fact)
            if kept.tag and kept == here.found and not (subject or fact):
                kept = kept._replace(tag=_AROUND)
            return _Place(move.positions, kept)
        found = self.combine(move.found)
        fate = self._join(found.fate, here.found.fate) if here.found.tag else found.fate
        return _Place(move.positions, Found(found.tag, fate, found.subject or subject, found.fact or fact))

    def _combine(self, tags: frozenset[str]) -> Found:
        ordered = sorted(tags)
        count = len(self.tag_fates[ordered[0]])
        strictest = [self._strictest(ordered, variant) for variant in range(count)]
        subject = self._only(
            ordered, {t: self.policy.tags[t].subject for t in ordered}, "name people of different id spaces"
        )
        fact = self._only(ordered, {t: self.policy.tags[t].fact for t in ordered}, "tell different facts of a person")
        tag = next(t for t in ordered if self.tag_fates[t][0].technique == strictest[0].technique)
        floors = [join_floors([f for t in ordered if (f := self.tag_floors[t][v]) is not None]) for v in range(count)]
        fate = tuple(raise_to(verdict, floor) for verdict, floor in zip(strictest, floors, strict=True))
        return Found(tag, self._fate_number(fate), subject, fact)

    def _only(self, tags: list[str], values: Mapping[str, str], what: str) -> str:
        """The one value that is not empty. Raises PolicyInvalid where there are several."""
        first_of: dict[str, str] = {}
        for tag in tags:
            if values[tag]:
                first_of.setdefault(values[tag], tag)
        if len(first_of) > 1:
            one, other = sorted(first_of.values())[:2]
            raise PolicyInvalid([overlap_problem(self.policy, one, other, what)])
        return next(iter(first_of), "")

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
            self._joined[key] = self._fate_number(tuple(join_verdicts(a, b) for a, b in pairs))
        return self._joined[key]

    def _fate_number(self, fate: Fate) -> int:
        if fate not in self._fate_numbers:
            self._fate_numbers[fate] = len(self._fates)
            self._fates.append(fate)
        return self._fate_numbers[fate]


def too_large(policy: Policy) -> Problem:
    """The problem of a plan that would have too many nodes or links, at the policy's first tag."""
    tag = min(policy.tags.values(), key=lambda t: (t.line, t.column))
    what = f"the paths of all tags together need more than {MAX_NODES:,} nodes or {MAX_LINKS:,} links; write fewer"
    return Problem(policy.file, tag.line, tag.column, f"{what} paths with '..' and '*'")


def step_of(policy: Policy, tag: str, verdict: Verdict) -> Step:
    """Return a verdict about a tag ("": about what none names) as a step."""
    technique = verdict.technique
    kind = policy.tags[tag].type if tag else ""
    args = tuple(sorted((*technique.args, ("type", kind)))) if kind else technique.args
    return Step(technique.op, tag, verdict.rule, args)


def join_verdicts(own: Verdict, outer: Verdict) -> Verdict:
    """Return what is at least as strict as both; where both say the same it is named after `own`."""
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
