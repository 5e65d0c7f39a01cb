"""YAML that people write, read into a tree in which every key and value knows its line and column.

The strict part of YAML 1.2 that policies and `gharial.yaml` need: one document of mappings with text keys, sequences
and scalars of the core schema. Anchors, aliases, merge keys, tags and directives are mistakes with a place: each of
them lets a file say something that its reader does not see. Work is bounded: text, values and depth.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)

from gharial.model.errors import Problem

MAX_TEXT_CHARS = 1_000_000
"""A longer text is not read at all."""
MAX_NODES = 100_000
"""Keys and values of one file; about two seconds of work."""
MAX_DEPTH = 64
"""Nesting of mappings and sequences. Deeper ones are not read, so walking a tree by recursion is safe."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A text, number, boolean or null. `text` is what stands in the file, without quotes; lines, columns from 1."""

    value: str | int | float | bool | None
    text: str
    line: int
    column: int
    quoted: bool = False


@dataclass(frozen=True, slots=True)
class Items:
    """A sequence, at the place of its first character."""

    items: tuple[Node, ...]
    line: int
    column: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One key of a mapping and what belongs to it. `key.value` is always a text (`1: x` has the key "1")."""

    key: Scalar
    value: Node

    @property
    def name(self) -> str:
        """The key's text."""
        return self.key.text


@dataclass(frozen=True, slots=True)
class Entries:
    """A mapping in the order of the file; no name occurs twice."""

    entries: tuple[Entry, ...]
    line: int
    column: int

    def find(self, name: str) -> Entry | None:
        """The entry with this key, or None."""
        return next((entry for entry in self.entries if entry.name == name), None)


Node = Scalar | Items | Entries


def parse_yaml(text: str, file: str) -> tuple[Node | None, list[Problem]]:
    """Read one YAML document; `file` is the name that problems carry.

    Returns the tree and every mistake found. The tree is None where the text can't be read to its end; where there are
    problems *and* a tree, the tree lacks what was refused: go on to find more mistakes, but never use it.
    """
    if len(text) > MAX_TEXT_CHARS:
        return None, [Problem(file, 1, 1, f"the file is longer than {MAX_TEXT_CHARS:,} characters")]
    reader = _Reader(file)
    try:
        reader.read(YAML(typ="safe", pure=True).parse(text))
    except _TooMuch as stop:
        reader.problems.append(stop.problem)
        return None, reader.problems
    except MarkedYAMLError as error:
        reader.problems.append(_syntax_problem(error, file))
        return None, reader.problems
    except YAMLError as error:
        # Only the reader raises without a mark: a character that YAML does not allow.
        line, column = _line_and_column(text, getattr(error, "position", 0))
        reader.problems.append(Problem(file, line, column, "a character that YAML does not allow"))
        return None, reader.problems
    except (ValueError, OverflowError):
        # The scanner turns escapes and directives into numbers without checking them: "\UFFFFFFFF".
        reader.problems.append(Problem(file, *reader.place, "not readable as YAML after this place"))
        return None, reader.problems
    if reader.root is None and not reader.problems:
        reader.problems.append(Problem(file, 1, 1, "the file is empty"))
    return reader.root, reader.problems


def to_plain(node: Node) -> object:
    """Return the tree as dict, list and scalars, for a validator that knows no places."""
    if isinstance(node, Entries):
        return {entry.name: to_plain(entry.value) for entry in node.entries}
    if isinstance(node, Items):
        return [to_plain(item) for item in node.items]
    return node.value


def find_place(root: Node, path: Sequence[str | int], *, key: bool = False) -> tuple[int, int]:
    """Return line and column of what `path` (keys and indexes from the root) leads to.

    Where the path leads out of the tree, as for a missing key, it is the place of the last node on the way that
    exists. With `key`, the place of the last key itself instead of its value.
    """
    node, place = root, (root.line, root.column)
    for part in path:
        if isinstance(node, Entries):
            entry = node.find(str(part))
            if entry is None:
                break
            node = entry.value
            place = (entry.key.line, entry.key.column) if key else (node.line, node.column)
        elif isinstance(node, Items) and isinstance(part, int) and 0 <= part < len(node.items):
            node = node.items[part]
            place = (node.line, node.column)
        else:
            # Validators add parts of their own (the name of a union's branch): they lead nowhere in the file.
            continue
    return place


class _TooMuch(Exception):
    """A bound is reached: reading stops here."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.what)
        self.problem = problem


@dataclass(slots=True)
class _Open:
    """A mapping or sequence whose end has not come. In a mapping `key` holds the key that waits for its value."""

    mapping: bool
    line: int
    column: int
    items: list[Node] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    names: dict[str, int] = field(default_factory=dict)
    key: Scalar | None = None
    # A refused key (a duplicate, a merge) still has a value in the text; it is read and thrown away.
    skip_value: bool = False


class _Reader:
    """Builds the tree from parser events, with a stack of its own: hostile nesting meets no recursion here."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.problems: list[Problem] = []
        self.root: Node | None = None
        self.place = (1, 1)
        self._open: list[_Open] = []
        self._nodes = 0
        self._documents = 0

    def read(self, events: Iterator[Event]) -> None:
        for event in events:
            self.place = (event.start_mark.line + 1, event.start_mark.column + 1)
            match event:
                case DocumentStartEvent():
                    self._begin_document(event)
                case ScalarEvent() | AliasEvent():
                    self._count()
                    self._refuse_extras(event)
                    self._put(self._scalar(event))
                case MappingStartEvent() | SequenceStartEvent():
                    self._count()
                    self._refuse_extras(event)
                    if len(self._open) >= MAX_DEPTH:
                        raise _TooMuch(Problem(self.file, *self.place, f"nested deeper than {MAX_DEPTH} levels"))
                    self._open.append(_Open(isinstance(event, MappingStartEvent), *self.place))
                case MappingEndEvent() | SequenceEndEvent():
                    self._close()
                case _:
                    pass

    def _problem(self, what: str) -> None:
        self.problems.append(Problem(self.file, *self.place, what))

    def _begin_document(self, event: DocumentStartEvent) -> None:
        self._documents += 1
        if self._documents > 1:
            raise _TooMuch(Problem(self.file, *self.place, "a second document begins here; one file holds one"))
        if event.version or event.tags:
            self._problem("directives (%YAML, %TAG) are not supported")

    def _count(self) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise _TooMuch(Problem(self.file, *self.place, f"more than {MAX_NODES:,} keys and values"))

    def _refuse_extras(self, event: ScalarEvent | AliasEvent | MappingStartEvent | SequenceStartEvent) -> None:
        if isinstance(event, AliasEvent):
            self._problem("aliases (*name) are not supported; write the value out")
            return
        if event.anchor is not None:
            self._problem("anchors (&name) are not supported; write the value out where it is needed")
        if event.tag is not None:
            self._problem("tags (!name) are not supported; put quotes around a text that begins with '!'")

    def _scalar(self, event: ScalarEvent | AliasEvent) -> Scalar:
        if isinstance(event, AliasEvent):
            return Scalar(None, "", *self.place)
        text: str = event.value
        plain = event.style is None or event.style == ""
        return Scalar(self._core_value(text) if plain else text, text, *self.place, quoted=not plain)

    def _core_value(self, text: str) -> str | int | float | bool | None:
        """Resolve a plain scalar by the core schema (YAML 1.2.2, section 10.3.2): `yes` and `on` stay texts."""
        if text in ("", "~", "null", "Null", "NULL"):
            return None
        if text in ("true", "True", "TRUE"):
            return True
        if text in ("false", "False", "FALSE"):
            return False
        if not _NUMBER.fullmatch(text):
            return text
        if len(text) > _MAX_NUMBER_CHARS:
            self._problem("this number is too long; put quotes around it if it is a text")
            return text
        if _INTEGER.fullmatch(text):
            return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))

    def _put(self, node: Node) -> None:
        if not self._open:
            self.root = node
            return
        top = self._open[-1]
        if not top.mapping:
            top.items.append(node)
        elif top.skip_value:
            top.skip_value = False
        elif top.key is not None:
            if isinstance(node, Scalar) and node.value is None and not node.text:
                # Where nothing stands behind a key, the parser names the place of what comes next.
                node = Scalar(None, "", top.key.line, top.key.column)
            top.entries.append(Entry(top.key, node))
            top.key = None
        else:
            self._put_key(top, node)

    def _put_key(self, top: _Open, node: Node) -> None:
        top.skip_value = True
        if not isinstance(node, Scalar):
            self.problems.append(Problem(self.file, node.line, node.column, "a key must be a text"))
        elif node.text == "<<":
            self.problems.append(Problem(self.file, node.line, node.column, "merge keys (<<) are not supported"))
        elif node.text in top.names:
            what = f"{quote(node.text)} stands here a second time; the first is in line {top.names[node.text]}"
            self.problems.append(Problem(self.file, node.line, node.column, what))
        else:
            top.names[node.text] = node.line
            top.key = Scalar(node.text, node.text, node.line, node.column)
            top.skip_value = False

    def _close(self) -> None:
        done = self._open.pop()
        if done.mapping:
            self._put(Entries(tuple(done.entries), done.line, done.column))
        else:
            self._put(Items(tuple(done.items), done.line, done.column))


_MAX_NUMBER_CHARS = 40
_INTEGER = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_NUMBER = re.compile(
    r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"
    r"|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
)
_MAX_QUOTED_CHARS = 60


def quote(text: str) -> str:
    """Return `text` in quotes, on one line and short enough for a message."""
    shown = text if len(text) <= _MAX_QUOTED_CHARS else text[:_MAX_QUOTED_CHARS] + "…"
    return repr(shown)


def _syntax_problem(error: MarkedYAMLError, file: str) -> Problem:
    mark = error.problem_mark or error.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = str(error.problem or "not readable as YAML")
    if error.context:
        what = f"{what} ({error.context})"
    return Problem(file, line, column, " ".join(what.split())[:200])


def _line_and_column(text: str, position: int) -> tuple[int, int]:
    before = text[:position]
    return before.count("\n") + 1, position - (before.rfind("\n") + 1) + 1
