"""Kinds of places that policies tell apart, each with one way to it, so that any plan can be asked what holds there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import TypeVar

from gharial.model.place import BodyPath, Select, XmlPath, fold_name
from gharial.model.plan import NONE, NOWHERE, Cell, Node, Op, Plan, Unlisted
from gharial.policy.automaton import ATTRIBUTE, Automaton, Move, Positions, without_namespace
from gharial.policy.document import Policy
from gharial.policy.tags import Tag
from gharial.policy.technique import Technique

MAX_MOVES = 1_000_000
"""Moves from place to place that are followed to find the kinds of places."""
UNLISTED_PLACE = "fields that no tag names"


class _AnyName:
    """A name that no path spells out."""

    def __repr__(self) -> str:
        return "*"


ANY_NAME = _AnyName()
PathStep = str | int | _AnyName
"""A folded name, an index, or any other name."""


@dataclass(frozen=True, slots=True)
class Spot:
    """One kind of place: `place` as people write it, `steps` one way to it; with `xml` in XML, where 0 is an attribute
    that no path spells out.

    `tags` are the tags found there, `around` those found around it, both as (index of the policy, tag).
    """

    place: str
    steps: tuple[PathStep, ...]
    tags: frozenset[tuple[int, str]] = frozenset()
    around: frozenset[tuple[int, str]] = frozenset()
    xml: bool = False


@dataclass(frozen=True, slots=True)
class _Visit:
    """A place that was reached: (policy, tag, path) triples that find it, and (policy, tag) pairs found around it."""

    positions: Positions
    here: frozenset[tuple[int, str, str]]
    around: frozenset[tuple[int, str]]
    steps: tuple[PathStep, ...]

    @property
    def tags(self) -> frozenset[tuple[int, str]]:
        return frozenset((number, tag) for number, tag, _ in self.here)


def find_spots(*policies: Policy) -> tuple[tuple[Spot, ...], list[str]]:
    """Return the kinds of places, and what was left out.

    Beside tagged places there is one for all that no tag names. A place in another tagged place counts where no path
    leads to it but through that: on paper any two paths with `..` may meet one in the other.
    """
    found, more = _spots_of(Automaton.of(_finds(policies, lambda tag: tag.body_paths)))
    in_xml, more_in_xml = _spots_of(Automaton.of_xml(_finds(policies, lambda tag: tag.xml_paths)))
    spots = (Spot(UNLISTED_PLACE, (ANY_NAME,)), *found, *in_xml)
    return spots, ["places, of which there are too many"] if more or more_in_xml else []


_P = TypeVar("_P", BodyPath, XmlPath)


def _finds(policies: Sequence[Policy], paths: Callable[[Tag], Iterable[_P]]) -> list[tuple[str, _P]]:
    tags = ((number, tag) for number, policy in enumerate(policies) for tag in policy.tags.values())
    return [(f"{number}\x1f{tag.name}\x1f{path}", path) for number, tag in tags for path in paths(tag)]


def _spots_of(automaton: Automaton) -> tuple[list[Spot], bool]:
    """Return the kinds of places that paths find, and whether there are more."""
    visits, more = _walk(automaton)
    outermost: dict[frozenset[tuple[int, str, str]], frozenset[tuple[int, str]]] = {}
    kinds: dict[tuple[frozenset[tuple[int, str]], frozenset[tuple[int, str]]], tuple[list[str], _Visit]] = {}
    for visit in visits:
        if not visit.here or outermost.setdefault(visit.here, visit.around) != visit.around:
            continue
        paths, _ = kinds.setdefault((visit.tags, visit.around), ([], visit))
        paths += [path for path in sorted({path for _, _, path in visit.here}) if path not in paths]
    spots = [
        Spot(_label(paths), visit.steps, visit.tags, visit.around, automaton.xml) for paths, visit in kinds.values()
    ]
    return spots, more


_MAX_PATHS = 3


def _label(paths: Sequence[str]) -> str:
    paths = sorted(paths)
    shown = [*paths[:_MAX_PATHS], *([f"{len(paths) - _MAX_PATHS} more"] if len(paths) > _MAX_PATHS else [])]
    return ", ".join(shown)


def _walk(automaton: Automaton) -> tuple[list[_Visit], bool]:
    """Visit places, those in the fewest tagged places and nearest to the root first; say if it was too much."""
    counter = count()
    waiting: list[tuple[int, int, int, _Visit]] = []
    visited: set[tuple[Positions, frozenset[tuple[int, str, str]]]] = set()
    found: list[_Visit] = []
    moved = 0

    def reach(visit: _Visit) -> None:
        heappush(waiting, (len(visit.around), len(visit.steps), next(counter), visit))

    reach(_land(automaton.start(), frozenset(), ()))
    while waiting:
        visit = heappop(waiting)[-1]
        if (visit.positions, visit.here) in visited:
            continue
        visited.add((visit.positions, visit.here))
        found.append(visit)
        moves = automaton.moves(visit.positions)
        moved += len(moves.names) + len(moves.indexes) + 2
        if moved > MAX_MOVES:
            return found, True
        around = visit.tags | visit.around
        nexts: list[tuple[PathStep, Move]] = [
            *moves.names.items(),
            *moves.indexes.items(),
            (ANY_NAME, moves.other_name),
            (0, moves.other_index),
        ]
        for step, move in nexts:
            if (move.positions or move.found) and (not move.found or _is_new(move, visited)):
                reach(_land(move, around, (*visit.steps, step)))
    return found, False


def _is_new(move: Move, visited: set[tuple[Positions, frozenset[tuple[int, str, str]]]]) -> bool:
    return (move.positions, _here(move)) not in visited


def _here(move: Move) -> frozenset[tuple[int, str, str]]:
    parts = (found.split("\x1f") for found in move.found)
    return frozenset((int(number), tag, path) for number, tag, path in parts)


def find_cell(plan: Plan, steps: Iterable[PathStep], *, xml: bool = False) -> Cell | None:
    """Return the cell that covers the place to which `steps` lead from the root, or None where nothing is listed."""
    nodes = plan.xml_nodes if xml else plan.nodes
    node = 0 if nodes else NOWHERE
    cell = nodes[0].cell if nodes else NONE
    for step in steps:
        if node == NOWHERE:
            break
        here = nodes[node]
        if isinstance(step, str):
            node = _named(here, fold_name(step), xml=xml)
        elif isinstance(step, int):
            node = here.indexes.get(step, here.other_index)
        else:
            node = here.other_name
        if node != NOWHERE and nodes[node].cell != NONE:
            cell = nodes[node].cell
    return None if cell == NONE else plan.cells[cell]


def _named(node: Node, name: str, *, xml: bool) -> int:
    if not xml:
        return node.names.get(name, node.other_name)
    other = node.other_index if name.startswith(ATTRIBUTE) else node.other_name
    return node.names.get(name, node.names.get(without_namespace(name), other))


def steps_of(path: BodyPath | XmlPath) -> tuple[PathStep, ...]:
    """Return one way that a path leads: `*` is a name that no path spells out, and `..` skips nothing."""
    if isinstance(path, XmlPath):
        return tuple(s.name if s.select is Select.NAME else 0 if s.name else ANY_NAME for s in path.segments)
    return tuple(
        ANY_NAME if s.select is Select.ANY else s.name if s.select is Select.NAME else s.index for s in path.segments
    )


def unlisted_step(plan: Plan) -> Technique:
    """Return what happens to what no tag names."""
    match plan.unlisted:
        case Unlisted.DROP:
            return Technique(Op.DROP)
        case Unlisted.REDACT:
            return Technique(Op.REDACT)
        case _:
            # `detect` lets pass what its detectors don't know; these are places of their own.
            return Technique(Op.CLEAR)


def _land(move: Move, around: frozenset[tuple[int, str]], steps: tuple[PathStep, ...]) -> _Visit:
    return _Visit(move.positions, _here(move), around, steps)


def find_xml_tags(policy: Policy, path: XmlPath) -> frozenset[str]:
    """Return the tags that a policy finds at one place in XML or, where there are none, nearest around it."""
    automaton = Automaton.of_xml((tag.name, place) for tag in policy.tags.values() for place in tag.xml_paths)
    move = automaton.start()
    found = move.found
    for step in steps_of(path):
        moves = automaton.moves(move.positions)
        if isinstance(step, str):
            name = fold_name(step)
            other = moves.other_index if name.startswith(ATTRIBUTE) else moves.other_name
            move = moves.names.get(name, moves.names.get(without_namespace(name), other))
        else:
            move = moves.other_index if step == 0 else moves.other_name
        found = move.found or found
    return found


def find_tags(policy: Policy, path: Sequence[str | int]) -> frozenset[str]:
    """Return the tags that a policy finds at one concrete path or, where there are none, nearest around it.

    Of places that only the reference executor finds, those of plain paths count, whatever their siblings say.
    """
    tags = [tag for tag in policy.tags.values() if tag.response]
    finds = [(tag.name, place) for tag in tags for place in tag.find if isinstance(place, BodyPath)]
    automaton = Automaton.of(finds)
    move = automaton.start()
    found = move.found
    for step in path:
        moves = automaton.moves(move.positions)
        if isinstance(step, str):
            move = moves.names.get(fold_name(step), moves.other_name)
        else:
            move = moves.indexes.get(step, moves.other_index)
        found = move.found or found
    return found
