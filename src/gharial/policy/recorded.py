"""A recorded exchange under a plan: which cells cover its places, and which of its variants its records may have.

What the recording does not tell stays open: then there are several possible cells, or variants, and none is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from gharial.model.names import is_ordinary_name
from gharial.model.place import BodyPath, GeneralPath, PlaceError, Segment, Select, fold_fact, fold_name, parse_place
from gharial.model.plan import NONE, NOWHERE, Cell, Condition, Extra, Op, Plan
from gharial.model.recording import (
    NO_SCOPE,
    OTHER_VALUE,
    ROOT,
    JsonType,
    RecordedExchange,
    RecordedPlace,
    RecordedScope,
    element_path,
    member_path,
)
from gharial.policy.automaton import Automaton
from gharial.policy.conditions import CONSENT, GROUP
from gharial.policy.countries import COUNTRIES
from gharial.policy.selectors import last_names

Maybe = bool | None
"""None: it can't be told."""
BudgetKey = tuple[str, int]
"""Grant, window in seconds."""
_NAMING = (JsonType.STRING, JsonType.JSON, JsonType.NUMBER)
_FOUND = "found"


class Spot(NamedTuple):
    """What may cover a place: a cell or NONE, and the id space if a value here names a person.

    `around` are cells of containers that are dropped for some people: these may be others than the value's own.
    """

    cell: int
    subject: str
    around: frozenset[int] = frozenset()


class Step(NamedTuple):
    """One step of a recorded path, its name folded, and the path of the container that it leaves."""

    segment: Segment
    container: str


@lru_cache(maxsize=200_000)
def steps_of(path: str) -> tuple[Step, ...]:
    """Return the steps of a recorded path. Raises ValueError for what is none."""
    try:
        place = parse_place(path)
    except PlaceError:
        raise ValueError("not a recorded path") from None
    if not isinstance(place, BodyPath) or any(segment.deep for segment in place.segments):
        raise ValueError("not a recorded path")
    found = []
    container = ROOT
    for segment in place.segments:
        match segment.select:
            case Select.NAME:
                found.append(Step(Segment(Select.NAME, name=fold_name(segment.name)), container))
                container = member_path(container, segment.name)
            case Select.INDEX:
                found.append(Step(segment, container))
                container = element_path(container, segment.index)
            case _:
                found.append(Step(segment, container))
                container = member_path(container, None)
    return tuple(found)


class Walker:
    """Finds the cells of one plan; remembers what it found."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self._known: dict[str, frozenset[Spot]] = {}
        self._droppable = {at for at, cell in enumerate(plan.cells) if _drops_for_some(plan, cell)}
        self._extras = [(extra, _Finder(extra)) for extra in plan.extras if not extra.keys]

    def spots(self, path: str, hidden: Mapping[str, Sequence[str]]) -> frozenset[Spot]:
        """Return what may cover the place; more than one only where a name is not told."""
        if "*" in path:
            return self._walk(path, hidden)
        known = self._known.get(path)
        if known is None:
            known = self._known[path] = self._walk(path, hidden)
        return known

    def extras(self, place: RecordedPlace, asked: Sequence[str]) -> list[tuple[Extra, Maybe]]:
        """Return the extras that find the place, or may (None). `asked`: the detectors that the recording had."""
        found: list[tuple[Extra, Maybe]] = []
        for extra, finder in self._extras:
            hit: Maybe
            if extra.detector:
                if place.type not in _NAMING:
                    hit = False
                else:
                    hit = extra.detector in place.detectors if extra.detector in asked else None
            else:
                hit = None if finder.may_find([step.segment for step in steps_of(place.path)]) else False
            if hit is not False:
                found.append((extra, hit))
        return found

    def _walk(self, path: str, hidden: Mapping[str, Sequence[str]]) -> frozenset[Spot]:
        nodes = self.plan.nodes
        # (node, cell that covers it, whether that is the node's own, cells around it that are dropped for some)
        at = {(0, nodes[0].cell, nodes[0].cell != NONE, frozenset[int]())}
        for segment, container in steps_of(path):
            reached = set()
            for node, cell, _, around in at:
                outside = around | {cell} if cell in self._droppable else around
                for to in self._steps(node, segment, hidden.get(container)):
                    own = NONE if to == NOWHERE else nodes[to].cell
                    reached.add((to, cell if own == NONE else own, own not in (NONE, cell), outside))
            at = reached
        return frozenset(
            Spot(cell, self.plan.cells[cell].subject if cell != NONE and own else "", around)
            for _, cell, own, around in at
        )

    def _steps(self, node: int, segment: Segment, told: Sequence[str] | None) -> Iterable[int]:
        if node == NOWHERE:
            return (NOWHERE,)
        here = self.plan.nodes[node]
        match segment.select:
            case Select.NAME:
                return (here.names.get(segment.name, here.other_name),)
            case Select.INDEX:
                return (here.indexes.get(segment.index, here.other_index),)
            case _:
                # A name that is not told is none that would have been told here.
                hidden = (to for name, to in here.names.items() if _is_hidden(name, told))
                return (here.other_name, *hidden)


def _is_hidden(name: str, told: Sequence[str] | None) -> bool:
    return not is_ordinary_name(name) if told is None else name not in told


def _drops_for_some(plan: Plan, cell: Cell) -> bool:
    drops = {plan.steps[step].op is Op.DROP for step in cell.steps}
    return len(drops) == 2


class _Finder:
    """Says of a place whether an extra with a path may find it, or a container around it."""

    def __init__(self, extra: Extra) -> None:
        self._names: frozenset[str] | None = None
        self._automaton: Automaton | None = None
        if extra.detector:
            return
        if extra.general:
            self._names = frozenset(map(fold_name, last_names(GeneralPath(extra.path))))
            return
        place = parse_place(extra.path)
        if isinstance(place, BodyPath):
            self._automaton = Automaton.of([(_FOUND, place)])

    def may_find(self, segments: Sequence[Segment]) -> bool:
        if self._automaton is not None:
            return _meets(self._automaton, segments)
        if not self._names:
            return True
        return any(s.select is Select.ANY or (s.select is Select.NAME and s.name in self._names) for s in segments)


def _meets(automaton: Automaton, segments: Sequence[Segment]) -> bool:
    at = {automaton.start().positions}
    if automaton.start().found:
        return True
    for segment in segments:
        reached = set()
        for positions in at:
            moves = automaton.moves(positions)
            match segment.select:
                case Select.NAME:
                    steps = [moves.names.get(segment.name, moves.other_name)]
                case Select.INDEX:
                    steps = [moves.indexes.get(segment.index, moves.other_index)]
                case _:
                    steps = [moves.other_name, *moves.names.values()]
            if any(step.found for step in steps):
                return True
            reached |= {step.positions for step in steps}
        at = reached
    return False


# --- people -----------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class People:
    """What a recorded exchange tells of its people, for the conditions of one plan."""

    plan: Plan
    exchange: RecordedExchange
    known: bool
    facts_known: frozenset[str]
    _told: dict[tuple[str, object], set[str]] = field(default_factory=dict)
    _told_of_nobody: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, walker: Walker, exchange: RecordedExchange) -> People:
        """Compare what names people, and what tells facts, under the plan with what did so when it was recorded."""
        plan = walker.plan
        if not plan.conditions:
            return cls(plan, exchange, True, frozenset())
        subjects: set[tuple[int, str]] = set()
        facts: set[tuple[int, str]] = set()
        sure = exchange.scopes_known
        for at, place in enumerate(exchange.places):
            spots = walker.spots(place.path, exchange.hidden)
            sure = sure and len({(s.subject, _fact_of(plan, s.cell)) for s in spots}) <= 1
            subjects |= {(at, s.subject) for s in spots if s.subject and place.type in _NAMING}
            facts |= {(at, _fact_of(plan, s.cell)) for s in spots if _fact_of(plan, s.cell)}
        in_path = {(p.key, p.subject) for p in plan.params if p.subject}
        recorded_in_path = {(p.name, p.subject) for p in exchange.params if p.subject}
        here = {p.name for p in exchange.params}
        known = (
            sure
            and subjects == set(exchange.subjects)
            and {pair for pair in in_path if pair[0] in here} == recorded_in_path
        )
        names = {condition.fact for condition in plan.conditions} - {CONSENT, GROUP}
        same = {n for n in names if {f for f in facts if f[1] == n} == {f for f in exchange.facts if f[1] == n}}
        found = cls(plan, exchange, known, frozenset(same) if known else frozenset())
        found._collect()
        return found

    def _collect(self) -> None:
        for at, scope in enumerate(self.exchange.scopes):
            for fact, values in scope.facts.items():
                if not scope.people:
                    self._told_of_nobody.add(fact)
                for owner in scope.people or (at,):
                    self._told.setdefault((fact, owner), set()).update(values)

    def holds(self, at: int) -> tuple[Maybe, ...]:
        """Return for each condition of the plan whether it holds in scope `at`."""
        return tuple(self._holds(condition, at) for condition in self.plan.conditions)

    def _holds(self, condition: Condition, at: int) -> Maybe:
        if condition.fact == GROUP or not self.known:
            return None
        scope = self.exchange.scopes[at] if at != NO_SCOPE else RecordedScope()
        if condition.fact == CONSENT:
            return self._consent_holds(condition, scope.people)
        if condition.fact not in self.facts_known:
            return None
        if self.plan.same and any(len(other.people) > 1 for other in self.exchange.scopes):
            # What is told of one id may count for another; of which space an id is, is not recorded.
            return None
        if not scope.people and condition.fact in self._told_of_nobody and self._has_lists():
            # Which values belong to a record that names nobody depends on what the plan opens.
            return None
        of_each = [
            self._fact_holds(condition, self._told.get((condition.fact, owner), set()))
            for owner in (scope.people or (at,))
        ]
        return _any(of_each) if condition.if_missing else _all(of_each)

    def _has_lists(self) -> bool:
        return any("[" in place.path for place in self.exchange.places)

    def _fact_holds(self, condition: Condition, values: set[str]) -> Maybe:
        judged = [self._value_holds(condition, value) for value in sorted(values)]
        if not judged:
            return condition.if_missing
        return _any(judged) if condition.if_missing else _all(judged)

    def _value_holds(self, condition: Condition, value: str) -> Maybe:
        if condition.values and all(v in COUNTRIES for v in condition.values):
            # What is no country's code tells no country.
            if value not in COUNTRIES:
                return condition.if_missing
            return (value in condition.values) is not condition.negated
        wanted = {fold_fact(v) for v in condition.values}
        if value != OTHER_VALUE:
            return (fold_fact(value) in wanted) is not condition.negated
        named = set(self.exchange.fact_values.get(condition.fact, ())) | {c.casefold() for c in COUNTRIES}
        return condition.negated if wanted <= named else None

    def _consent_holds(self, condition: Condition, people: Sequence[str]) -> Maybe:
        if not people:
            return condition.if_missing
        if self.exchange.consent is None:
            return None
        wanted = {fold_fact(v) for v in condition.values}
        of_each: list[Maybe] = []
        for person in people:
            given = {fold_fact(v) for v in self.exchange.consent.get(person, ())}
            if not given:
                of_each.append(condition.if_missing)
            elif given & wanted:
                of_each.append(not condition.negated)
            else:
                of_each.append(None if OTHER_VALUE in given else condition.negated)
        return _any(of_each) if condition.if_missing else _all(of_each)


def _fact_of(plan: Plan, cell: int) -> str:
    return plan.cells[cell].fact if cell != NONE else ""


def _any(values: Sequence[Maybe]) -> Maybe:
    return True if True in values else None if None in values else False


def _all(values: Sequence[Maybe]) -> Maybe:
    return False if False in values else None if None in values else True


def find_variants(plan: Plan, crossed: Sequence[Maybe], holds: Sequence[Maybe]) -> tuple[int, ...]:
    """Return the variants that a record may have: `crossed` by budget, `holds` by condition, None where not known."""
    return tuple(
        at
        for at, variant in enumerate(plan.variants)
        if all(known is None or (n in variant.crossed) == known for n, known in enumerate(crossed))
        and all(known is None or (n in variant.holds) == known for n, known in enumerate(holds))
    )
