"""What was found and done in a body, and by which rule; never the value.

`Scope` comes out of pass one (who is in here, and which cells meet them), `Rewritten` out of pass two.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


class Kind(enum.StrEnum):
    """The JSON type of a leaf value."""

    STRING = "s"
    NUMBER = "n"
    BOOLEAN = "b"
    NULL = "0"


Transform = Callable[[Kind, str], tuple[Kind, str]]
"""A step made runnable: the type and text of a value in, those of its replacement out.

The text of a string is its characters, of a number its literal digit for digit, of a boolean `true` or `false`, of null
empty. Total: a value that a technique does not fit comes out redacted, never clear; only a missing key raises.
"""


@dataclass(slots=True)
class Scope:
    """The part of a body that belongs to one record: an object that holds a subject, or what encloses no such object.

    `subjects` are (id space, text) of the subject values that the object holds, in document order; empty for a record
    whose person the body does not name. `cells` are the plan's cells that meet a value in this scope. `values` are
    (cell, type, text) of the scalars that a cell with `report` meets. The texts are values: they stay in memory, for
    digests and decisions and nothing else, hence not in the repr.
    """

    cells: frozenset[int]
    subjects: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    values: tuple[tuple[int, Kind, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Finding:
    """One place and what was done there. `scope` is the index of its scope; `step` an index of the plan's steps."""

    place: str
    step: int
    scope: int


@dataclass(frozen=True, slots=True)
class Rewritten:
    """The body that may leave, and what was done: how often each step was applied (index of `Plan.steps` -> count).

    `unlisted` counts the values that no cell covers. `changed` is false if `body` is the original, byte for byte.
    `findings` is filled only where the caller asked for every place.
    """

    body: bytes = field(repr=False)
    changed: bool
    counts: Mapping[int, int]
    unlisted: int = 0
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a reader accepts (`limits` in gharial.yaml). Beyond each of them the body is refused as a whole."""

    body_bytes: int = 16_000_000
    depth: int = 64
    values: int = 200_000
    inflate_ratio: int = 100
    row_bytes: int = 1_000_000
