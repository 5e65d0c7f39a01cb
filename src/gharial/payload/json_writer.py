"""Pass two over JSON: writes the new body from what pass one opened. The rules stand in `json_reader`."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gharial.model.finding import Finding, Transform
from gharial.model.plan import NONE
from gharial.payload.json_levels import (
    ARRAY,
    OBJECT,
    Array,
    Entry,
    Object,
    OpenScope,
    decode_array,
    decode_object,
    first_byte,
)
from gharial.payload.json_text import decode_leaf, encode_leaf, name_path, scan_names
from gharial.payload.program import Act, Program, State

_COPY, _DROP, _BLANK = Act.COPY, Act.DROP, Act.BLANK


class Writer:
    """Collects the pieces of the new body, whether anything changed, and what was counted."""

    __slots__ = ("_places", "_program", "_transforms", "changed", "counts", "findings", "parts", "unlisted")

    def __init__(self, program: Program, transforms: Sequence[Transform], *, want_places: bool) -> None:
        self._program = program
        self._transforms = transforms
        self._places = want_places
        self.parts: list[bytes | msgspec.Raw] = []
        self.changed = False
        self.counts = [0] * len(program.plan.steps)
        self.unlisted = 0
        self.findings: list[Finding] = []

    def document(self, root: Entry, state: State, scope: OpenScope) -> None:
        """Write the whole document; where the root would go, an empty value of its type stays."""
        if not self._entry(root, state, scope, "$"):
            if isinstance(root, Object):
                first = OBJECT
            elif isinstance(root, Array):
                first = ARRAY
            else:
                first = first_byte(root)
            self.parts.append({OBJECT: b"{}", ARRAY: b"[]"}.get(first, b"null"))

    def _entry(self, entry: Entry, state: State, scope: OpenScope, path: str) -> bool:
        """Write an element, a member's value or the root; return False if it goes."""
        if isinstance(entry, (Object, Array)):
            return self._container(entry, path)
        return self._settled(entry, state, scope, path)

    def _container(self, level: Object | Array, path: str) -> bool:
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
        else:
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
        if level.children is None and not self._places:
            self._flat(level)
        else:
            children = level.children or {}
            scope = level.scope
            names = [""] * len(level.values)
            if self._places:
                names = [msgspec.json.decode(prefix[1:-1], type=str) for prefix in level.prefixes]
            for at, (prefix, value, state) in enumerate(
                zip(level.prefixes, level.values, level.shape.states, strict=True)
            ):
                mark = len(parts)
                parts.append(prefix)
                below = name_path(path, names[at]) if self._places else ""
                if not self._entry(children.get(at, value), state, scope, below):
                    del parts[mark:]
        if len(parts) == start:
            return False
        parts[start] = b"{" + bytes(parts[start])[1:]
        parts.append(b"}")
        return True

    def _flat(self, level: Object) -> None:
        """Write the members of an object of which none was opened: the same as the general way, only faster."""
        parts, values, prefixes, counts = self.parts, level.values, level.prefixes, self.counts
        acts = level.shape.flat(level.scope.variant)
        for step, times in acts.counts:
            counts[step] += times
        self.unlisted += acts.unlisted
        if len(acts.writes) < len(values):
            self.changed = True
        for at, act, step in acts.writes:
            parts.append(prefixes[at])
            if act is _COPY:
                parts.append(values[at])
                continue
            text = bytes(values[at])
            # Counted above as one value; what follows counts for itself.
            if step == NONE:
                self.unlisted -= 1
            else:
                counts[step] -= 1
            self._replace(text, act, step, level.scope, "")

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
                del parts[mark:]
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
        kind, clear = decode_leaf(text)
        if act is _BLANK:
            new = self._program.blanks[kind]
        else:
            new = encode_leaf(*self._transforms[step](kind, clear))
        if new != text:
            self.changed = True
        self._count(step, scope, path)
        self.parts.append(new)

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
