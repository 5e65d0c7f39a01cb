"""A slow, plain executor of plans over JSON, written from the rules alone: what the real one is compared with.

It parses with regular expressions into a tree that keeps each value's text, annotates the whole tree, and writes it
recursively. It shares no code with the payload room.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gharial.model.finding import Kind, Transform
from gharial.model.names import is_blank
from gharial.model.place import fold_name
from gharial.model.plan import NONE, NOWHERE, Op, Plan, Unlisted

_WS = re.compile(r"[ \t\n\r]*")
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_OTHER = re.compile(r"[-+.0-9a-zA-Z]+")


class Refused(Exception):
    """The oracle refuses: the text names the kind of error."""


@dataclass
class Value:
    """One value of a document: `text` as written; children are (name as written or None, value)."""

    text: str = ""
    kind: str = "scalar"
    children: list[tuple[str | None, Value]] = field(default_factory=list)
    # filled by the annotation
    path: str = ""
    cell: int = NONE
    opened: bool = False
    explicit: bool = False
    scope: int = -1


@dataclass
class Seen:
    """A scope as the oracle found it."""

    subjects: list[tuple[str, str]]
    cells: set[int] = field(default_factory=set)
    values: list[tuple[int, Kind, str]] = field(default_factory=list)


def parse(text: str) -> Value:
    """Parse a valid document."""
    value, end = _value(text, _skip(text, 0))
    assert _skip(text, end) == len(text)
    return value


def _skip(text: str, at: int) -> int:
    found = _WS.match(text, at)
    assert found
    return found.end()


def _value(text: str, at: int) -> tuple[Value, int]:
    start = at
    if text[at] not in "{[":
        found = (_STRING if text[at] == '"' else _OTHER).match(text, at)
        assert found
        return Value(found[0]), found.end()
    value = Value(kind="object" if text[at] == "{" else "array")
    at = _skip(text, at + 1)
    while text[at] not in "}]":
        name = None
        if value.kind == "object":
            found = _STRING.match(text, at)
            assert found
            name = found[0]
            at = _skip(text, _skip(text, found.end()) + 1)
        child, at = _value(text, at)
        value.children.append((name, child))
        at = _skip(text, at)
        if text[at] == ",":
            at = _skip(text, at + 1)
    value.text = text[start : at + 1]
    return value, at + 1


def _leaves(value: Value) -> list[str]:
    if value.kind == "scalar":
        return [value.text]
    return [text for _, child in value.children for text in _leaves(child)]


def _leaf(text: str) -> tuple[Kind, str]:
    if text[0] == '"':
        return Kind.STRING, json.loads(text)
    if text in ("true", "false"):
        return Kind.BOOLEAN, text
    return (Kind.NULL, "") if text == "null" else (Kind.NUMBER, text)


def _written(kind: Kind, text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\x7f") if kind is Kind.STRING else text or "null"


@dataclass
class Result:
    """What the oracle made of a document."""

    text: str
    changed: bool
    counts: dict[int, int]
    unlisted: int
    places: set[tuple[str, int, int]]


class Oracle:
    """Runs one plan over one document."""

    def __init__(self, plan: Plan, text: str) -> None:
        self.plan = plan
        self.text = text
        self.root = parse(text)
        self.seen: list[Seen] = [Seen([])]
        self._annotate(self.root, 0, NONE, explicit=True, scope=0, records=True, path="$", in_object=False)
        self.reported = [at for at, scope in enumerate(self.seen) if scope.cells]

    def _reach(self, node: int) -> set[int]:
        found: set[int] = set()
        edge = {node}
        while edge:
            step = set()
            for one in edge:
                n = self.plan.nodes[one]
                step |= {*n.names.values(), *n.indexes.values(), n.other_name, n.other_index} - {NOWHERE}
            edge = step - found
            found |= step
        return {self.plan.nodes[one].cell for one in found} - {NONE}

    def _opens(self, node: int, cell: int) -> bool:
        return node != NOWHERE and (cell == NONE or self._reach(node) - {cell} != set())

    def _next(self, node: int, name: str | None, index: int) -> tuple[int, bool]:
        if node == NOWHERE:
            return NOWHERE, False
        here = self.plan.nodes[node]
        if name is not None:
            folded = fold_name(json.loads(name))
            return (here.names[folded], True) if folded in here.names else (here.other_name, False)
        return (here.indexes[index], True) if index in here.indexes else (here.other_index, False)

    def _own_cell(self, node: int) -> int:
        return NONE if node == NOWHERE else self.plan.nodes[node].cell

    def _subject(self, value: Value, node: int, inherited: int) -> tuple[str, str] | None:
        own = self._own_cell(node)
        if value.kind != "scalar" or own in (NONE, inherited) or not self.plan.cells[own].subject:
            return None
        kind, text = _leaf(value.text)
        return (
            (self.plan.cells[own].subject, text) if kind in (Kind.STRING, Kind.NUMBER) and not is_blank(text) else None
        )

    def _annotate(
        self, value: Value, node: int, inherited: int, *, explicit: bool, scope: int, records: bool, path: str,
        in_object: bool,
    ) -> None:  # fmt: skip
        own = self._own_cell(node)
        cell = inherited if own == NONE else own
        value.cell, value.explicit, value.path = cell, explicit, path
        value.opened = value.kind != "scalar" and self._opens(node, cell)
        if not in_object and (subject := self._subject(value, node, inherited)):
            self.seen.append(Seen([subject]))
            scope = len(self.seen) - 1
        if value.opened and value.kind == "object":
            names = [json.loads(name or "") for name, _ in value.children]
            if len(set(names)) < len(names):
                raise Refused("body.duplicate_name")
            subjects = [
                found
                for name, child in value.children
                if (found := self._subject(child, self._next(node, name, 0)[0], cell))
            ]
            if subjects:
                self.seen.append(Seen(subjects))
                scope, records = len(self.seen) - 1, False
        value.scope = scope
        if cell != NONE:
            self.seen[scope].cells.add(cell)
        if not value.opened:
            if cell != NONE and self.plan.cells[cell].report:
                self.seen[scope].values += [(cell, *_leaf(text)) for text in _leaves(value)]
            return
        for at, (name, child) in enumerate(value.children):
            below, named = self._next(node, name, at)
            inner = scope
            if value.kind == "array" and records:
                self.seen.append(Seen([]))
                inner = len(self.seen) - 1
            self._annotate(
                child,
                below,
                cell,
                explicit=named,
                scope=inner,
                records=records and value.kind == "object",
                path=path + (f"[{at}]" if name is None else _segment(json.loads(name))),
                in_object=name is not None,
            )

    def finish(self, variants: Sequence[int], transforms: Sequence[Transform]) -> Result:
        """Pass two."""
        self.result = Result("", changed=False, counts={}, unlisted=0, places=set())
        self.transforms = transforms
        self.variants = dict(zip(self.reported, variants, strict=True))
        text = self._write(self.root)
        if text is None:
            text = {"object": "{}", "array": "[]"}.get(self.root.kind, "null")
        self.result.text = text if self.result.changed else self.text
        return self.result

    def _count(self, step: int, scope: int, path: str) -> None:
        if step == NONE:
            self.result.unlisted += 1
        else:
            self.result.counts[step] = self.result.counts.get(step, 0) + 1
            self.result.places.add((path, step, self.reported.index(scope)))

    def _write(self, value: Value) -> str | None:
        plan = self.plan
        if value.cell == NONE:
            step = NONE
            op = {Unlisted.DROP: Op.DROP, Unlisted.PASS: Op.CLEAR, Unlisted.REDACT: None}[plan.unlisted]
        else:
            step = plan.cells[value.cell].steps[self.variants[value.scope]]
            op = plan.steps[step].op
        if value.opened and not (value.cell != NONE and op is Op.DROP):
            kept = [(name, text) for name, child in value.children if (text := self._write(child)) is not None]
            may_go = value.cell == NONE and plan.unlisted is Unlisted.DROP and not value.explicit
            if may_go and not kept and not (value.kind == "array" and not value.children):
                self.result.changed = True
                self.result.unlisted += not value.children
                return None
            return _joined(value.kind, kept)
        if op is Op.DROP:
            self._count(step, value.scope, value.path)
            self.result.changed = True
            return None
        if op is Op.CLEAR:
            self._count(step, value.scope, value.path)
            return value.text
        return self._replaced(
            value, step, value.scope, value.path, self._blank if op is None else self.transforms[step]
        )

    def _blank(self, kind: Kind, text: str) -> tuple[Kind, str]:
        redaction = self.plan.redaction
        return kind, {
            Kind.STRING: redaction.string,
            Kind.NUMBER: redaction.number,
            Kind.BOOLEAN: redaction.boolean,
            Kind.NULL: "",
        }[kind]

    def _replaced(self, value: Value, step: int, scope: int, path: str, change: Callable[..., tuple[Kind, str]]) -> str:
        if value.kind != "scalar":
            names = [json.loads(name) for name, _ in value.children if name is not None]
            if len(set(names)) < len(names):
                raise Refused("body.duplicate_name")
            return _joined(
                value.kind,
                [
                    (
                        name,
                        self._replaced(
                            child,
                            step,
                            scope,
                            path + (f"[{at}]" if name is None else _segment(json.loads(name))),
                            change,
                        ),
                    )
                    for at, (name, child) in enumerate(value.children)
                ],
            )
        new = _written(*change(*_leaf(value.text)))
        self.result.changed |= new != value.text
        self._count(step, scope, path)
        return new


def _joined(kind: str, children: Sequence[tuple[str | None, str]]) -> str:
    inner = ",".join(text if name is None else f"{name}:{text}" for name, text in children)
    return "{" + inner + "}" if kind == "object" else "[" + inner + "]"


def _segment(name: str) -> str:
    if name.isidentifier():
        return "." + name
    quoted = json.dumps(name, ensure_ascii=False)[1:-1].replace('\\"', '"').replace("'", "\\'")
    return f"['{quoted}']"
