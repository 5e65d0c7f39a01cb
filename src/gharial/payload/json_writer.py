"""Pass two over JSON: writes the new body from what pass one opened. The rules stand in `json_reader`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gharial.model.finding import Finding, Kind, Transform
from gharial.model.plan import NONE
from gharial.payload.json_levels import (
    ARRAY,
    OBJECT,
    Array,
    Entry,
    FlatActs,
    Level,
    Object,
    OpenScope,
    Records,
    decode_array,
    decode_object,
    first_byte,
)
from gharial.payload.json_text import decode_leaf, decode_string, encode_leaf, name_path, scan_names
from gharial.payload.program import Act, Program, State

_COPY, _DROP, _CHANGE, _BLANK = Act.COPY, Act.DROP, Act.CHANGE, Act.BLANK
_STRING = Kind.STRING

_encode_records = msgspec.json.Encoder().encode


class Writer:
    """Collects the pieces of the new body, whether anything changed, and what was counted."""

    __slots__ = (
        "_by_scope",
        "_places",
        "_program",
        "_transforms",
        "changed",
        "counts",
        "findings",
        "parts",
        "unlisted",
    )

    def __init__(
        self,
        program: Program,
        transforms: Sequence[Transform],
        by_scope: Sequence[Sequence[Transform]] | None,
        *,
        want_places: bool,
    ) -> None:
        self._program = program
        self._transforms = transforms
        self._by_scope = by_scope
        self._places = want_places
        self.parts: list[bytes | msgspec.Raw] = []
        self.changed = False
        self.counts = [0] * len(program.plan.steps)
        self.unlisted = 0
        self.findings: list[Finding] = []

    def document(self, root: Entry, state: State, scope: OpenScope) -> None:
        """Write the whole document; where the root would go, an empty value of its type stays."""
        if not self._entry(root, state, scope, "$"):
            self.parts.append(_empty(root))

    def _entry(self, entry: Entry, state: State, scope: OpenScope, path: str) -> bool:
        """Write an element, a member's value or the root; return False if it goes."""
        if isinstance(entry, (Object, Array, Records)):
            return self._container(entry, path)
        return self._settled(entry, state, scope, path)

    def _container(self, level: Level, path: str) -> bool:
        """Write an opened container; return False if it goes."""
        state = level.state
        if state.cell != NONE:
            act, step = state.acts[level.scope.variant]
            if act is _DROP:
                self._count(step, level.scope, path)
                self.changed = True
                return False
        if isinstance(level, Object):
            empty, came_empty = b"{}", not level.values
            left = self._object(level, path)
        elif isinstance(level, Records) and not self._places:
            empty, came_empty = b"[]", False
            left = self._records(level)
        else:
            level = level.as_array() if isinstance(level, Records) else level
            empty, came_empty = b"[]", not level.items
            left = self._array(level, path)
        if left:
            return True
        stays = state.explicit or (isinstance(level, Array) and came_empty)
        if state.cell == NONE and self._program.drops_unlisted and not stays:
            self.changed = True
            if came_empty:
                self.unlisted += 1
            return False
        self.parts.append(empty)
        return True

    def _object(self, level: Object, path: str) -> bool:
        """Write the members that stay, with their braces; without any, write nothing and return False."""
        parts = self.parts
        start = len(parts)
        children, shape = level.children or {}, level.shape
        for at, value in enumerate(level.values):
            mark = len(parts)
            parts.append(level.prefixes[at])
            below = name_path(path, shape.names[at]) if self._places else ""
            if not self._entry(children.get(at, value), shape.states[at], level.scope, below):
                del parts[mark:]
        if len(parts) == start:
            return False
        parts[start] = b"{" + bytes(parts[start])[1:]
        parts.append(b"}")
        return True

    def _records(self, level: Records) -> bool:
        """Write a page of records: the same as the general way, only faster."""
        changed = self.changed
        drops_empty = self._program.drops_unlisted and not level.below.explicit
        pages: list[dict[str, str | msgspec.Raw]] = []
        uses: dict[FlatActs, int] = {}
        for members, shape, scope in zip(level.found, level.shapes, level.scopes, strict=True):
            acts = shape.flat(scope.variant)
            transforms = self._transforms_of(scope)
            uses[acts] = uses.get(acts, 0) + 1
            new: dict[str, str | msgspec.Raw] = members.copy()  # type: ignore[assignment]  # Raw is among them
            for name in acts.drops:
                del new[name]
                changed = True
            for name, act, step in acts.changes:
                value = members[name]
                try:
                    clear = decode_string(value)
                except msgspec.ValidationError:
                    written = self._replacement(bytes(value), act, step, scope)
                else:
                    if act is _CHANGE:
                        kind, text = transforms[step](_STRING, clear)
                        if kind is _STRING and changed:
                            new[name] = text
                            continue
                        written = encode_leaf(kind, text)
                    else:
                        written = self._program.blanks[_STRING]
                if written != bytes(value):
                    changed = True
                new[name] = msgspec.Raw(written)
            if new or not drops_empty:
                pages.append(new)
            else:
                changed = True
                self.unlisted += not members
        for acts, times in uses.items():
            self.unlisted += times * acts.unlisted
            for step, each in acts.counts:
                self.counts[step] += times * each
        self.changed = changed
        if not pages:
            return False
        self.parts.append(_encode_records(pages))
        return True

    def _array(self, level: Array, path: str) -> bool:
        """Write the elements that stay, with their brackets; without any, write nothing and return False."""
        parts = self.parts
        start = len(parts)
        indexes, below = level.state.indexes, level.state.other_index
        scopes, scope = level.scopes, level.scope
        for at, entry in enumerate(level.items):
            mark = len(parts)
            parts.append(b",")
            if indexes:
                below = indexes.get(at, level.state.other_index)
            own = scope if scopes is None else scopes[at]
            if not self._entry(entry, below, own, f"{path}[{at}]" if self._places else ""):
                parts[mark:] = [b",", _empty(entry)] if level.state.keeps else []
        if len(parts) == start:
            return False
        parts[start] = b"["
        parts.append(b"]")
        return True

    def _settled(self, value: bytes | msgspec.Raw, state: State, scope: OpenScope, path: str) -> bool:
        """Write a scalar, or a container that was not opened; return False if it goes."""
        act, step = state.acts[scope.variant]
        if act is _DROP:
            self._count(step, scope, path)
            self.changed = True
            return False
        if act is _COPY:
            self._count(step, scope, path)
            self.parts.append(value)
            return True
        self._replace(bytes(value), act, step, scope, path)
        return True

    def _replace(self, text: bytes, act: Act, step: int, scope: OpenScope, path: str) -> None:
        """Write the replacement of a scalar, or of each scalar within a container."""
        if text[0] == OBJECT:
            self._replace_members(text, act, step, scope, path)
            return
        if text[0] == ARRAY:
            self._replace_elements(text, act, step, scope, path)
            return
        new = self._replacement(text, act, step, scope)
        if new != text:
            self.changed = True
        self._count(step, scope, path)
        self.parts.append(new)

    def _replacement(self, scalar: bytes, act: Act, step: int, scope: OpenScope) -> bytes:
        kind, clear = decode_leaf(scalar)
        if act is _BLANK:
            return self._program.blanks[kind]
        return encode_leaf(*self._transforms_of(scope)[step](kind, clear))

    def _transforms_of(self, scope: OpenScope) -> Sequence[Transform]:
        # A scope without a number meets no cell, so nothing in it is transformed.
        return self._transforms if self._by_scope is None or scope.index == NONE else self._by_scope[scope.index]

    def _replace_members(self, text: bytes, act: Act, step: int, scope: OpenScope, path: str) -> None:
        members = decode_object(text)
        before = b"{"
        for (name, value), prefix in zip(members.items(), scan_names(text, members.values()), strict=True):
            self.parts.append(before + prefix[1:])
            self._replace(bytes(value), act, step, scope, name_path(path, name) if self._places else "")
            before = b","
        self.parts.append(b"}" if members else b"{}")

    def _replace_elements(self, text: bytes, act: Act, step: int, scope: OpenScope, path: str) -> None:
        elements = decode_array(text)
        before = b"["
        for at, value in enumerate(elements):
            self.parts.append(before)
            self._replace(bytes(value), act, step, scope, f"{path}[{at}]" if self._places else "")
            before = b","
        self.parts.append(b"]" if elements else b"[]")

    def _count(self, step: int, scope: OpenScope, path: str) -> None:
        if step == NONE:
            self.unlisted += 1
            return
        self.counts[step] += 1
        if self._places:
            self.findings.append(Finding(path, step, scope.index))


def _empty(entry: Entry) -> bytes:
    """Return what stays of a root that would go."""
    if isinstance(entry, Object):
        first = OBJECT
    elif isinstance(entry, (Array, Records)):
        first = ARRAY
    else:
        first = first_byte(entry)
    return {OBJECT: b"{}", ARRAY: b"[]"}.get(first, b"null")
