"""The leaves of a JSON body and how a plan's trie stands to each; of values only the type is looked at.

Scopes are found as the reader finds them (`payload.json_reader`). For bodies that a reader has already accepted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from gharial.model.names import is_ordinary_name
from gharial.model.place import fold_name
from gharial.model.plan import NONE
from gharial.model.recording import MAX_PLACES, ROOT, JsonType, element_path, member_path
from gharial.payload.detectors import recognises
from gharial.payload.json_levels import ARRAY, OBJECT, decode_array, decode_object, first_byte, subject_text
from gharial.payload.json_text import WHITE_SPACE, decode_leaf, decode_string, name_path
from gharial.payload.program import Program, State

MAX_ALIKE = 32
MAX_NAMES = 256
"""Members of an object whose names are told: of one whose values are all of one type, and of any other."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_QUOTE = ord('"')
_TYPES = {ord("t"): JsonType.BOOLEAN, ord("f"): JsonType.BOOLEAN, ord("n"): JsonType.NULL}
_is_document = msgspec.json.Decoder(msgspec.Raw).decode

Raw = bytes | msgspec.Raw


@dataclass(frozen=True, slots=True)
class Where:
    """The JSONPath of a value: `exact` quotes the body and stays in memory, `safe` may be written down."""

    exact: str = field(repr=False)
    safe: str
    around: Where | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A scalar or an empty container. `cell` is what covers it or NONE; `subject` the id space if it names a person.

    `containers` are (cell, scope) of the containers around it, from the outside in, that may fare otherwise: where one
    of these is dropped, for people of its own scope, the leaf goes with it.
    """

    where: Where
    type: JsonType
    scope: int
    cell: int
    subject: str = ""
    detectors: tuple[str, ...] = ()
    containers: tuple[tuple[int, int], ...] = ()


@dataclass(slots=True)
class WalkedScope:
    """A scope: whether it holds a subject of its own, and the cells that meet a value in it."""

    named: bool
    cells: set[int] = field(default_factory=set)


@dataclass(slots=True)
class Walk:
    """What was found. `hidden`: safe path of an object -> names of the trie, which alone are told there."""

    leaves: list[Leaf] = field(default_factory=list)
    scopes: list[WalkedScope] = field(default_factory=list)
    hidden: dict[str, frozenset[str]] = field(default_factory=dict)
    cut: bool = False


def walk(
    program: Program,
    body: bytes,
    *,
    json_levels: int = 0,
    detectors: Iterable[str] = (),
    max_places: int = MAX_PLACES,
) -> Walk:
    """Return the leaves of a body, in its order, up to `max_places`, and which of the detectors recognise each."""
    walker = _Walker(program, tuple(detectors), max_places)
    try:
        walker.document(body.removeprefix(_BYTE_ORDER_MARK).strip(WHITE_SPACE), json_levels)
    except (_Enough, RecursionError):
        walker.found.cut = True
    return walker.found


class _Enough(Exception):
    """There are more leaves than are wanted."""


class _Walker:
    def __init__(self, program: Program, detectors: tuple[str, ...], max_places: int) -> None:
        self._program = program
        self._detectors = detectors
        self._max_places = max_places
        self._containers: list[tuple[int, int]] = []
        self.found = Walk()

    def document(self, text: bytes, levels: int) -> None:
        scope = self._new_scope(named=False)
        self._element(text, self._program.root, Where(ROOT, ROOT), scope, levels, records=True, opened=True)

    def _element(
        self, raw: Raw, state: State, where: Where, scope: int | None, levels: int, *, records: bool, opened: bool
    ) -> None:
        """Walk the root or an element of an array: a scope of its own if it names a person, or if `scope` is None."""
        if opened and state.subject and _names_somebody(raw):
            scope = self._new_scope(named=True)
        self._value(raw, state, where, scope, levels, records=records, opened=opened)

    def _value(
        self, raw: Raw, state: State, where: Where, scope: int | None, levels: int, *, records: bool, opened: bool
    ) -> None:
        """Walk a value. `scope` None: it is a record, a scope of its own; `opened`: the reader opens what is around."""
        first = first_byte(raw)
        if first == _QUOTE and levels and (text := _as_document(raw)) is not None:
            self._value(text, state, where, scope, levels - 1, records=records, opened=opened)
        elif first == OBJECT:
            self._object(raw, state, where, scope, levels, records=records, opens=opened and state.opens)
        elif first == ARRAY:
            self._array(raw, state, where, scope, levels, records=records, opens=opened and state.opens)
        else:
            scope = self._met(scope, state)
            self._leaf(raw, state, where, scope, state.subject if opened and _names_somebody(raw) else "")

    def _object(
        self, raw: Raw, state: State, where: Where, scope: int | None, levels: int, *, records: bool, opens: bool
    ) -> None:
        members = decode_object(raw)
        known = self._program.resolve(state)
        below = {name: known.get(fold_name(name), state.other_name) for name in members}
        if opens and any(s.subject and _names_somebody(members[name]) for name, s in below.items()):
            scope, records = self._new_scope(named=True), False
        scope = self._met(scope, state)
        if not members:
            self._leaf(raw, state, where, scope, "")
            return
        self._containers.append((state.cell, scope))
        is_table = _is_table(members, known)
        if is_table:
            names = frozenset(known)
            self.found.hidden[where.safe] = self.found.hidden.get(where.safe, names) & names
        for name, value in members.items():
            folded = fold_name(name)
            told: str | None = None
            if folded in known:
                told = name if is_ordinary_name(name) else folded
            elif not is_table and is_ordinary_name(name):
                told = name
            inner = Where(name_path(where.exact, name), member_path(where.safe, told), where)
            self._value(value, below[name], inner, scope, levels, records=records, opened=opens)
        self._containers.pop()

    def _array(
        self, raw: Raw, state: State, where: Where, scope: int | None, levels: int, *, records: bool, opens: bool
    ) -> None:
        scope = self._met(scope, state)
        self._program.resolve(state)
        items = decode_array(raw)
        if not items:
            self._leaf(raw, state, where, scope, "")
            return
        # The first array on the way down, no person around it: each of its elements is a record.
        each = None if records and opens else scope
        self._containers.append((state.cell, scope))
        for at, item in enumerate(items):
            below = state.indexes.get(at, state.other_index)
            inner = Where(f"{where.exact}[{at}]", element_path(where.safe, at), where)
            self._element(item, below, inner, each, levels, records=False, opened=opens)
        self._containers.pop()

    def _new_scope(self, *, named: bool) -> int:
        self.found.scopes.append(WalkedScope(named))
        return len(self.found.scopes) - 1

    def _met(self, scope: int | None, state: State) -> int:
        """Return the scope, a new one if there is none yet, after noting that the cell of `state` meets it."""
        if scope is None:
            scope = self._new_scope(named=False)
        if state.cell != NONE:
            self.found.scopes[scope].cells.add(state.cell)
        return scope

    def _leaf(self, raw: Raw, state: State, where: Where, scope: int, subject: str) -> None:
        if len(self.found.leaves) == self._max_places:
            raise _Enough
        containers = tuple(c for c in self._containers if c[0] != NONE and c != (state.cell, scope))
        detectors = self._detected(raw) if self._detectors else ()
        self.found.leaves.append(Leaf(where, _type_of(raw), scope, state.cell, subject, detectors, containers))

    def _detected(self, raw: Raw) -> tuple[str, ...]:
        first = first_byte(raw)
        if first in (OBJECT, ARRAY) or first in _TYPES:
            return ()
        return tuple(sorted(recognises(self._detectors, *decode_leaf(bytes(raw)))))


def _is_table(members: Mapping[str, msgspec.Raw], known: Mapping[str, State]) -> bool:
    """True for what looks like a table whose keys are data: many members all of one type, or very many."""
    others = [value for name, value in members.items() if fold_name(name) not in known]
    return len(others) > MAX_NAMES or (len(others) > MAX_ALIKE and len({_shape(value) for value in others}) == 1)


def _shape(raw: Raw) -> int:
    first = first_byte(raw)
    return first if first in (_QUOTE, OBJECT, ARRAY) or first in _TYPES else 0


def _names_somebody(raw: Raw) -> bool:
    """True for a number and a string that is not blank."""
    return bool(subject_text(raw))


def _type_of(raw: Raw) -> JsonType:
    first = first_byte(raw)
    if first == _QUOTE:
        if len(raw) == 2:
            return JsonType.EMPTY
        return JsonType.JSON if _as_document(raw) is not None else JsonType.STRING
    if first in (OBJECT, ARRAY):
        return JsonType.OBJECT if first == OBJECT else JsonType.ARRAY
    return _TYPES.get(first, JsonType.NUMBER)


def _as_document(raw: Raw) -> bytes | None:
    """Return the JSON object or array that a string holds, or None."""
    data = bytes(raw)
    if b"{" not in data and b"[" not in data and b"\\" not in data:
        return None
    text = decode_string(data).encode("utf-8", "surrogatepass").strip(WHITE_SPACE)
    if text[:1] not in (b"{", b"["):
        return None
    try:
        _is_document(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return text
