"""Finds what the trie can't express: general paths, members beside others, names of members, values by their look."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

from gharial.model.finding import Kind, Limits
from gharial.model.place import BodyPath, PlaceError, Segment, Select, fold_name, parse_place
from gharial.model.plan import Extra, Plan
from gharial.payload.detectors import DETECTORS, recognises
from gharial.payload.json_query import STEPS_PER_VALUE, Query
from gharial.payload.json_tree import ARRAY, OBJECT, Value

NO_CELLS: frozenset[int] = frozenset()
Cells = dict[Value, frozenset[int]]


class Finder:
    """The extras of one plan, ready to look. Raises ValueError for a path or detector that is none."""

    def __init__(self, plan: Plan) -> None:
        self._places = [_Place(extra) for extra in plan.extras if not extra.detector]
        self._detectors: dict[str, set[int]] = {}
        for extra in plan.extras:
            if extra.detector:
                if extra.detector not in DETECTORS:
                    raise ValueError("an extra names a detector that does not exist")
                self._detectors.setdefault(extra.detector, set()).add(extra.cell)

    def find(self, root: Value, limits: Limits, *, rows: bool = False) -> tuple[Cells, Cells]:
        """Return the cells that find each value, and those that find the names of an object's members.

        With `rows` the root is a list of rows, each of which is a document of its own too: both are looked through.
        Raises TooManyValues where a general path would take too many steps.
        """
        values: dict[Value, set[int]] = {}
        names: dict[Value, set[int]] = {}
        roots = [root, *root.children] if rows else [root]
        for place in self._places:
            for value in place.find(roots, limits):
                if not place.keys:
                    values.setdefault(value, set()).add(place.cell)
                elif value.form == OBJECT:
                    names.setdefault(value, set()).add(place.cell)
        return _frozen(values), _frozen(names)

    def detect(self, kind: Kind, text: str) -> frozenset[int]:
        """Return the cells of the detectors that recognise a leaf."""
        if not self._detectors:
            return NO_CELLS
        return frozenset().union(*(self._detectors[name] for name in recognises(self._detectors, kind, text)))

    def detects_more(self, kind: Kind, text: str) -> bool:
        """True if a detector that belongs to no extra recognises a leaf."""
        return bool(recognises(DETECTORS.keys() - self._detectors.keys(), kind, text))


def _frozen(found: dict[Value, set[int]]) -> Cells:
    return {value: frozenset(cells) for value, cells in found.items()}


class _Place:
    """One extra with a path."""

    def __init__(self, extra: Extra) -> None:
        self.cell = extra.cell
        self.keys = extra.keys
        self._where = [(fold_name(name), {_fold_text(text) for text in texts}) for name, texts in extra.where]
        self._query = Query(extra.path) if extra.general else None
        self._segments = () if extra.general else _segments(extra.path)

    def find(self, roots: Sequence[Value], limits: Limits) -> list[Value]:
        if self._query is not None:
            found = self._query.find_each(roots, STEPS_PER_VALUE * limits.values)
        else:
            found = [value for root in roots for value in _find_regular(self._segments, root)]
        return [value for value in found if self._stands_beside(value)] if self._where else found

    def _stands_beside(self, value: Value) -> bool:
        """True if the object that holds the value holds each member of `where` with one of its texts."""
        holder = value.parent
        if holder is None or holder.form != OBJECT:
            return False
        told: dict[str, set[str]] = {}
        for name, child in zip(holder.names, holder.children, strict=True):
            told.setdefault(fold_name(name), set()).update(_texts(child))
        return all(told.get(name, set()) & texts for name, texts in self._where)


def _texts(value: Value) -> tuple[str, ...]:
    if value.form:
        return ()
    kind, text = value.leaf()
    return () if kind is Kind.NULL else (_fold_text(text),)


def _fold_text(text: str) -> str:
    return text.lower() if text.isascii() else unicodedata.normalize("NFC", text).casefold()


def _segments(path: str) -> tuple[Segment, ...]:
    try:
        place = parse_place(path)
    except PlaceError:
        raise ValueError("the path of an extra is not of the regular subset") from None
    if not isinstance(place, BodyPath):
        raise ValueError("the path of an extra is no path into a body")
    return place.segments


def _find_regular(segments: Sequence[Segment], root: Value) -> list[Value]:
    """Return what a path of the regular subset finds, each once; work is linear in the document for each segment."""
    found = [root]
    for segment in segments:
        sources = _and_below(found) if segment.deep else found
        below = [child for value in sources for child in _selected(segment, value)]
        found = list(dict.fromkeys(below))
    return found


def _and_below(values: list[Value]) -> list[Value]:
    seen: dict[Value, None] = {}
    waiting = list(reversed(values))
    while waiting:
        value = waiting.pop()
        if value not in seen and value.form:
            seen[value] = None
            waiting.extend(reversed(value.children))
    return list(seen)


def _selected(segment: Segment, value: Value) -> Sequence[Value]:
    match segment.select:
        case Select.ANY:
            return value.children
        case Select.INDEX:
            return value.children[segment.index : segment.index + 1] if value.form == ARRAY else ()
        case Select.NAME:
            wanted = fold_name(segment.name)
            return [
                child
                for name, child in zip(value.names, value.children, strict=False)
                if fold_name(name) == wanted
            ]  # fmt: skip
