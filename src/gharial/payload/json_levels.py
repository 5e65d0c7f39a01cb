"""What pass one keeps for pass two: each opened container, decoded once, and what the plan says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from gharial.model.finding import Kind
from gharial.model.place import fold_name
from gharial.model.plan import NONE
from gharial.payload.json_text import decode_leaf, encode_string
from gharial.payload.program import Act, Program, State

OBJECT, ARRAY = ord("{"), ord("[")

decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode

_SHORT_BYTES = 256
_NEVER = -(1 << 62)


def first_byte(value: bytes | msgspec.Raw) -> int:
    """Return the byte that tells a value's type."""
    # Copying a short value is quicker than a view; copying a long one at each level would be quadratic.
    return bytes(value)[0] if len(value) < _SHORT_BYTES else memoryview(value)[0]


def subject_text(value: bytes | msgspec.Raw) -> str:
    """Return the text by which a value names a person: a string's characters, a number's literal, else empty."""
    if first_byte(value) in (OBJECT, ARRAY):
        return ""
    kind, text = decode_leaf(bytes(value))
    return text if kind in (Kind.STRING, Kind.NUMBER) else ""


class OpenScope:
    """A scope while the cells that meet it are being found. `index` is NONE unless it is reported."""

    __slots__ = ("cells", "index", "subjects", "variant")

    def __init__(self, subjects: tuple[tuple[str, str], ...]) -> None:
        self.cells: set[int] = set()
        self.subjects = subjects
        self.index = NONE
        self.variant = 0


@dataclass(frozen=True, slots=True)
class FlatActs:
    """What is done, in one variant, with an object of which no member is opened.

    `writes` are (member, act, step) of the members that stay; `counts` are (step, how often) of all acts with a step.
    """

    writes: tuple[tuple[int, Act, int], ...]
    counts: tuple[tuple[int, int], ...]
    unlisted: int


class Shape:
    """What the plan says of an object with these names at this state. Records of one kind share one shape.

    `opening` are (member, its state) where a container would be opened. `cells` are met by an object that holds no
    container in such a place; `settled_cells` by every object, whatever its values.
    """

    __slots__ = ("_flat", "cells", "name_bytes", "opening", "prefixes", "settled_cells", "states", "subjects")

    def __init__(self, program: Program, state: State, names: Sequence[str]) -> None:
        known = program.resolve(state)
        states = [known.get(fold_name(name), state.other_name) for name in names]
        quoted = [encode_string(name) for name in names]
        self.states = states
        # As they would be written without escapes; used only where the text is known to hold exactly these bytes.
        self.prefixes = [b"," + name + b":" for name in quoted]
        # {"name":value,"name":value} less the values, if nothing is escaped: the shortest way to write these names. A
        # name that needs an escape may have two shortest ones (\u001f, \u001F), so it always takes the closer look.
        escaped = any(b"\\" in name for name in quoted)
        self.name_bytes = _NEVER if escaped else sum(map(len, self.prefixes)) + (1 if names else 2)
        self.opening = [(at, below) for at, below in enumerate(states) if below.opens]
        self.subjects = [(at, below.subject) for at, below in enumerate(states) if below.subject]
        self.cells = frozenset(below.cell for below in states) - {NONE}
        self.settled_cells = frozenset(below.cell for below in states if not below.opens) - {NONE}
        self._flat: dict[int, FlatActs] = {}

    def subjects_of(self, values: Sequence[msgspec.Raw]) -> tuple[tuple[str, str], ...]:
        """Return (id space, text) of the subjects among these values."""
        return tuple((space, text) for at, space in self.subjects if (text := subject_text(values[at])))

    def flat(self, variant: int) -> FlatActs:
        """Return what is done in this variant with an object none of whose members is opened."""
        if (acts := self._flat.get(variant)) is None:
            acts = self._flat[variant] = _flat_acts(below.acts[variant] for below in self.states)
        return acts


def _flat_acts(acts: Iterable[tuple[Act, int]]) -> FlatActs:
    writes: list[tuple[int, Act, int]] = []
    counts: dict[int, int] = {}
    unlisted = 0
    for at, (act, step) in enumerate(acts):
        if act is not Act.DROP:
            writes.append((at, act, step))
        if step == NONE:
            unlisted += 1
        else:
            counts[step] = counts.get(step, 0) + 1
    return FlatActs(tuple(writes), tuple(counts.items()), unlisted)


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
        self.children: dict[int, Object | Array] | None = None


class Array:
    """An opened array: its elements, opened or raw. `scopes` are theirs, or None if all are in `scope`."""

    __slots__ = ("items", "scope", "scopes", "state")

    def __init__(self, state: State, scope: OpenScope, items: list[Entry]) -> None:
        self.state = state
        self.scope = scope
        self.items = items
        self.scopes: list[OpenScope] | None = None


Entry = Object | Array | msgspec.Raw | bytes
