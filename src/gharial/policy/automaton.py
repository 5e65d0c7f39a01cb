"""Many body paths become one deterministic automaton: from each place at most one next place per name and index.

`..` and wildcards are resolved by keeping, as one state, all positions in all paths that a place may have. Positions
carry no tags' decisions; `compile` pairs them with those. Names are folded.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from gharial.model.place import BodyPath, Segment, Select, XmlPath, fold_name

Positions = frozenset[tuple[int, int]]
"""(path, segment) pairs: this many segments of the path are behind us and more are to come."""


ATTRIBUTE = "@"
"""Begins the names of attributes in paths into XML; alone it is any of them."""


@dataclass(frozen=True, slots=True)
class Move:
    """Where one step leads: the positions that remain open, and the tags of which a path ends exactly there."""

    positions: Positions
    found: frozenset[str]


@dataclass(frozen=True, slots=True)
class Moves:
    """All steps from a place. Names and indexes that are not listed take `other_name`, `other_index`."""

    names: dict[str, Move]
    indexes: dict[int, Move]
    other_name: Move
    other_index: Move


@dataclass(slots=True)
class Automaton:
    """The paths of all tags. Ask `start` and `moves`; each set of positions is worked out once.

    With `xml` they are paths into XML; `other_index` is then for attributes that no path names. With `rows` the start
    is a row: what is at `$` and, at once, what is at `$[*]`.
    """

    paths: list[tuple[str, tuple[Segment, ...]]]
    xml: bool = False
    rows: bool = False
    _moves: dict[Positions, Moves] = field(default_factory=dict)
    # Equal sets as one object: comparing hundreds of positions, for each of many links, is what takes time.
    _same: dict[Positions, Positions] = field(default_factory=dict)

    @classmethod
    def of(cls, finds: Iterable[tuple[str, BodyPath]]) -> Automaton:
        """Build it from (tag, path) pairs, in any order."""
        folded = {(tag, tuple(map(_fold, path.segments))) for tag, path in finds}
        return cls(sorted(folded, key=lambda p: (p[0], str(BodyPath(p[1])))))

    @classmethod
    def of_xml(cls, finds: Iterable[tuple[str, XmlPath]]) -> Automaton:
        """Build it from (tag, path into XML) pairs, in any order."""
        folded = {(tag, tuple(map(_fold, path.segments))) for tag, path in finds}
        return cls(sorted(folded, key=lambda p: (p[0], str(XmlPath(p[1])))), xml=True)

    def start(self) -> Move:
        """The place of the whole body."""
        found = frozenset(tag for tag, segments in self.paths if not segments)
        whole = Move(frozenset((index, 0) for index, (_, segments) in enumerate(self.paths) if segments), found)
        if not self.rows:
            return whole
        element = self.moves(whole.positions).other_index
        return Move(whole.positions | element.positions, found | element.found)

    def of_rows(self) -> Automaton | None:
        """The same paths with a row as the start; None where one path asks which row of the list it is."""
        if self.moves(Automaton(self.paths).start().positions).indexes:
            return None
        return Automaton(self.paths, rows=True)

    def moves(self, positions: Positions) -> Moves:
        """All steps from a place with these positions."""
        known = self._moves.get(positions)
        if known is None:
            segments = [(self.paths[path][1][at], path, at) for path, at in positions]
            names = sorted({s.name for s, _, _ in segments if s.select is Select.NAME})
            indexes = sorted({s.index for s, _, _ in segments if s.select is Select.INDEX})
            known = self._moves[positions] = Moves(
                names={name: self._step(segments, name) for name in names},
                indexes={index: self._step(segments, index) for index in indexes},
                other_name=self._step(segments, None),
                other_index=self._step(segments, ATTRIBUTE if self.xml else None),
            )
        return known

    def _step(self, segments: list[tuple[Segment, int, int]], step: str | int | None) -> Move:
        """Follow one name, one index, or (None) one that no segment names."""
        remain: set[tuple[int, int]] = set()
        found: set[str] = set()
        for segment, path, at in segments:
            if segment.deep:
                remain.add((path, at))
            if not (_selects_xml(segment, step) if self.xml else _selects(segment, step)):
                continue
            tag, all_segments = self.paths[path]
            if at + 1 == len(all_segments):
                found.add(tag)
            else:
                remain.add((path, at + 1))
        positions = frozenset(remain)
        return Move(self._same.setdefault(positions, positions), frozenset(found))


def _fold(segment: Segment) -> Segment:
    return Segment(segment.select, fold_name(segment.name), segment.index, segment.deep)


def _selects(segment: Segment, step: str | int | None) -> bool:
    if segment.select is Select.ANY:
        return True
    if isinstance(step, str):
        return segment.select is Select.NAME and segment.name == step
    return step is not None and segment.select is Select.INDEX and segment.index == step


def _selects_xml(segment: Segment, step: str | int | None) -> bool:
    """Like `_selects`; a step is a name, with its namespace or of any; None is another element, "@" an attribute."""
    name = step if isinstance(step, str) else ""
    if segment.select is Select.ANY:
        return (segment.name == ATTRIBUTE) == name.startswith(ATTRIBUTE)
    return bool(name) and segment.name in (name, without_namespace(name))


def without_namespace(name: str) -> str:
    """Return the name of an element or attribute in XML without its `{uri}`."""
    before, brace, local = name.rpartition("}")
    return f"{ATTRIBUTE if before.startswith(ATTRIBUTE) else ''}{local}" if brace else name
