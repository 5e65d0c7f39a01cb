"""What pass one keeps for pass two: each opened container, decoded once, and what the plan says of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from gharial.model.finding import Kind
from gharial.model.names import is_blank
from gharial.model.place import fold_name
from gharial.model.plan import NONE
from gharial.payload.json_text import decode_leaf, decode_string, encode_string
from gharial.payload.program import Act, Program, State

OBJECT, ARRAY = ord("{"), ord("[")

decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_records = msgspec.json.Decoder(list[dict[str, msgspec.Raw]]).decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode

_SHORT_BYTES = 256
_KEPT_SHAPES = 256
_KEPT_NAMES = 64
_FIELD_NAME = re.compile(r"[$@]?[A-Za-z_-]{1,40}")
_NEVER = -(1 << 62)
_NO_CELLS: frozenset[int] = frozenset()


def first_byte(value: bytes | msgspec.Raw) -> int:
    """Return the byte that tells a value's type."""
    # Copying a short value is quicker than a view; copying a long one at each level would be quadratic.
    return bytes(value)[0] if len(value) < _SHORT_BYTES else memoryview(value)[0]


def subject_text(value: bytes | msgspec.Raw) -> str:
    """Return the text by which a value names a person: a string's characters, a number's literal, else empty.

    A blank string names nobody: it would be one person for all whose id is missing.
    """
    try:
        text = decode_string(value)
    except msgspec.ValidationError:
        pass  # not a string
    else:
        return "" if is_blank(text) else text
    if first_byte(value) in (OBJECT, ARRAY):
        return ""
    kind, text = decode_leaf(bytes(value))
    return text if kind is Kind.NUMBER else ""


class OpenScope:
    """A scope while the cells that meet it are being found. `index` is NONE unless it is reported."""

    __slots__ = ("cells", "index", "subjects", "variant")

    def __init__(self, subjects: tuple[tuple[str, str], ...]) -> None:
        self.cells: frozenset[int] = _NO_CELLS
        self.subjects = subjects
        self.index = NONE
        self.variant = 0

    def meets(self, cell: int) -> None:
        """Note that the cell meets a value in this scope."""
        if cell not in self.cells:
            self.cells |= {cell}


@dataclass(frozen=True, slots=True, eq=False)
class FlatActs:
    """What is done, in one variant, with an object of which no member is opened.

    `drops` are the names that go, `changes` are (name, act, step) of those whose values are replaced; all others are
    copied. `counts` are (step, how often) of all acts with a step.
    """

    drops: tuple[str, ...]
    changes: tuple[tuple[str, Act, int], ...]
    counts: tuple[tuple[int, int], ...]
    unlisted: int


class Shape:
    """What the plan says of an object with these names at this state. Records of one kind share one shape.

    `opening` are (member, its state) where a container would be opened or a value is reported, `reports` those of them
    where it is reported. `cells` are met by an object that holds no container in such a place; `settled_cells` by every
    object, whatever its values.
    """

    __slots__ = (
        "_flat",
        "cells",
        "name_bytes",
        "names",
        "opening",
        "prefixes",
        "reports",
        "settled_cells",
        "states",
        "subjects",
    )

    def __init__(self, program: Program, state: State, names: Sequence[str]) -> None:
        known = program.resolve(state)
        states = [known.get(fold_name(name), state.other_name) for name in names]
        quoted = [encode_string(name) for name in names]
        self.names = names
        self.states = states
        # As they would be written without escapes; used only where the text is known to hold exactly these bytes.
        self.prefixes = [b"," + name + b":" for name in quoted]
        # {"name":value,"name":value} less the values, if nothing is escaped: the shortest way to write these names. A
        # name that needs an escape may have two shortest ones (\u001f, \u001F), so it always takes the closer look.
        escaped = any(b"\\" in name for name in quoted)
        self.name_bytes = _NEVER if escaped else sum(map(len, self.prefixes)) + (1 if names else 2)
        self.opening = [(at, below) for at, below in enumerate(states) if below.opens or below.reports]
        self.reports = [(at, below) for at, below in self.opening if below.reports]
        self.subjects = [(name, below.subject) for name, below in zip(names, states, strict=True) if below.subject]
        self.cells = frozenset(below.cell for below in states) - {NONE}
        self.settled_cells = frozenset(below.cell for below in states if not below.opens) - {NONE}
        self._flat: dict[int, FlatActs] = {}

    def subjects_of(self, members: dict[str, msgspec.Raw]) -> tuple[tuple[str, str], ...]:
        """Return (id space, text) of the subjects among these members, in their order."""
        found = []
        for name, space in self.subjects:
            if text := subject_text(members[name]):
                found.append((space, text))
        return tuple(found)

    def flat(self, variant: int) -> FlatActs:
        """Return what is done in this variant with an object none of whose members is opened."""
        if (acts := self._flat.get(variant)) is None:
            acts = self._flat[variant] = _flat_acts(self.names, [below.acts[variant] for below in self.states])
        return acts


def shape_of(program: Program, state: State, names: tuple[str, ...]) -> Shape:
    """Return the shape of an object with these names at this state; that of a usual object is kept for the next body.

    Bounded, and only if every name looks like a field's or is one of the plan's: names may also be data (an object with
    a member for each person), and of those nothing is kept.
    """
    shape = program.shapes.get((state, names))
    if shape is None:
        shape = Shape(program, state, names)
        known = program.resolve(state)
        if len(names) <= _KEPT_NAMES and all(_FIELD_NAME.fullmatch(n) or fold_name(n) in known for n in names):
            if len(program.shapes) >= _KEPT_SHAPES:
                program.shapes.clear()
            program.shapes[state, names] = shape
    return shape


def _flat_acts(names: Sequence[str], acts: Sequence[tuple[Act, int]]) -> FlatActs:
    counts: dict[int, int] = {}
    for _, step in acts:
        counts[step] = counts.get(step, 0) + 1
    unlisted = counts.pop(NONE, 0)
    found = list(zip(names, acts, strict=True))
    return FlatActs(
        drops=tuple(name for name, (act, _) in found if act is Act.DROP),
        changes=tuple((name, act, step) for name, (act, step) in found if act in (Act.CHANGE, Act.BLANK)),
        counts=tuple(counts.items()),
        unlisted=unlisted,
    )


class Object:
    """An opened object. `children` are the members that were opened in turn, by their position."""

    __slots__ = ("children", "prefixes", "scope", "shape", "state", "values")

    def __init__(
        self, state: State, scope: OpenScope, shape: Shape, values: list[msgspec.Raw], prefixes: list[bytes]
    ) -> None:
        self.state = state
        self.scope = scope
        self.shape = shape
        self.values = values
        self.prefixes = prefixes
        self.children: dict[int, Level] | None = None


class Array:
    """An opened array: its elements, opened or raw. `scopes` are theirs, or None if all are in `scope`."""

    __slots__ = ("items", "scope", "scopes", "state")

    def __init__(self, state: State, scope: OpenScope, items: list[Entry]) -> None:
        self.state = state
        self.scope = scope
        self.items = items
        self.scopes: list[OpenScope] | None = None


class Records:
    """An opened array of nothing but objects that hold scalars only, their names all plainly written.

    The usual page of records, kept in the form that is quickest to write: `found[i]` are the members of record i,
    `shapes[i]` what the plan says of them, `scopes[i]` where they belong. No record has a cell itself.
    """

    __slots__ = ("below", "found", "scope", "scopes", "shapes", "state")

    def __init__(
        self,
        state: State,
        scope: OpenScope,
        below: State,
        found: list[dict[str, msgspec.Raw]],
        shapes: list[Shape],
        scopes: list[OpenScope],
    ) -> None:
        self.state = state
        self.scope = scope
        self.below = below
        self.found = found
        self.shapes = shapes
        self.scopes = scopes

    def as_array(self) -> Array:
        """Return the same as an array like any other."""
        array = Array(self.state, self.scope, [])
        array.scopes = self.scopes
        for members, shape, scope in zip(self.found, self.shapes, self.scopes, strict=True):
            array.items.append(Object(self.below, scope, shape, list(members.values()), shape.prefixes))
        return array


Level = Object | Array | Records
Entry = Level | msgspec.Raw | bytes
